"""Class scores of parts: aligned scales (DSM) and its ablations, pyramids, oriented pooling (OP)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.functional.orientation import OrientedScore, check_patches, oriented_pool, oriented_score
from fieldmark.functional.scales import Method, aligned_scale, circular_scale_response
from fieldmark.shapes import Float, Tensor


class PartWeights(nn.Module):
    """Weights of K parts for L classes, without bias, drawn as those of a linear layer."""

    weight: nn.Parameter

    def __init__(self, parts: int, classes: int, *shape: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(math.prod(shape))
        self.weight = nn.Parameter(torch.empty(parts, classes, *shape).uniform_(-bound, bound))

    def forward(self, vectors: Float[Tensor, "B K D"]) -> Float[Tensor, "B K L"]:
        """Scores of vectors ``(B, K, D)`` for weights of that shape."""
        return torch.einsum("bkd,kld->bkl", vectors, self.weight)


class ScaleMining(PartWeights):
    """Scores of parts from their candidates at several scales.

    Source: SSANET, section 3.2 (DSM), and DSM(fixed) and DSM(1) of Table 5. Features are divided by the root of the
    number of scales that are added up (and of the places of a flattened map): the scores can express the same, and the
    steps of training do not grow with the length of the features.

    Args:
        mode: ``"full"``: the largest response over circular shifts; ``"fixed"``: no shift; ``"max"``: one filter, the
            best candidate.
        flatten: Whether the feature of a candidate is its flattened map (paper), or the mean over its places.
        parts: K.
        classes: L.
        scales: S.
        channels: C.
        places: Places of a part's map.
        method: Of the response.
    """

    def __init__(
        self,
        mode: Literal["full", "fixed", "max"],
        flatten: bool,
        parts: int,
        classes: int,
        scales: int,
        channels: int,
        places: int,
        method: Method = "auto",
    ) -> None:
        super().__init__(parts, classes, 1 if mode == "max" else scales, channels * places if flatten else channels)
        self.mode, self.flatten, self.scales, self.method = mode, flatten, scales, method
        self.divisor = math.sqrt((places if flatten else 1) * (1 if mode == "max" else scales))

    def features_of(self, maps: Float[Tensor, "B K S C h w"]) -> Float[Tensor, "B K S D"]:
        """The candidates' features."""
        return (maps.flatten(3) if self.flatten else maps.mean((-2, -1))) / self.divisor

    def respond(self, maps: Float[Tensor, "B K S C h w"]) -> tuple[Float[Tensor, "B K L"], Tensor]:
        """Scores, and the number (0 to S - 1) of the candidate of each part that each class chooses."""
        features = self.features_of(maps)
        if self.mode == "full":
            value, shift = circular_scale_response(features, self.weight.transpose(0, 1), self.method)
            return value, aligned_scale(shift, self.scales)
        if self.mode == "max":
            value, winner = torch.einsum("bksd,kld->bksl", features, self.weight[:, :, 0]).max(2)
            return value, winner
        value = torch.einsum("bksd,klsd->bkl", features, self.weight)
        return value, torch.full_like(value, self.scales // 2, dtype=torch.long)


class SpatialPyramid(PartWeights):
    """Scores of parts from their maps pooled to several grids.

    Source: He et al. 2014 (SPP-net), maxima in 1 x 1, 2 x 2, 3 x 3 and 6 x 6 bins; a row of SSANET's Table 5.

    Example:
        >>> SpatialPyramid(parts=2, classes=5, channels=3)(torch.rand(4, 2, 3, 7, 7)).shape
        torch.Size([4, 2, 5])
    """

    BINS = (1, 2, 3, 6)

    def __init__(self, parts: int, classes: int, channels: int) -> None:
        super().__init__(parts, classes, channels * sum(bins * bins for bins in self.BINS))
        self.divisor = math.sqrt(sum(bins * bins for bins in self.BINS))

    def forward(self, maps: Float[Tensor, "B K C h w"]) -> Float[Tensor, "B K L"]:
        """Scores of the parts' maps."""
        flat = maps.flatten(0, 1)
        pooled = torch.cat([F.adaptive_max_pool2d(flat, bins).flatten(1) for bins in self.BINS], dim=1)
        return super().forward(pooled.unflatten(0, maps.shape[:2]) / self.divisor)


class FeaturePyramid(nn.Module):
    """Scores of parts from a pyramid of maps with a way back down.

    Source: Lin et al. 2017 (FPN), a row of SSANET's Table 5: 1 x 1 lateral convolutions to 256 channels, the coarser
    level added to the finer one (nearest), a 3 x 3 convolution on each sum. An encoder hands over its last map alone,
    so the coarser levels are made from the part's map by 3 x 3 convolutions of stride 2 instead of lying below it. The
    means of the three levels are put side by side.

    Example:
        >>> FeaturePyramid(parts=2, classes=5, channels=3)(torch.rand(4, 2, 3, 7, 7)).shape
        torch.Size([4, 2, 5])
    """

    LEVELS, WIDTH = 3, 256

    def __init__(self, parts: int, classes: int, channels: int) -> None:
        super().__init__()
        width = self.WIDTH
        inputs = [channels] + (self.LEVELS - 1) * [width]
        self.down = nn.ModuleList(nn.Conv2d(one, width, 3, stride=2, padding=1) for one in inputs[:-1])
        self.lateral = nn.ModuleList(nn.Conv2d(one, width, 1) for one in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)
        self.scores = PartWeights(parts, classes, self.LEVELS * width)

    def forward(self, maps: Float[Tensor, "B K C h w"]) -> Float[Tensor, "B K L"]:
        """Scores of the parts' maps."""
        levels = [maps.flatten(0, 1)]
        for down in self.down:
            levels.append(F.relu(down(levels[-1])))
        above, pooled = None, []
        for level, lateral, smooth in list(zip(levels, self.lateral, self.smooth, strict=True))[::-1]:
            here = lateral(level)
            above = here if above is None else here + F.interpolate(above, here.shape[-2:], mode="nearest")
            pooled.append(smooth(above).mean((-2, -1)))
        return self.scores(torch.cat(pooled, dim=1).unflatten(0, maps.shape[:2]))


class OrientedPooling(PartWeights):
    """Scores of parts by oriented pooling of their maps, the best of four orientations for each class.

    Source: SSANET, section 3.3, eq. 9 to 13. Features are divided by the root of the places they hold.

    Args:
        parts: 1: one set of weights for all parts; K: each part has its own.
        classes: L.
        channels: C.
        side: Rows and columns of a part's map.
        patch: Rows and columns of a patch.
        stride: Places between neighbouring patches.

    Example:
        >>> OrientedPooling(1, classes=5, channels=3, side=7)(torch.rand(4, 2, 3, 7, 7)).value.shape
        torch.Size([4, 2, 5])
    """

    def __init__(self, parts: int, classes: int, channels: int, side: int, patch: int = 3, stride: int = 2) -> None:
        check_patches(side, patch, stride)
        places = ((side - patch) // stride + 1) * patch * patch
        super().__init__(parts, classes, places * channels)
        self.patch, self.stride, self.divisor = patch, stride, math.sqrt(places)

    def forward(self, maps: Float[Tensor, "B K C h w"]) -> OrientedScore:  # type: ignore[override]
        """Scores of the parts' maps and their orientations, both ``(B, K, L)``."""
        pooled = oriented_pool(maps.flatten(0, 1), self.patch, self.stride).unflatten(0, maps.shape[:2])
        weight = self.weight[0] if len(self.weight) == 1 else self.weight
        return oriented_score(pooled / self.divisor, weight)
