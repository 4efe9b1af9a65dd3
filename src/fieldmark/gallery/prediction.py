"""The answer for one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NONE_OF_THESE = "none of these"
"""What :meth:`FewShotClassifier.predict` answers where it rejects."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo.

    Attributes:
        label: The nearest class, or ``"none of these"`` if it is rejected and rejection was asked for.
        confidence: Calibrated probability of the nearest class, given that it is one of the classes.
        rejected: Whether the score lies below the line for "none of these"; None where no line is known.
        score: What is compared with the line: the largest score of any class.
        top: The nearest classes with their probabilities, the first is the nearest.
    """

    label: Any
    confidence: float
    rejected: bool | None
    score: float
    top: list[tuple[Any, float]]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "rejected": self.rejected,
            "score": self.score,
            "top": [{"label": label, "probability": value} for label, value in self.top],
        }
