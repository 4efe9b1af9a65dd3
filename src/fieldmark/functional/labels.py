"""Class labels of support sets: rows of the identity, counts, and what may not be."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Int, Tensor


def one_hot(
    labels: Int[Tensor, "*batch S"], way: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch S way"]:
    """Rows of the identity matrix chosen by the labels.

    Example:
        >>> import torch
        >>> one_hot(torch.tensor([1, 0]), 3)
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    rows = torch.zeros(*labels.shape, way, dtype=dtype, device=labels.device)
    return rows.scatter_(-1, labels.long().unsqueeze(-1), 1.0)


def class_counts(labels: Int[Tensor, "*batch S"], way: int) -> Int[Tensor, "*batch way"]:
    """How many support vectors each class has.

    Example:
        >>> import torch
        >>> class_counts(torch.tensor([[1, 0, 1]]), 3)
        tensor([[1, 2, 0]])
    """
    labels = labels.long()
    counts = torch.zeros(*labels.shape[:-1], way, dtype=torch.long, device=labels.device)
    return counts.scatter_add_(-1, labels, torch.ones_like(labels))


def check_labels(labels: Int[Tensor, "E S"], way: int) -> None:
    """Refuse support labels that are out of range or leave a class empty.

    Raises:
        FieldmarkError: With what is wrong and what was expected, in one line.

    Example:
        >>> import torch
        >>> check_labels(torch.tensor([[0, 0]]), way=2)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: class 1 of episode 0 has no support image; every class needs at least one
    """
    if way < 1:
        raise FieldmarkError(f"way is {way}; expected at least 1 class")
    if labels.shape[0] == 0:
        return
    if labels.shape[1] == 0:
        raise FieldmarkError("the support set is empty; every class needs at least one image")
    low, high = (int(value) for value in torch.aminmax(labels))
    if low < 0 or high >= way:
        raise FieldmarkError(f"support labels run from {low} to {high}; expected 0 to {way - 1} for way {way}")
    empty = class_counts(labels, way).eq(0).nonzero()
    if empty.numel():
        episode, label = empty[0].tolist()
        raise FieldmarkError(f"class {label} of episode {episode} has no support image; every class needs at least one")
