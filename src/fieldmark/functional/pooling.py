"""Feature maps to vectors that keep some of the layout."""

from __future__ import annotations

from torch.nn.functional import adaptive_max_pool2d, normalize

from fieldmark.shapes import Float, Tensor


def spatial_features(maps: Float[Tensor, "B C H W"], size: int = 2) -> Float[Tensor, "B d"]:
    """Largest activation in each cell of a coarse grid, flattened and scaled to unit length.

    Source: SCL (Ouali et al. 2021), the spatial features of its evaluation (size 2).

    Args:
        maps: Feature maps.
        size: Cells a side; d is C * size * size.

    Example:
        >>> import torch
        >>> spatial_features(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]))
        tensor([[0.6000, 0.0000, 0.0000, 0.8000]])
    """
    return normalize(adaptive_max_pool2d(maps, size).flatten(1), dim=-1)
