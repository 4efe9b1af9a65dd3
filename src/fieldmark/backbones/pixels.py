"""No backbone at all: the pixels themselves, the baseline that every trained model has to beat."""

from __future__ import annotations

from torch.nn import functional as F

from fieldmark.backbones.base import BACKBONES, Backbone, check_count
from fieldmark.shapes import Float, Tensor


@BACKBONES.add("pixels", "the pixels as one vector; no parameters", source="baseline")
class Pixels(Backbone):
    """Flatten the image to one descriptor.

    Args:
        size: Images are resized to this side; the vector has 3 * size * size values.

    Example:
        >>> import torch
        >>> Pixels(size=8)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 192, 1, 1])
    """

    def __init__(self, size: int = 32) -> None:
        super().__init__(3 * check_count("size", size) ** 2, size, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.side = size

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C 1 1"]:
        """The pixels of images as maps ``(B, 3 * size * size, 1, 1)``."""
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return images.flatten(1)[:, :, None, None]
