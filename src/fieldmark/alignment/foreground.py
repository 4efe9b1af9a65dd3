"""Foreground object enhancement: a deformable convolution, and a soft mask of the object."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.functional import grid_sample
from torch.utils.checkpoint import checkpoint

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.foreground import foreground_mask
from fieldmark.shapes import Float, Tensor

Implementation = Literal["auto", "torchvision", "grid_sample"]
_SIDE = 3
_TAPS = _SIDE * _SIDE
_AT_ONCE = 8 * 2**20  # bytes of samples that stay in the processor's cache


class ForegroundEnhancement(nn.Module):
    """Maps in which the object stands out from its background.

    Source: LSSA (FOE), section 3.2, eq. 2 and 3: ``mask * phi(maps)`` with phi a deformable 3x3 convolution with batch
    norm, and ``mask = (cos(mean of phi(maps), phi(maps)) + 1) / 2``. The convolution that gives the offsets starts at
    zero, so phi begins as a plain convolution. The paper says nothing of a ReLU behind phi: with one no cosine is
    negative, and the mask stays between 0.5 and 1.

    Args:
        channels: Of the maps, C.
        features: Apply phi; without it the maps stay as they are.
        mask: Multiply with the mask.
        relu: End phi with a ReLU.
        implementation: Of the deformable convolution: ``"torchvision"``, or ``"grid_sample"``, the same from core
            operators, for export; ``"auto"``: on a processor the latter, some images at a time, which is several times
            faster in training, elsewhere the former.

    Raises:
        FieldmarkError: For channels below 1 or an unknown implementation.

    Example:
        >>> maps = torch.randn(2, 8, 5, 5)
        >>> ForegroundEnhancement(8)(maps).shape
        torch.Size([2, 8, 5, 5])
        >>> ForegroundEnhancement(8).mask(maps).shape
        torch.Size([2, 5, 5])
    """

    def __init__(
        self,
        channels: int,
        features: bool = True,
        mask: bool = True,
        relu: bool = False,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        if channels < 1:
            raise FieldmarkError(f"channels of the foreground enhancement is {channels}; expected at least 1")
        if implementation not in get_args(Implementation):
            raise unknown_name("implementation of the deformable convolution", implementation, get_args(Implementation))
        self.channels, self.with_features, self.with_mask, self.relu = channels, features, mask, relu
        self.implementation = implementation
        if features:
            self.offsets = nn.Conv2d(channels, 2 * _TAPS, _SIDE, padding=1)
            nn.init.zeros_(self.offsets.weight)
            nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]
            self.weight = nn.Parameter(torch.empty(channels, channels, _SIDE, _SIDE))
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="linear")
            self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The enhanced maps."""
        refined = self.refine(maps)
        return refined * _mask(refined).unsqueeze(1) if self.with_mask else refined

    def refine(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The maps after phi, without the mask."""
        if maps.dim() != 4 or maps.shape[1] != self.channels:
            raise FieldmarkError(f"maps have shape {tuple(maps.shape)}; expected (B, {self.channels}, h, w)")
        if not self.with_features:
            return maps
        way: str = self.implementation
        if way == "auto":
            way = "blocks" if maps.device.type == "cpu" else "torchvision"
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.to(self.weight.dtype)
            refined = self.norm(_WAYS[way](maps, self.offsets(maps), self.weight))
        return refined.relu() if self.relu else refined

    def mask(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w"]:
        """The mask of given maps, 0 to 1, whether :meth:`forward` multiplies with it or not."""
        return _mask(self.refine(maps))


def _mask(refined: Tensor) -> Tensor:
    return foreground_mask(refined.flatten(2).mT).unflatten(-1, refined.shape[-2:])


def _by_torchvision(maps: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    from torchvision.ops import deform_conv2d

    return deform_conv2d(maps.contiguous(), offsets.contiguous(), weight, padding=1)


def deformable_convolution(
    maps: Float[Tensor, "B C h w"], offsets: Float[Tensor, "B 18 h w"], weight: Float[Tensor, "O C 3 3"]
) -> Float[Tensor, "B O h w"]:
    """A 3x3 convolution, zeros around, each of whose nine taps looks beside its place by its own offset.

    Source: Dai et al. 2017 (deformable convolutional networks). Equal to ``torchvision.ops.deform_conv2d`` with padding
    1, from core operators.

    Args:
        maps: Input.
        offsets: In places, down then right, for each tap from the upper left to the lower right.
        weight: Of the taps.

    Example:
        >>> maps, weight = torch.rand(1, 2, 4, 4), torch.rand(3, 2, 3, 3)
        >>> plain = nn.functional.conv2d(maps, weight, padding=1)
        >>> torch.allclose(deformable_convolution(maps, torch.zeros(1, 18, 4, 4), weight), plain, atol=1e-5)
        True
    """
    batch, channels, height, width = maps.shape
    down, right = offsets.view(batch, _TAPS, 2, height, width).unbind(2)
    taps = torch.arange(_TAPS, device=maps.device)
    rows, columns = (torch.arange(side, device=maps.device, dtype=maps.dtype) for side in (height, width))
    y = down + (taps // _SIDE - 1).view(-1, 1, 1) + rows.view(-1, 1)
    x = right + (taps % _SIDE - 1).view(-1, 1, 1) + columns
    # Coordinates by the outer edges of the places, at -1 and 1: these exist for a side of one place too.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2).to(maps.dtype)
    seen = grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (weight.flatten(1) @ seen.reshape(batch, channels * _TAPS, height * width)).view(batch, -1, height, width)


def _by_blocks(maps: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """The same some images at a time; the backward pass samples again, so that the samples are not kept."""
    size = max(1, _AT_ONCE // max(1, maps[:1].numel() * _TAPS * maps.element_size()))
    parts = [
        checkpoint(deformable_convolution, some, theirs, weight, use_reentrant=False, preserve_rng_state=False)
        for some, theirs in zip(maps.split(size), offsets.split(size), strict=True)
    ]
    return torch.cat(parts)


_WAYS = {"torchvision": _by_torchvision, "grid_sample": deformable_convolution, "blocks": _by_blocks}
