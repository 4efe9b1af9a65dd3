"""Linear classifiers of many episodes at once."""

from __future__ import annotations

from fieldmark.functional.distances import cosine
from fieldmark.shapes import Float, Tensor


def cosine_linear(
    features: Float[Tensor, "*batch N C"],
    weight: Float[Tensor, "*batch way C"],
    scale: float | Float[Tensor, "*batch 1 1"] = 1.0,
) -> Float[Tensor, "*batch N way"]:
    """Scaled cosine of every feature vector to every class weight.

    Source: cosine classifier (Gidaris & Komodakis 2018; Chen et al. 2019, Baseline++).

    Args:
        features: Vectors to classify.
        weight: One vector a class.
        scale: Factor on the cosines, one number or one an episode.

    Example:
        >>> import torch
        >>> cosine_linear(torch.tensor([[0.0, 2.0]]), torch.eye(2), scale=10.0)
        tensor([[ 0., 10.]])
    """
    return cosine(features, weight) * scale
