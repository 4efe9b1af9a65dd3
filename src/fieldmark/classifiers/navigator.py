"""The navigator: scores for boxes all over the image, from the backbone's map."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.functional.boxes import RATIOS, SCALES, make_anchors
from fieldmark.shapes import Float, Tensor


class Navigator(nn.Module):
    """Three 3 x 3 convolutions on top of each other, each with a 1 x 1 one that scores the boxes of its level.

    Source: NTS-Net (Yang et al. 2018), section 3.2; SSANET's sub-network for proposals. The second and the third
    convolution halve the map, so that every level has the stride of its anchors
    (:func:`fieldmark.functional.make_anchors`). No gradient flows into the map: the navigator learns to follow what the
    features say, and does not change them.

    Args:
        channels: Channels of the backbone's maps.
        width: Channels inside.

    Example:
        >>> Navigator(8)(torch.zeros(2, 8, 14, 14)).shape
        torch.Size([2, 1614])
    """

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        levels = len(SCALES)
        self.levels = nn.ModuleList(
            nn.Conv2d(width if level else channels, width, 3, stride=2 if level else 1, padding=1)
            for level in range(levels)
        )
        self.scores = nn.ModuleList(nn.Conv2d(width, len(scales) * len(RATIOS), 1) for scales in SCALES)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B A"]:
        """A score for every anchor, in the order of the anchors."""
        maps, found = maps.detach(), []
        for level, score in zip(self.levels, self.scores, strict=True):
            maps = F.relu(level(maps))
            found.append(score(maps).flatten(1))
        return torch.cat(found, dim=1)


@lru_cache(maxsize=32)
def anchors_of(image: tuple[int, int], grid: tuple[int, int], size: float) -> Float[Tensor, "A 4"]:
    """The anchors of an image, made once for each of the last sizes; not to be written to.

    Example:
        >>> len(anchors_of((224, 224), (7, 7), 1.5))
        426
    """
    return make_anchors(image, grid, size)
