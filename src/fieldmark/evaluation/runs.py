"""Several runs of a protocol with other episodes: each run's accuracy, and the median run, as SCL reports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldmark.backbones import Backbone, Encoder
from fieldmark.data import EpisodeIndex, ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.few_shot import FewShotResult, evaluate_heads
from fieldmark.evaluation.statistics import Estimate, median_run, paired_difference
from fieldmark.heads import Head
from fieldmark.shapes import Tensor


@dataclass(frozen=True)
class FewShotRuns:
    """Outcomes of one head on the episodes of several seeds.

    Attributes:
        results: One a run, in the order of the seeds.
        seeds: The seeds.
    """

    results: Sequence[FewShotResult]
    seeds: Sequence[int]

    @property
    def median(self) -> FewShotResult:
        """The run of median accuracy; of an even number the lower of the two in the middle."""
        return self.results[median_run([result.accuracy for result in self.results])]

    @property
    def estimate(self) -> Estimate:
        """Mean and interval of the median run over its episodes: what SCL's tables hold."""
        return self.median.estimate

    def difference(self, other: FewShotRuns) -> Estimate:
        """Paired difference to another result over the episodes of all runs.

        Raises:
            FieldmarkError: If the episodes differ.
        """
        if [one.episodes.hash for one in self.results] != [one.episodes.hash for one in other.results]:
            raise FieldmarkError("a paired difference needs the same episodes; these results used different ones")
        first, second = (np.concatenate([one.episode_accuracies for one in runs.results]) for runs in (self, other))
        return paired_difference(first, second, self.median.interval)

    def to_dict(self) -> dict[str, Any]:
        """The median run's entry of a results file; of more than one run with ``runs``, all of them in short.

        The hits of the median run are the entry's own and do not stand a second time.
        """
        median = self.median
        whole = median.to_dict()
        if len(self.results) == 1:
            return whole
        short = ("mean", "ci95", "episode_hash")
        runs = []
        for seed, result in zip(self.seeds, self.results, strict=True):
            entry = result.to_dict()
            keys = short if result is median else (*short, "hits_per_episode")
            runs.append({"seed": seed, **{key: entry[key] for key in keys}})
        return {**whole, "runs": runs}


def evaluate_runs(
    model: Encoder | Backbone,
    data: ImageStore,
    heads: Mapping[str, str | Head],
    runs: int = 3,
    way: int | None = 5,
    shot: int = 1,
    queries: int | None = 15,
    episodes: int | EpisodeIndex = 600,
    seed: int = 0,
    **options: Any,
) -> dict[str, FewShotRuns]:
    """Several heads on the episodes of several seeds; images are encoded once, augmented copies anew for each run.

    Source: SCL (Ouali et al. 2021), section 4.1: the median over 3 runs of the mean accuracy over 600 episodes.

    Args:
        model: As for :func:`fieldmark.evaluation.evaluate_few_shot`, like the other arguments.
        data: Images of the classes to recognise.
        heads: Names of heads, or heads, by a name of your own.
        runs: How many; their seeds are ``seed``, ``seed + 1`` and so on.
        way: Classes an episode; ``None``: all.
        shot: Labelled images a class.
        queries: Images to recognise a class.
        episodes: How many each run.
        seed: Seed of the first run.
        options: The other arguments of :func:`fieldmark.evaluation.evaluate_heads`.

    Raises:
        FieldmarkError: As there; fewer than one run, or more than one with fixed episodes.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test")
        >>> found = evaluate_runs(backbones.create("pixels"), glyphs, {"mean": "prototype"}, queries=3, episodes=10)
        >>> [result.accuracy for result in found["mean"].results].index(found["mean"].median.accuracy) in (0, 1, 2)
        True
    """
    if runs < 1:
        raise FieldmarkError(f"runs is {runs}; expected at least 1")
    if runs > 1 and isinstance(episodes, EpisodeIndex):
        raise FieldmarkError(f"{runs} runs of fixed episodes would all be the same; give the number of episodes, or 1")
    described: dict[str, dict[str, Tensor]] = {}
    seeds = [seed + run for run in range(runs)]
    each = [
        evaluate_heads(model, data, heads, way, shot, queries, episodes, one, described=described, **options)
        for one in seeds
    ]
    return {key: FewShotRuns([found[key] for found in each], seeds) for key in heads}
