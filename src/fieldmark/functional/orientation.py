"""Oriented pooling: patches of a map, pooled along rows and columns, in both directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


class OrientedScore(NamedTuple):
    """Scores by the best orientation.

    Attributes:
        value: ``(*batch, classes)``.
        orientation: ``(*batch, classes)``: 0 to 3, the one that gave it: rows, columns, both reversed.
    """

    value: Tensor
    orientation: Tensor


def oriented_patches(maps: Float[Tensor, "B C H W"], patch: int = 3, stride: int = 2) -> Float[Tensor, "B N N D"]:
    """Overlapping patches of square maps, each as a vector of its ``D = patch * patch * C`` values.

    Source: SSANET, section 3.3; 3 x 3 patches of 3 x 3 places of a 7 x 7 map.

    Args:
        maps: Square maps.
        patch: Rows and columns of a patch.
        stride: Places between two neighbouring patches.

    Raises:
        FieldmarkError: Maps that are not square, or that the patches do not cover exactly.

    Example:
        >>> oriented_patches(torch.rand(2, 5, 7, 7)).shape
        torch.Size([2, 3, 3, 45])
    """
    rows, columns = maps.shape[-2:]
    if rows != columns:
        raise FieldmarkError(f"maps have {rows} x {columns} places; oriented pooling needs square ones")
    check_patches(rows, patch, stride)
    count = (rows - patch) // stride + 1
    return F.unfold(maps, patch, stride=stride).mT.unflatten(1, (count, count))


def check_patches(side: int, patch: int, stride: int) -> None:
    """Refuse patches that do not cover a map of ``side`` rows and columns exactly.

    Example:
        >>> check_patches(7, 3, 3)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: patches of 3 places every 3 do not fill a map of 7 x 7; expected (7 - 3) to ...
    """
    if patch < 1 or stride < 1 or patch > side or (side - patch) % stride:
        raise FieldmarkError(
            f"patches of {patch} places every {stride} do not fill a map of {side} x {side}; expected ({side} - "
            f"{patch}) to be a multiple of the stride, both at least 1"
        )


def pool_patches(patches: Float[Tensor, "B N N D"]) -> Float[Tensor, "B 4 E"]:
    """The four oriented poolings of patches in a square arrangement, each a vector of ``E = N * D`` values.

    Source: SSANET, eq. 9 to 12. p_i is the elementwise maximum over the patches of row i, q_j over those of column j:
    ``[p_1 .. p_N]``, ``[q_1 .. q_N]``, and both in reversed order. Turning the arrangement by quarter turns, mirroring
    or transposing it only changes the order of the four.

    Example:
        >>> pool_patches(torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]]]))
        tensor([[[2., 4.],
                 [3., 4.],
                 [4., 2.],
                 [4., 3.]]])
    """
    along_rows, along_columns = patches.amax(2), patches.amax(1)
    four = along_rows, along_columns, along_rows.flip(1), along_columns.flip(1)
    return torch.stack(four, dim=1).flatten(2)


def oriented_pool(maps: Float[Tensor, "B C H W"], patch: int = 3, stride: int = 2) -> Float[Tensor, "B 4 E"]:
    """The four oriented poolings of square maps: horizontal, vertical, and both reversed.

    Source: SSANET, eq. 9 to 12; see :func:`oriented_patches` and :func:`pool_patches`.

    Args:
        maps: Square maps.
        patch: Rows and columns of a patch.
        stride: Places between two neighbouring patches.

    Returns:
        Vectors of ``E = N * patch * patch * C`` values, N the patches in a row.

    Example:
        >>> oriented_pool(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), patch=1, stride=1)[0, :2]  # 1 x 1 patches
        tensor([[2., 4.],
                [3., 4.]])
    """
    return pool_patches(oriented_patches(maps, patch, stride))


def oriented_score(pooled: Float[Tensor, "*batch 4 E"], weights: Float[Tensor, "*parts L E"]) -> OrientedScore:
    """Each class's score by its best orientation.

    Source: SSANET, eq. 13: ``max(w.Gh, w.Gv, w.Gh', w.Gv')``.

    Args:
        pooled: From :func:`oriented_pool`.
        weights: w of every class ``(L, E)``, or for every part its own ``(K, L, E)``, with pooled ``(B, K, 4, E)``.

    Example:
        >>> pooled = oriented_pool(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), patch=1, stride=1)
        >>> oriented_score(pooled, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).value
        tensor([[4., 4.]])
    """
    # By parts: a broadcast product would make a gradient of the weights for each image.
    own = weights.dim() > 2
    every = torch.einsum("...kge,kle->...kgl", pooled, weights) if own else pooled @ weights.mT
    return OrientedScore(*every.max(-2))
