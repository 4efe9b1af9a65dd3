"""Attention over the support images."""

from __future__ import annotations

from fieldmark import functional
from fieldmark.heads.base import HEADS, Head, Kind, check_positive, pooled
from fieldmark.shapes import Tensor


@HEADS.add("matching", "softmax attention over the support images (MatchingNet)", source="Vinyals et al. 2016")
class Matching(Head):
    """Attention of the query on each class: softmax over support images of their scaled cosines.

    Source: MatchingNet (Vinyals et al. 2016), without full-context embedding. The scores are log-probabilities.

    Args:
        scale: Factor on the cosines; 1 as in the paper, where the probabilities of 5 classes stay below 0.65.
        normalise_query: False leaves the query's length in the product, as easyfsl does.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Matching(scale=10.0)(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "pooled"

    def __init__(self, scale: float = 1.0, normalise_query: bool = True) -> None:
        super().__init__()
        check_positive("matching", scale=scale)
        self.scale, self.normalise_query = scale, normalise_query

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Log of the attention on each class."""
        support, query = functional.l2_normalise(pooled(support)), pooled(query)
        if self.normalise_query:
            query = functional.l2_normalise(query)
        return functional.attention_log_probability(self.scale * (query @ support.mT), labels, way)
