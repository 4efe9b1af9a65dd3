"""Fuse the predictions of local descriptors."""

from __future__ import annotations

import math

import torch

from fieldmark.functional.linear import cosine_linear
from fieldmark.shapes import Float, Tensor


def fused_log_probability(
    query: Float[Tensor, "*batch Q N C"], prototypes: Float[Tensor, "*batch way C"], scale: float = 10.0
) -> Float[Tensor, "*batch Q way"]:
    """Log of the mean, over an image's locations, of the class probabilities that each location gives.

    Source: dense classification (Lifchitz et al. 2019): every location is classified by the softmax of scaled cosines
    to pooled class prototypes. The softmax of what is returned is the fused probability.

    Args:
        query: N local descriptors of each query image.
        prototypes: One vector a class.
        scale: Factor on the cosines before the softmax.

    Example:
        >>> import torch
        >>> query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> fused_log_probability(query, torch.eye(2)).exp()
        tensor([[0.5000, 0.5000]])
    """
    logits = cosine_linear(query.flatten(-3, -2), prototypes, scale).unflatten(-2, query.shape[-3:-1])
    return torch.log_softmax(logits, -1).logsumexp(-2) - math.log(query.shape[-2])
