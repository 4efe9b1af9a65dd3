"""Every location votes (dense classification)."""

from __future__ import annotations

from fieldmark import functional
from fieldmark.heads.base import HEADS, Head, Kind, check_positive, pooled
from fieldmark.shapes import Tensor


@HEADS.add("fusion", "mean of the class probabilities that each location gives", source="Lifchitz et al. 2019")
class Fusion(Head):
    """Mean over the query's locations of the softmax of scaled cosines to pooled prototypes.

    Source: dense classification (Lifchitz et al. 2019). The scores are logarithms of the fused probability.

    Args:
        scale: Factor on the cosines before the softmax.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Fusion()(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "local"

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        check_positive("fusion", scale=scale)
        self.scale = scale

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Log of the fused probability."""
        prototypes = functional.class_prototypes(pooled(support), labels, way)
        return functional.fused_log_probability(query, prototypes, self.scale)
