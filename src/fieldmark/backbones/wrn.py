"""Wide residual network 28-10."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.backbones.base import BACKBONES, Backbone, check_count, check_rate
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor

_SOURCE = "Zagoruyko and Komodakis 2016, Wide Residual Networks; few-shot use: Mangla et al. 2020, S2M2"


class WideBlock(nn.Module):
    """Batch norm, ReLU, convolution, twice, beside a shortcut (pre-activation)."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, maps: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        """The next map."""
        x = F.relu(self.bn1(maps), inplace=True)
        # A shortcut that changes the shape starts after the activation, as in the paper's code.
        aside = maps if self.shortcut is None else self.shortcut(x)
        return aside + self.conv2(self.drop(F.relu(self.bn2(self.conv1(x)), inplace=True)))


class WideResNet(Backbone):
    """Wide residual network; the map has a quarter of the image's side (84: 21x21, 32: 8x8).

    Args:
        depth: Convolutions in all; 6 k + 4.
        widen: Factor on the widths 16, 32, 64.
        drop_rate: Dropout between the two convolutions of a block, in [0, 1).

    Example:
        >>> WideResNet(10, 1)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(self, depth: int = 28, widen: int = 10, drop_rate: float = 0.0) -> None:
        super().__init__(64 * check_count("widen", widen), 84, facts={"source": _SOURCE})
        check_rate("drop_rate", drop_rate)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise FieldmarkError(f"depth is {depth}; expected 6 k + 4, for example 10, 16, 22 or 28")
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        layers, inputs = [], 16
        for base, stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(blocks):
                layers.append(WideBlock(inputs, base * widen, stride if index == 0 else 1, drop_rate))
                inputs = base * widen
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Maps of normalised images; all values are at least 0."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        return F.relu(self.norm(self.blocks(x)), inplace=True)


@BACKBONES.add("wrn-28-10", "wide residual network, 28 layers, 10 times as wide", source=_SOURCE)
def wrn_28_10(drop_rate: float = 0.0) -> WideResNet:
    """WRN-28-10; options as in :class:`WideResNet`."""
    return WideResNet(28, 10, drop_rate)
