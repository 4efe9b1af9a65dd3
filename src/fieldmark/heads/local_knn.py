"""Nearest local descriptors of each class."""

from __future__ import annotations

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.heads.base import HEADS, Head, Kind
from fieldmark.shapes import Tensor


@HEADS.add("local_knn", "k nearest local descriptors in the pool of each class (DN4)", source="Li et al. 2019")
class LocalKNN(Head):
    """Sum over the query's locations of the k best cosines among all descriptors of a class.

    Source: DN4 (Li et al. 2019), with k = 3 there; DeepEMD's Table 1 reports k = 1.

    Args:
        k: Neighbours of each location.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> LocalKNN()(support, torch.tensor([[0, 1]]), torch.tensor([[[[0.6, 0.8]]]]), way=2)
        tensor([[[0.6000, 0.8000]]])
    """

    descriptors: Kind = "local"

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        if k < 1:
            raise FieldmarkError(f"k of head local_knn is {k}; expected at least 1")
        self.k = k

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Image-to-class similarity."""
        return functional.local_similarity(query, support, labels, way, self.k)
