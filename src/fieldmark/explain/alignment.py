"""What spatial alignment did to a support image: maps and correlations before and after, and what each place adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fieldmark.explain.boxes import cell_boxes

STAGES = {
    "query": "query",
    "support": "support",
    "correspondence": "support after LSC (long range)",
    "manipulation": "support after SSM (short range)",
}
"""What the maps of an alignment are called in pictures, in the order in which they come about."""


@dataclass(frozen=True)
class Alignment:
    """Two images as the model saw them, and how the support's map was brought to the layout of the query's.

    The contributions add up to the score exactly, up to the rounding of float64: nothing of it is left unexplained.

    Attributes:
        score: Of the head for this pair: minus the distance, times ``scale``. Large means near.
        query_image: ``(H, W, 3)`` uint8, after fit and size.
        support_image: ``(H, W, 3)`` uint8, likewise.
        heat: ``(h, w)`` largest channel at each place of the maps ``query`` and ``support`` (after the foreground
            enhancement, where there is one) and of the support after each stage, ``correspondence`` and
            ``manipulation``, as far as they are switched on.
        correlations: ``(h w, h w)`` cosine of every place of the query (row) with every place (column) of the
            ``support`` and of the support after each stage.
        masks: ``(h, w)`` foreground mask in 0 to 1 of ``query`` and ``support``; empty without one.
        contributions: ``(h w,)`` what each place of the query adds to the score.
        correspondence: ``(h w, h w)`` weights by which each place of the query (row) takes the places of the support
            (column); rows sum to 1. None where the correspondence is switched off.
        offsets: ``(2, h, w)`` x and y by which each place is shifted by the manipulation, in cells of the map. None
            where it is switched off.
        facts: Backbone, options of the head, whether its parts were trained, size and fit.
        query_name: What to call the query in pictures.
        support_name: What to call the support in pictures.
    """

    score: float
    query_image: np.ndarray = field(repr=False)
    support_image: np.ndarray = field(repr=False)
    heat: dict[str, np.ndarray] = field(repr=False)
    correlations: dict[str, np.ndarray] = field(repr=False)
    masks: dict[str, np.ndarray] = field(repr=False)
    contributions: np.ndarray = field(repr=False)
    correspondence: np.ndarray | None = field(repr=False)
    offsets: np.ndarray | None = field(repr=False)
    facts: dict[str, Any]
    query_name: str = "query"
    support_name: str = "support"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        rows, columns = self.heat["query"].shape
        return rows, columns

    @property
    def boxes(self) -> np.ndarray:
        """``(h w, 4)`` left, top, right, bottom of the places, in pixels of either image."""
        return cell_boxes(self.grid, self.query_image.shape[:2])

    @property
    def shares(self) -> np.ndarray | None:
        """``(h w,)`` part of the distance that each place makes up; None where there is no distance."""
        return self.contributions / self.score if self.score < 0 else None

    def diagonal(self, stage: str) -> float:
        """Mean cosine of each place of the query with the same place of the support at that stage."""
        return float(np.diag(self.correlations[stage]).mean())

    def to_dict(self) -> dict[str, Any]:
        """Scores, facts, heat maps, masks and places as JSON values; the place that adds most to the distance first."""
        sides = {
            side: {"name": name, "size": list(image.shape[:2]), "grid": list(self.grid)}
            for side, name, image in (
                ("query", self.query_name, self.query_image),
                ("support", self.support_name, self.support_image),
            )
        }
        shares = self.shares
        places = []
        for i in np.argsort(self.contributions, kind="stable"):
            place: dict[str, Any] = {
                "place": int(i),
                "box": self.boxes[i].tolist(),
                "contribution": float(self.contributions[i]),
                "share": None if shares is None else float(shares[i]),
                "cosine": {stage: float(matrix[i, i]) for stage, matrix in self.correlations.items()},
            }
            if self.correspondence is not None:
                source = int(self.correspondence[i].argmax())
                place["takes_most_from"] = source
                place["weight"] = float(self.correspondence[i, source])
            if self.offsets is not None:
                place["offset"] = self.offsets.reshape(2, -1)[:, i].tolist()
            places.append(place)
        return {
            "score": self.score,
            **self.facts,
            **sides,
            "diagonal": {stage: self.diagonal(stage) for stage in self.correlations},
            "heat": {name: values.tolist() for name, values in self.heat.items()},
            "masks": {name: values.tolist() for name, values in self.masks.items()},
            "places": places,
        }
