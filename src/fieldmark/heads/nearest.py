"""Nearest support image."""

from __future__ import annotations

import torch

from fieldmark import functional
from fieldmark.functional.distances import METRICS, Metric
from fieldmark.heads.base import HEADS, Head, Kind, check_option, pooled
from fieldmark.shapes import Tensor


@HEADS.add("nearest", "nearest support image (Euclid or cosine)", source="Cover & Hart 1967")
class Nearest(Head):
    """Similarity to the nearest support image of each class.

    Args:
        metric: ``"squared_euclidean"``, ``"euclidean"`` or ``"cosine"``.

    Example:
        >>> import torch
        >>> support = torch.tensor([[[[0.0]], [[9.0]], [[4.0]]]])
        >>> Nearest("euclidean")(support, torch.tensor([[0, 0, 1]]), torch.tensor([[[[7.0]]]]), way=2)
        tensor([[[-2., -3.]]])
    """

    descriptors: Kind = "pooled"

    def __init__(self, metric: Metric = "squared_euclidean") -> None:
        super().__init__()
        check_option("nearest", "metric", metric, METRICS)
        self.metric = metric

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """The best similarity within each class."""
        near = functional.similarity(pooled(query), pooled(support), self.metric)
        start = near.new_full((*near.shape[:2], way), -torch.inf)
        return start.scatter_reduce(-1, labels.long().unsqueeze(1).expand_as(near), near, "amax")
