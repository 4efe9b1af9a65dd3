"""Honest confidence: temperature and the line below which the answer is "none of these", from the support photos alone.

Both come from scores of photos that were no part of the support set (:mod:`fieldmark.gallery.held_out`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.gallery.held_out import GROUPS, RUNS, Score, held_out_photos, strangers
from fieldmark.shapes import Float, Int, Tensor

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
        score: Scores queries from some of the support photos; see :data:`fieldmark.gallery.held_out.Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes.
        false_reject: Share of the photos of enrolled classes that may be rejected.
        runs: See :func:`~fieldmark.gallery.held_out.held_out_photos`.
        groups: See :func:`~fieldmark.gallery.held_out.strangers`.
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
