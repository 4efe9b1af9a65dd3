"""How tight the classes lie against how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class DaviesBouldin:
    """The Davies-Bouldin index with what it is the mean of.

    Attributes:
        index: Mean of the ratios; 0 where every class is a point, small where classes are tight and far apart.
        classes: ``(K,)`` the labels that occur, rising.
        ratios: ``(K,)`` of each class: its spread plus that of the class that it overlaps most with, over the distance
            of their centres.
        nearest: ``(K,)`` that class.
        spreads: ``(K,)`` mean distance of a class's images from their centre.
    """

    index: float
    classes: Int[Tensor, " K"]
    ratios: Float[Tensor, " K"]
    nearest: Int[Tensor, " K"]
    spreads: Float[Tensor, " K"]

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """As JSON values, with the names of the classes by label."""
        rows = zip(
            self.classes.tolist(), self.ratios.tolist(), self.nearest.tolist(), self.spreads.tolist(), strict=True
        )
        return {
            "davies_bouldin": self.index,
            "classes": {
                names[label]: {"ratio": ratio, "overlaps": names[other], "spread": spread}
                for label, ratio, other, spread in rows
            },
        }


def davies_bouldin(features: Float[Tensor, "M C"], labels: Int[Tensor, " M"]) -> DaviesBouldin:
    """The index of Davies and Bouldin (1979) of features by class, in float64.

    Source: SCL (Ouali et al. 2021), Fig. 5. The index is that of scikit-learn and torchmetrics; these give neither the
    ratio of each class nor the class that it is taken over, and torchmetrics keeps centres in float32.

    Args:
        features: One vector an image.
        labels: Class of each image, any whole numbers; at least two classes.

    Raises:
        FieldmarkError: For shapes that do not fit, or fewer than two classes.

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> davies_bouldin(features, torch.tensor([0, 0, 1, 1])).index
        0.2
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise FieldmarkError(
            f"features {tuple(features.shape)} and labels {tuple(labels.shape)}; expected (M, C) and (M,)"
        )
    classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise FieldmarkError(f"the Davies-Bouldin index compares classes; the {len(features)} images have one class")
    features = features.double()
    centres = features.new_zeros(len(classes), features.shape[1]).index_add_(0, index, features) / counts[:, None]
    distances = torch.linalg.vector_norm(features - centres[index], dim=1)
    spreads = distances.new_zeros(len(classes)).index_add_(0, index, distances) / counts
    # Differences, not products: close centres far from the origin keep their digits.
    apart = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    # Two classes with one centre are left out, as scikit-learn does.
    ratios = (spreads[:, None] + spreads) / apart.masked_fill(apart == 0, torch.inf)
    worst, nearest = ratios.fill_diagonal_(-1).max(1)
    worst = worst.clamp_min(0)
    return DaviesBouldin(float(worst.mean()), classes, worst, classes[nearest], spreads)
