"""How good is a confidence: its gap to the accuracy, and the risk that is left where the least sure answers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float


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
