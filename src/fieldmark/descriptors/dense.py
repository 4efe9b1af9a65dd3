"""Every place of the map is a descriptor."""

from __future__ import annotations

from fieldmark.descriptors.base import DESCRIPTORS, MapExtractor
from fieldmark.shapes import Float, Tensor


@DESCRIPTORS.add(
    "dense", "every place of the map (FCN); tokens of a ViT too", source="DeepEMD, Zhang et al. 2020, section 4.1"
)
class Dense(MapExtractor):
    """All places of the map of the whole image, row by row: ``N = h * w``.

    Source: DeepEMD (Zhang et al. 2020/2022), "fully convolutional network". The tokens of a vision transformer are
    laid out as a map by its backbone, so they are descriptors like any others.

    Example:
        >>> import torch
        >>> Dense()(lambda images: torch.ones(len(images), 8, 5, 5), torch.zeros(2, 3, 84, 84)).shape
        torch.Size([2, 25, 8])
    """

    def nodes(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N C"]:
        """Descriptors ``(B, h * w, C)`` of maps."""
        return maps.flatten(2).transpose(1, 2)
