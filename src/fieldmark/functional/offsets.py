"""Maps sampled beside their places."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch.nn.functional import grid_sample

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Float, Tensor

Padding = Literal["zeros", "border"]


def sample_at_offsets(
    maps: Float[Tensor, "B C h w"], offsets: Float[Tensor, "B 2 h w"], padding: Padding = "zeros"
) -> Float[Tensor, "B C h w"]:
    """The values of maps at every place plus an offset, bilinear between places.

    Source: LSSA (short-range spatial manipulation), eq. 7 and 8, which mix two kinds of coordinates: here the centre of
    the corner places is at -1 and 1, so that an offset of ``2 / (w - 1)`` is one place to the right. Half precision is
    computed, and returned, in float32.

    Args:
        maps: What is sampled.
        offsets: Of x (to the right) and y (down), the whole width or height being 2.
        padding: What lies outside: ``"zeros"``, as eq. 8, or the nearest place of the ``"border"``.

    Raises:
        FieldmarkError: Shapes that do not fit, or an unknown padding.

    Example:
        >>> maps = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
        >>> sample_at_offsets(maps, right), sample_at_offsets(maps, right / 2, "border")
        (tensor([[[[2., 3., 0.]]]]), tensor([[[[1.5000, 2.5000, 3.0000]]]]))
    """
    if padding not in get_args(Padding):
        raise unknown_name("padding", padding, get_args(Padding))
    if offsets.shape != (maps.shape[0], 2, *maps.shape[-2:]):
        raise FieldmarkError(
            f"offsets have shape {tuple(offsets.shape)} for maps {tuple(maps.shape)}; expected (B, 2, h, w)"
        )
    with torch.autocast(maps.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(maps.dtype, offsets.dtype), torch.float32)
        height, width = maps.shape[-2:]
        grid = identity_grid(height, width, offsets.device, dtype) + offsets.to(dtype).permute(0, 2, 3, 1)
        return grid_sample(maps.to(dtype), grid, mode="bilinear", padding_mode=padding, align_corners=True)


def identity_grid(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "h w 2"]:
    """The coordinates (x, y) of every place, the corners at -1 and 1; 0 along a side of one place.

    Example:
        >>> identity_grid(1, 3, torch.device("cpu"), torch.float32)
        tensor([[[-1.,  0.],
                 [ 0.,  0.],
                 [ 1.,  0.]]])
    """
    x, y = (
        torch.linspace(-1, 1, side, device=device, dtype=dtype)
        if side > 1
        else torch.zeros(1, device=device, dtype=dtype)
        for side in (width, height)
    )
    return torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)], dim=-1)
