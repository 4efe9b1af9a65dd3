"""What the results say: which family of heads is ahead, by how much, and what is the cheapest head that is as good."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fieldmark.evaluation.results import accuracies, load_record
from fieldmark.evaluation.statistics import Estimate, estimate, paired_difference
from fieldmark.picks.catalogue import Comparison, Family, HeadSpec, Listed, find

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True)
class Contest:
    """All heads of one comparison at one number of shots, on the same episodes.

    Attributes:
        comparison: Data set and backbone.
        shot: Labelled images a class.
        record: The results file.
        file: Its name.
        rows: Its rows by the name of the head, those that the list has.
    """

    comparison: Comparison
    shot: int
    record: Mapping[str, Any]
    file: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def places(self) -> int:
        """Local descriptors of an image; 0 where no head takes any."""
        local = [row for row in self.rows.values() if row["descriptors"]["name"] not in ("pooled", "spatial")]
        return max((row["cost"]["descriptors"][0] for row in local), default=0)

    @property
    def label(self) -> str:
        """Data set and backbone, for a reader."""
        return f"{self.comparison.data.title} with {self.comparison.backbone.title}"

    def spec(self, head: str) -> HeadSpec:
        """The list's entry of a head."""
        return self.comparison.heads[head]

    def family(self, *families: Family) -> list[str]:
        """The heads of families that have a row."""
        return [key for key in self.rows if self.spec(key).family in families]

    def hits(self, head: str) -> np.ndarray:
        """Accuracy of every episode."""
        return accuracies(self.rows[head])

    @property
    def encoder_milliseconds(self) -> float:
        """Cost of encoding an image."""
        return float(next(iter(self.rows.values()))["cost"]["encoder_milliseconds_per_image"])

    def milliseconds(self, head: str) -> float:
        """Cost of a query."""
        return float(self.rows[head]["cost"]["milliseconds_per_query"])


@dataclass(frozen=True)
class Contrast:
    """A paired difference with the heads that stand on either side (several where the halves chose differently)."""

    difference: Estimate
    first: Sequence[str]
    second: Sequence[str]

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves zero out, and on which side."""
        return verdict(self.difference)


def verdict(difference: Estimate) -> Verdict:
    """Whether a difference is clearly above or below zero.

    Example:
        >>> [verdict(Estimate(mean, 0.01, 600, "episodes", "normal")) for mean in (0.02, 0.005, -0.02)]
        ['better', 'open', 'worse']
    """
    if difference.mean - difference.ci95 > 0:
        return "better"
    return "worse" if difference.mean + difference.ci95 < 0 else "open"


def contests(listed: Listed, out: str | Path) -> list[Contest]:
    """Those of the list's comparisons that have a results file, in its order.

    Raises:
        FieldmarkError: For a damaged file.
    """
    found = []
    for comparison in find(listed):
        for shot in comparison.episodes:
            path = comparison.file(shot, out)
            if path.exists():
                record = load_record(path)
                rows = {row.get("pick"): row for row in record["rows"]}
                known = {key: rows[key] for key in comparison.heads if "cost" in rows.get(key, {})}
                if known:
                    found.append(Contest(comparison, shot, record, path.name, known))
    return found


def best_of(contest: Contest, first: Sequence[str], second: Sequence[str]) -> Contrast | None:
    """The best of some heads against the best of others, without choosing and measuring on the same episodes.

    Episodes with even numbers say which head of each side is compared on those with odd numbers, and the other way
    round; the difference is over all episodes. None where a side has no head.

    Args:
        contest: The results.
        first: Names of heads.
        second: Names of heads.
    """
    if not first or not second:
        return None
    hits = {key: contest.hits(key) for key in {*first, *second}}
    count = len(next(iter(hits.values())))
    halves = [np.arange(count) % 2 == half for half in (0, 1)]
    difference = np.empty(count)
    sides: tuple[list[str], list[str]] = ([], [])
    for measured, choosing in (halves, halves[::-1]):
        if not choosing.any():  # a single episode
            choosing = measured
        ahead = [max(keys, key=lambda key: hits[key][choosing].mean()) for keys in (first, second)]
        difference[measured] = hits[ahead[0]][measured] - hits[ahead[1]][measured]
        for side, key in zip(sides, ahead, strict=True):
            side.append(key)
    return Contrast(estimate(difference), *(tuple(dict.fromkeys(side)) for side in sides))


def cheapest_as_good(contest: Contest) -> str:
    """The head that costs least of those that are not clearly worse than the one of the highest mean."""
    best = max(contest.rows, key=lambda key: contest.rows[key]["mean"])
    good = [key for key in contest.rows if verdict(paired_difference(contest.hits(key), contest.hits(best))) != "worse"]
    return min(good, key=contest.milliseconds)


def to_pooled(contest: Contest, head: str) -> Contrast | None:
    """A head against the best of the (other) pooled ones, see :func:`best_of`."""
    return best_of(contest, [head], [key for key in contest.family("pooled") if key != head])


@dataclass(frozen=True)
class Tally:
    """Many contrasts counted: those clearly above zero, clearly below, and neither; the mean of all differences."""

    better: Sequence[tuple[Contest, Contrast]]
    worse: Sequence[tuple[Contest, Contrast]]
    open: Sequence[tuple[Contest, Contrast]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.better) + len(self.worse) + len(self.open)

    @property
    def mean(self) -> float:
        """Mean difference, as a share."""
        return statistics.fmean(one.difference.mean for _, one in (*self.better, *self.worse, *self.open))


def tally(pairs: Sequence[tuple[Contest, Contrast]]) -> Tally:
    """Count contrasts by their verdict."""
    of = {name: [pair for pair in pairs if pair[1].verdict == name] for name in ("better", "worse", "open")}
    return Tally(**of)


def alignment(every: Sequence[Contest]) -> list[tuple[Contest, Contrast]]:
    """The best aligned head against the best pooled one, wherever an image has more than one place."""
    found = [(one, best_of(one, one.family("aligned"), one.family("pooled"))) for one in every if one.places > 1]
    return [(one, contrast) for one, contrast in found if contrast is not None]
