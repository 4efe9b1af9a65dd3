"""Honest confidence: temperature and the line below which the answer is "none of these", from the support photos alone.

Nothing is encoded again. Held-out photos: one run leaves out one photo of every class that has two or more, and as many
runs as the largest class has photos leave out every photo once. So every class gives up the same, and the calibration
is not tilted against the photo's own class, as it is where one photo alone is left out. Strangers: a fifth of the
classes is left out at a time, and their photos are scored against the rest; that is what a photo of no enrolled class
looks like, and it needs no second photo of a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Int, Tensor

Score = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""From numbers of support photos ``(S,)``, their classes ``(S,)``, numbers of queries ``(Q,)`` and the way to scores
``(Q, way)``."""

RUNS = 20
"""At most so many runs for the held-out photos; classes with more photos leave out several in each."""

GROUPS = 5
"""Groups of classes for the strangers."""

FALSE_REJECT = 0.05
"""Share of the photos of enrolled classes that is rejected unless something else is asked for."""

FEWEST = 10
"""With fewer held-out photos their scores say too little."""

ALLOWANCE = 1.2
"""Temperatures from held-out photos are raised by this: photos of a class are mostly taken in one go, so that one of
them is easier to recognise from the others than a photo taken elsewhere will be. Between what held-out and what new
photos asked for lay 1.15 to 1.35 on Grocery Store's validation photos (docs/tutorials/confidence.md)."""

PRIORS = {"whitened": 0.77, "logistic": 0.5, "prototype": 0.33}
"""Temperature that new photos asked for with one photo a class, in units of the spread of strangers' scores, by head;
on the same photos."""

PRIOR = 0.5
"""Likewise for heads that were not measured."""

PRIOR_PHOTOS = 5.0
"""How many held-out photos that prior is worth."""

_BETAS = (1e-4, 1e4)  # inverse temperatures that are looked at, in units of the scores' spread


@dataclass(frozen=True)
class HeldOut:
    """Scores of photos that were no part of the support set they were scored against.

    Attributes:
        scores: ``(n, way)``; minus infinity for classes that were left out.
        labels: ``(n,)`` their true classes.
        index: ``(n,)`` which of the support photos they are.
    """

    scores: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def photo_runs(labels: Int[np.ndarray, " S"], runs: int = RUNS) -> list[np.ndarray]:
    """Which photos each run leaves out: every photo of a class with two or more exactly once, never a whole class.

    Args:
        labels: Classes of the support photos.
        runs: At most so many runs, 2 or more.

    Example:
        >>> [run.tolist() for run in photo_runs(np.array([0, 0, 0, 1, 1, 2]))]
        [[0, 3], [1, 4], [2]]
    """
    classes, counts = np.unique(labels, return_counts=True)
    parts = min(runs, int(counts.max(initial=0)))
    out: list[list[int]] = [[] for _ in range(parts)]
    for label, count in zip(classes, counts, strict=True):
        if count > 1:
            for rank, photo in enumerate(np.flatnonzero(labels == label)):
                out[rank % parts].append(int(photo))
    return [np.array(sorted(run)) for run in out if run]


def class_groups(way: int, groups: int = GROUPS) -> list[np.ndarray]:
    """Which classes each run leaves out: every class once, at least one stays; none if there is a single class.

    Example:
        >>> [group.tolist() for group in class_groups(5, 2)], class_groups(1)
        ([[0, 2, 4], [1, 3]], [])
    """
    parts = min(groups, way) if way > 1 else 0
    return [np.arange(start, way, parts) for start in range(parts)]


def held_out_photos(score: Score, labels: Int[Tensor, " S"], way: int, runs: int = RUNS) -> HeldOut:
    """Every photo of a class with two or more, scored against a support set without it.

    Args:
        score: Scores queries; see :data:`Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes.
        runs: At most so many calls.
    """
    everything = torch.arange(len(labels))
    parts = []
    for left in (torch.from_numpy(run) for run in photo_runs(labels.cpu().numpy(), runs)):
        stay = everything[~torch.isin(everything, left)]
        parts.append((score(stay, labels[stay], left, way), left))
    return _joined(parts, labels, way)


def strangers(score: Score, labels: Int[Tensor, " S"], way: int, groups: int = GROUPS) -> HeldOut:
    """Every photo, scored against the classes of the other groups: it belongs to none of these.

    Args:
        score: Scores queries; see :data:`Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes; with a single one there are no strangers.
        groups: Number of calls.
    """
    parts = []
    for left in (torch.from_numpy(group) for group in class_groups(way, groups)):
        away = torch.isin(labels, left)
        stay = torch.arange(way)[~torch.isin(torch.arange(way), left)]
        number = torch.full((way,), -1).index_put((stay,), torch.arange(len(stay)))
        support = torch.nonzero(~away).flatten()
        index = torch.nonzero(away).flatten()
        found = score(support, number[labels[support]], index, len(stay))
        scores = found.new_full((len(index), way), -torch.inf)
        scores[:, stay] = found
        parts.append((scores, index))
    return _joined(parts, labels, way)


def _joined(parts: list[tuple[Tensor, Tensor]], labels: Tensor, way: int) -> HeldOut:
    if not parts:
        none = torch.empty(0, dtype=torch.int64)
        return HeldOut(torch.empty(0, way), none, none)
    index = torch.cat([photos for _, photos in parts])
    return HeldOut(torch.cat([scores for scores, _ in parts]).float(), labels[index], index)


def negative_log_likelihood(scores: Float[Tensor, "n way"], labels: Int[Tensor, " n"], temperature: float) -> float:
    """Mean of minus the logarithm of the true class's probability under ``softmax(scores / temperature)``.

    Example:
        >>> round(negative_log_likelihood(torch.zeros(1, 4), torch.tensor([2]), 1.0), 4)
        1.3863
    """
    return float(torch.nn.functional.cross_entropy(scores.double() / temperature, labels.long()))


def best_temperature(
    scores: Float[Tensor, "n way"],
    labels: Int[Tensor, " n"],
    prior: float | None = None,
    prior_photos: float = 0.0,
) -> float:
    """The temperature with the smallest negative log-likelihood.

    Source: Guo et al. 2017, "On calibration of modern neural networks", temperature scaling.

    Args:
        scores: Of held-out photos.
        labels: Their classes.
        prior: A temperature that is to be expected.
        prior_photos: How many photos that expectation is worth: the squared logarithm of the ratio to the prior,
            times this, is added to the summed negative log-likelihood. Without it a few photos that are all right
            would ask for a temperature of 0.

    Raises:
        FieldmarkError: If there is no photo and no prior.

    Example:
        >>> scores = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
        >>> temperature = best_temperature(scores, torch.tensor([0, 0, 0, 1]))
        >>> torch.softmax(scores[0] / temperature, 0).round(decimals=3)
        tensor([0.7500, 0.2500])
    """
    if not len(scores):
        if prior is None:
            raise FieldmarkError("a temperature was asked of no photo at all; give some, or a prior")
        return prior
    # In units of the scores' own spread the search does not depend on the head's scale.
    unit = spread(scores)
    target = labels.long()
    scaled = scores.double() / unit

    def loss(beta: Tensor) -> Tensor:
        """Summed negative log-likelihood for each inverse temperature."""
        total = torch.stack([
            torch.nn.functional.cross_entropy(scaled * one, target, reduction="sum") for one in beta
        ])  # fmt: skip
        if prior is not None and prior_photos > 0:
            total = total + prior_photos * (beta * prior / unit).log().square()
        return total

    low, high = (float(np.log(end)) for end in _BETAS)
    for _ in range(3):  # each pass looks 30 times closer; convex without the prior, close to it with one
        grid = torch.linspace(low, high, 61, dtype=torch.float64)
        best = int(loss(grid.exp()).argmin())
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 60)])
    return unit / float(np.exp((low + high) / 2))


def spread(scores: Float[Tensor, "n way"]) -> float:
    """Root mean square deviation of a photo's scores from their mean; 1 where all are equal.

    Example:
        >>> spread(torch.tensor([[1.0, 3.0], [4.0, 4.0]]))
        0.7071067811865476
    """
    finite = torch.isfinite(scores)
    values = torch.where(finite, scores, 0).double()
    counts = finite.sum(-1, keepdim=True).clamp_min(1)
    deviation = torch.where(finite, values - values.sum(-1, keepdim=True) / counts, 0)
    found = float((deviation.square().sum() / counts.sum().clamp_min(1)).sqrt())
    return found if found > 0 else 1.0


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities, and below what score the answer is "none of these".

    Attributes:
        temperature: Scores are divided by it before the softmax.
        threshold: Photos whose largest score is below it are of none of the classes; None where nothing is known.
        false_reject: Share of the held-out photos that the threshold rejects, as it was asked for.
        photos: Held-out photos behind it, those of classes with two or more photos.
        accuracy: Share of these that got the right label; None without any.
        stranger_photos: Photos that were scored with their class left out.
        strangers_rejected: Share of these below the threshold; None without any.
        basis: What the threshold is from: ``"held-out photos"``, or ``"strangers"`` where there were too few of them.
    """

    temperature: float
    threshold: float | None
    false_reject: float
    photos: int
    accuracy: float | None
    stranger_photos: int
    strangers_rejected: float | None
    basis: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def calibrate(
    score: Score,
    labels: Int[Tensor, " S"],
    way: int,
    false_reject: float = FALSE_REJECT,
    runs: int = RUNS,
    groups: int = GROUPS,
    prior: float = PRIOR,
    allowance: float = ALLOWANCE,
) -> Calibration:
    """Temperature and threshold from the support photos.

    The temperature is that of the smallest negative log-likelihood of the held-out photos, drawn towards a prior and
    then raised by an allowance for photos taken in one go. The threshold rejects ``false_reject`` of the held-out
    photos. Where fewer than ``FEWEST`` photos can be held out (one-shot classes), the temperature is near the prior,
    and the threshold rejects ``false_reject`` of the strangers: photos of enrolled classes score no lower than
    strangers, so that at most about that share of them is rejected. ``basis`` says which it was. A single class of a
    single photo has no threshold.

    Args:
        score: Scores queries from some of the support photos; see :data:`Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes.
        false_reject: Share of the photos of enrolled classes that may be rejected.
        runs: See :func:`held_out_photos`.
        groups: See :func:`strangers`.
        prior: Expected temperature in units of the spread of strangers' scores.
        allowance: Factor on the temperature of held-out photos.
    """
    held, away = held_out_photos(score, labels, way, runs), strangers(score, labels, way, groups)
    base = away if len(away) else held
    expected = prior * spread(base.scores) if len(base) and way > 1 else 1.0
    # The prior was measured on new photos and needs no allowance.
    sure = len(held) > 0 and way > 1
    temperature = expected
    if sure:
        temperature = allowance * best_temperature(held.scores, held.labels, expected / allowance, PRIOR_PHOTOS)
    best, away_best = (one.scores.amax(-1) if len(one) else torch.empty(0) for one in (held, away))
    basis = "held-out photos" if len(held) >= FEWEST else "strangers" if len(away) else "held-out photos"
    if basis == "strangers":
        threshold: float | None = float(away_best.double().quantile(false_reject))
    else:
        threshold = float(best.double().quantile(false_reject)) if len(held) else None
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        false_reject=false_reject,
        photos=len(held),
        accuracy=float((held.scores.argmax(-1) == held.labels).double().mean()) if len(held) else None,
        stranger_photos=len(away),
        strangers_rejected=(
            float((away_best < threshold).double().mean()) if len(away) and threshold is not None else None
        ),
        basis=basis,
    )


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy by bins of confidence.

    Attributes:
        edges: ``(bins + 1,)`` from 0 to 1.
        counts: ``(bins,)`` answers in each bin.
        confidence: ``(bins,)`` their mean confidence; NaN where there are none.
        accuracy: ``(bins,)`` share of them that is right; likewise.
        error: Expected calibration error: mean of the gaps between the two, weighted by the counts.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(confidence: Float[np.ndarray, " n"], correct: Any, bins: int = 15) -> Reliability:
    """How far confidence and accuracy are apart, bin by bin.

    Source: Naeini et al. 2015; Guo et al. 2017, eq. 3. Bins are open below and closed above; 0 is in the first.

    Args:
        confidence: Probability of each answer that was given.
        correct: Whether it was right.
        bins: Bins of equal width.

    Raises:
        FieldmarkError: For no answers, other lengths, or numbers that are no probabilities.
    """
    confidence, correct = _answers(confidence, correct)
    if confidence.min() < 0 or confidence.max() > 1 + 1e-6:
        raise FieldmarkError(f"confidence goes from {confidence.min():g} to {confidence.max():g}; expected 0 to 1")
    if bins < 1:
        raise FieldmarkError(f"bins is {bins}; expected at least 1")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, confidence, bins), np.bincount(place, correct, bins)
    means = [np.divide(one, counts, out=np.full(bins, np.nan), where=counts > 0) for one in sums]
    gap = np.where(counts > 0, np.abs(np.nan_to_num(means[0]) - np.nan_to_num(means[1])), 0)
    return Reliability(edges, counts, means[0], means[1], float((gap * counts).sum() / len(confidence)))


def expected_calibration_error(confidence: Float[np.ndarray, " n"], correct: Any, bins: int = 15) -> float:
    """The error of :func:`reliability` alone.

    Example:
        >>> expected_calibration_error(np.array([0.8, 0.8, 0.8, 0.8]), [1, 1, 1, 0])  # doctest: +ELLIPSIS
        0.05...
    """
    return reliability(confidence, correct, bins).error


@dataclass(frozen=True)
class RiskCoverage:
    """What is gained by leaving the least sure answers out.

    Attributes:
        threshold: ``(k,)`` distinct confidences, falling: answers at or above it are given.
        coverage: ``(k,)`` share of the questions that is answered.
        risk: ``(k,)`` share of these answers that is wrong.
        area: Mean risk over all coverages (1/n to 1, answers of equal confidence in mean order); 0 is best.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float

    def coverage_at(self, risk: float) -> float:
        """The largest coverage with at most this risk; 0 where there is none.

        Example:
            >>> risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), [1, 1, 0, 1]).coverage_at(0.25)
            1.0
        """
        fits = self.coverage[self.risk <= risk]
        return float(fits.max()) if len(fits) else 0.0


def risk_coverage(confidence: Float[np.ndarray, " n"], correct: Any) -> RiskCoverage:
    """Risk against coverage as the threshold on the confidence falls.

    Source: Geifman and El-Yaniv 2017, "Selective classification for deep neural networks".

    Args:
        confidence: Of each answer, on any scale; larger is surer.
        correct: Whether it was right.

    Raises:
        FieldmarkError: For no answers, or other lengths.

    Example:
        >>> found = risk_coverage(np.array([0.9, 0.5, 0.7, 0.5]), [1, 0, 1, 1])
        >>> found.coverage.tolist(), found.risk.tolist()
        ([0.25, 0.5, 1.0], [0.0, 0.0, 0.25])
    """
    confidence, correct = _answers(confidence, correct)
    values, place, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(place, 1 - correct, len(values))
    answered, errors = np.cumsum(counts), np.cumsum(wrong)
    # Within a group of equal confidence the order means nothing: errors are spread evenly over it.
    each = np.repeat(wrong / counts, counts)
    area = float((np.cumsum(each) / np.arange(1, len(confidence) + 1)).mean())
    return RiskCoverage(-values, answered / len(confidence), errors / answered, area)


def _answers(confidence: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise FieldmarkError(
            f"confidence has shape {confidence.shape} and correct {correct.shape}; expected one of each an answer"
        )
    if not np.isfinite(confidence).all():
        raise FieldmarkError("confidence holds NaN or infinity; expected numbers")
    return confidence, correct
