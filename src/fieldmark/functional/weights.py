"""Weights of the nodes of two sets of local descriptors that are to be matched."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from fieldmark.shapes import Bool, Float, Tensor

Variant = Literal["code", "paper"]

#: Added to every cross-reference weight by the official code, so that no set is without weight.
CODE_OFFSET = 1e-3


class Weights(NamedTuple):
    """Weights of both sides of every pair of a query and a support set.

    Attributes:
        query: ``(*batch, Q, S, N)``.
        support: ``(*batch, Q, S, M)``.
    """

    query: Float[Tensor, "*batch Q S N"]
    support: Float[Tensor, "*batch Q S M"]


def cross_reference_weights(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    variant: Variant = "code",
    *,
    real: Bool[Tensor, "*batch S M"] | None = None,
) -> Weights:
    """Product of each descriptor with the mean descriptor of the other set, negative ones cut at 0; not normalised.

    Source: DeepEMD (Zhang et al. 2020), eq. 11: what both images show gets weight. The official code adds 1e-3.
    (It adds another 1e-5 before its OpenCV solver, not before its other one; on the recorded features that moves the
    logits by at most 3e-6, and is left out here.)

    Args:
        query: N descriptors of each query, not centred.
        support: M descriptors of each support set.
        variant: ``"code"`` adds 1e-3; ``"paper"`` does not, and every weight of a side may then be 0.
        real: Which support descriptors exist; the others are padding, do not enter the mean and get weight 0.

    Returns:
        Weights from 0 up, of each side of every pair.

    Example:
        >>> query = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
        >>> support = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]])
        >>> cross_reference_weights(query, support, "paper")
        Weights(query=tensor([[[2., 0.]]]), support=tensor([[[0., 0.]]]))
    """
    return relevance(query, support, query.mean(-2), mean_descriptor(support, real), variant, real)


def relevance(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    query_mean: Float[Tensor, "*batch Q C"],
    support_mean: Float[Tensor, "*batch S C"],
    variant: Variant = "code",
    real: Bool[Tensor, "*batch S M"] | None = None,
) -> Weights:
    """:func:`cross_reference_weights` where the mean descriptors are known already.

    Example:
        >>> sets = torch.rand(3, 2, 8)
        >>> relevance(sets, sets, sets.mean(-2), sets.mean(-2)).query.shape
        torch.Size([3, 3, 2])
    """
    query_weights = _products(query, support_mean).movedim(-1, -2)
    support_weights = _products(support, query_mean).movedim(-1, -3)
    if variant == "code":
        query_weights, support_weights = query_weights + CODE_OFFSET, support_weights + CODE_OFFSET
    if real is not None:
        support_weights = support_weights * real.unsqueeze(-3)
    return Weights(query_weights, support_weights)


def equal_weights(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    *,
    real: Bool[Tensor, "*batch S M"] | None = None,
) -> Weights:
    """The same weight, 1, for every descriptor (0 for padding).

    Source: "Equal" in DeepEMD's Table 2.

    Args:
        query: N descriptors of each query.
        support: M descriptors of each support set.
        real: Which support descriptors exist.

    Example:
        >>> equal_weights(torch.randn(4, 2, 8), torch.randn(5, 3, 8)).support.shape
        torch.Size([4, 5, 3])
    """
    pairs = (*query.shape[:-2], support.shape[-3])
    ones = query.new_ones(*pairs, query.shape[-2]), query.new_ones(*pairs, support.shape[-2])
    return Weights(ones[0], ones[1] if real is None else ones[1] * real.unsqueeze(-3))


def normalise_weights(
    weights: Float[Tensor, "*shape N"], total: int | float, *, real: Bool[Tensor, "*#shape N"] | None = None
) -> Float[Tensor, "*shape N"]:
    """Scale the weights of every set to one total.

    Source: DeepEMD, eq. 12. Where all weights of a set are 0 (the paper has no offset), its nodes weigh the same.

    Args:
        weights: 0 or more.
        total: What they shall sum to.
        real: Which nodes exist; counts only where all weights are 0.

    Example:
        >>> normalise_weights(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), 2)
        tensor([[0.5000, 1.5000],
                [1.0000, 1.0000]])
    """
    sums = weights.sum(-1, keepdim=True)
    nothing = sums <= 0
    alike = torch.ones_like(weights) if real is None else real.to(weights).expand_as(weights)
    # Exactly 0 in the dead branch of where, so that no NaN enters the gradient.
    scale = total / torch.where(nothing, 1, sums)
    return torch.where(nothing, alike * (total / alike.sum(-1, keepdim=True)), weights * scale)


def mean_descriptor(
    sets: Float[Tensor, "*batch S M C"], real: Bool[Tensor, "*batch S M"] | None = None
) -> Float[Tensor, "*batch S C"]:
    """Mean of the descriptors of each set that are not padding.

    Example:
        >>> mean_descriptor(torch.tensor([[[2.0], [7.0]]]), torch.tensor([[True, False]]))
        tensor([[2.]])
    """
    if real is None:
        return sets.mean(-2)
    counts = real.to(sets)
    return (counts.unsqueeze(-2) @ sets).squeeze(-2) / counts.sum(-1, keepdim=True)


def _products(sets: Tensor, means: Tensor) -> Tensor:
    """(*batch, A, N, C), (*batch, B, C) -> (*batch, A, N, B): products, cut at 0, in one matrix product."""
    return (sets.flatten(-3, -2) @ means.mT).relu().unflatten(-2, sets.shape[-3:-1])
