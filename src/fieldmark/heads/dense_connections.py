"""All local descriptors against all, without a matching."""

from __future__ import annotations

from typing import get_args

from fieldmark import functional
from fieldmark.functional.emd_similarity import Weighting
from fieldmark.functional.weights import Variant
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.heads.emd import class_mean
from fieldmark.shapes import Tensor


@HEADS.add(
    "dense_connections",
    "weighted mean of the cosines of all pairs of local descriptors",
    source="Zhang et al. 2020 (DeepEMD, Table 2)",
)
class DenseConnections(Head):
    """Weighted mean cosine of the query's local descriptors with those of the class's mean map: no matching.

    Source: "dense connections" in DeepEMD's Table 2, there to show what the matching adds.

    Args:
        weights: ``"cross_reference"`` or ``"equal"``.
        variant: ``"code"`` or ``"paper"``, see :func:`fieldmark.functional.emd_similarity`.
        centre: Centre descriptors across channels for the cosines; None: as the variant does.
        temperature: Factor on the mean.

    Example:
        >>> import torch
        >>> support = torch.eye(4).view(1, 2, 2, 4)
        >>> DenseConnections(weights="equal")(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "local"

    def __init__(
        self,
        weights: Weighting = "cross_reference",
        variant: Variant = "code",
        centre: bool | None = None,
        temperature: float = 12.5,
    ) -> None:
        super().__init__()
        check_option("dense_connections", "weights", weights, get_args(Weighting))
        check_option("dense_connections", "variant", variant, get_args(Variant))
        check_positive("dense_connections", temperature=temperature)
        self.weights, self.variant, self.centre, self.temperature = weights, variant, centre, temperature

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Mean cosine with each class."""
        return functional.dense_similarity(
            query,
            class_mean(support, labels, way),
            variant=self.variant,
            centre=self.centre,
            weights=self.weights,
            temperature=self.temperature,
        )
