"""Conv-4: four blocks of convolution, batch norm, ReLU, max pool."""

from __future__ import annotations

import torch
from torch import nn

from fieldmark.backbones.base import BACKBONES, Backbone, check_count
from fieldmark.shapes import Float, Tensor

_SOURCE = "Vinyals et al. 2016, Matching Networks; Snell et al. 2017, Prototypical Networks"


@BACKBONES.add("conv4", "four 3x3 convolution blocks", source=_SOURCE)
class Conv4(Backbone):
    """The small backbone of few-shot papers, with the key names of SCL's and RFS's ``convnet4``.

    Args:
        channels: Channels of every block.
        last_pool: Whether the fourth block pools as well. With it 84 pixels give a 5x5 map and 32 give 2x2; without
            it (SCL, LSSA) they give 10x10 and 4x4.

    Example:
        >>> Conv4(last_pool=False)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(self, channels: int = 64, last_pool: bool = True) -> None:
        super().__init__(check_count("channels", channels), 84, facts={"source": _SOURCE})
        self.layer1 = _block(3, channels, pool=True)
        self.layer2 = _block(channels, channels, pool=True)
        self.layer3 = _block(channels, channels, pool=True)
        self.layer4 = _block(channels, channels, pool=last_pool)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Maps of normalised images; all values are at least 0."""
        # Training at 32 pixels is a third faster in this memory layout; the values are the same.
        x = images.contiguous(memory_format=torch.channels_last)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _block(inputs: int, outputs: int, *, pool: bool) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    layers = [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)
