"""Bring feature vectors to one centre and one length."""

from __future__ import annotations

from torch.nn.functional import normalize

from fieldmark.shapes import Float, Tensor


def l2_normalise(features: Float[Tensor, "*shape C"]) -> Float[Tensor, "*shape C"]:
    """Scale every vector to unit Euclidean length; a zero vector stays zero.

    Example:
        >>> import torch
        >>> l2_normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return normalize(features, dim=-1)


def centre_l2(features: Float[Tensor, "*shape C"], centre: Float[Tensor, " C"]) -> Float[Tensor, "*shape C"]:
    """Subtract the mean feature of the base classes, then scale to unit length.

    Source: SimpleShot (Wang et al. 2019), the transformation named CL2N there.

    Args:
        features: Vectors in any arrangement.
        centre: The mean feature vector of the base classes.

    Example:
        >>> import torch
        >>> centre_l2(torch.tensor([[4.0, 5.0]]), torch.tensor([1.0, 1.0]))
        tensor([[0.6000, 0.8000]])
    """
    return normalize(features - centre, dim=-1)
