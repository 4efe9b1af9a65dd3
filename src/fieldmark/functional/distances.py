"""Distances and similarities of every vector of one set to every vector of another."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from fieldmark.errors import unknown_name
from fieldmark.shapes import Float, Tensor

Metric = Literal["squared_euclidean", "euclidean", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)


def squared_euclidean(x: Float[Tensor, "*batch N C"], y: Float[Tensor, "*batch M C"]) -> Float[Tensor, "*batch N M"]:
    """Squared Euclidean distance of every x to every y, by one matrix product.

    The rounding error is relative to the squared norms, not to the distance.

    Example:
        >>> import torch
        >>> squared_euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[25.,  1.]])
    """
    # The norm is one fused pass, where a square and a sum would write all of x once more.
    norms_x = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
    norms_y = torch.linalg.vector_norm(y, dim=-1).square().unsqueeze(-2)
    return (norms_x + norms_y - 2 * (x @ y.mT)).clamp_min(0)


def euclidean(x: Float[Tensor, "*batch N C"], y: Float[Tensor, "*batch M C"]) -> Float[Tensor, "*batch N M"]:
    """Euclidean distance of every x to every y; its gradient at distance zero is zero.

    Example:
        >>> import torch
        >>> euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """
    squared = squared_euclidean(x, y)
    return squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()


def cosine(x: Float[Tensor, "*batch N C"], y: Float[Tensor, "*batch M C"]) -> Float[Tensor, "*batch N M"]:
    """Cosine of the angle between every x and every y, in [-1, 1]; 0 where a vector is zero.

    Example:
        >>> import torch
        >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    # Dividing the products touches fewer numbers than normalising the vectors.
    norms_x = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
    norms_y = torch.linalg.vector_norm(y, dim=-1).unsqueeze(-2).clamp_min(1e-12)
    return x @ y.mT / norms_x / norms_y


def similarity(
    x: Float[Tensor, "*batch N C"], y: Float[Tensor, "*batch M C"], metric: Metric = "squared_euclidean"
) -> Float[Tensor, "*batch N M"]:
    """Large means near: the cosine, or minus a distance.

    Args:
        x: One set of vectors.
        y: The other set.
        metric: One of ``METRICS``.

    Raises:
        FieldmarkError: The metric is not a known one.

    Example:
        >>> import torch
        >>> similarity(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "euclidean")
        tensor([[-5.]])
    """
    if metric == "cosine":
        return cosine(x, y)
    if metric == "euclidean":
        return -euclidean(x, y)
    if metric == "squared_euclidean":
        return -squared_euclidean(x, y)
    raise unknown_name("metric", metric, METRICS)
