"""Class means of support sets, for many episodes at once and with unequal shots."""

from __future__ import annotations

from fieldmark.functional.labels import one_hot
from fieldmark.shapes import Float, Int, Tensor


def class_prototypes(
    support: Float[Tensor, "*batch S C"], labels: Int[Tensor, "*batch S"], way: int
) -> Float[Tensor, "*batch way C"]:
    """Mean support vector of every class.

    Source: ProtoNet (Snell et al. 2017), eq. 1.

    Args:
        support: Support vectors, in any order.
        labels: Their classes, 0 to way - 1. The number of shots may differ between classes and episodes;
            a class without a support vector gets the zero vector.
        way: Number of classes.

    Example:
        >>> import torch
        >>> support = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> class_prototypes(support, torch.tensor([0, 0, 1]), 2)
        tensor([[2., 0.],
                [0., 5.]])
    """
    members = one_hot(labels, way, support.dtype)
    shots = members.sum(-2).clamp_min(1).unsqueeze(-1)
    return members.mT @ support / shots
