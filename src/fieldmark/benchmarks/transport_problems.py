"""Transport problems as DeepEMD makes them: from rectified noise, and from features of images."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from fieldmark import data
from fieldmark.backbones import Backbone, Encoder, create
from fieldmark.data import draw_episodes
from fieldmark.descriptors.dense import Dense
from fieldmark.descriptors.feature_pyramid import FeaturePyramid
from fieldmark.functional.emd_similarity import directions, pair_cosines
from fieldmark.functional.weights import cross_reference_weights, normalise_weights
from fieldmark.shapes import Float, Tensor

#: For each number of nodes the side of the map and the pooled levels before it.
MAPS: dict[int, tuple[int, tuple[int, ...]]] = {
    9: (3, ()), 13: (3, (2,)), 16: (4, ()), 25: (5, ()), 38: (5, (3, 2)),
    49: (7, ()), 100: (10, ()), 196: (14, ()), 256: (16, ()),
}  # fmt: skip
WAY, CHANNELS, STRIDE = 5, 640, 32


class Problems(NamedTuple):
    """A batch in float64, with equal totals."""

    cost: Float[Tensor, "B n n"]
    supply: Float[Tensor, "B n"]
    demand: Float[Tensor, "B n"]


class Noise:
    """Rectified Gaussian maps with 640 channels: easy problems, few pivots."""

    images = "random"

    def maps(self, side: int, queries: int) -> tuple[Tensor, Tensor]:
        """Maps (queries, C, side, side) and (5, C, side, side)."""
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(queries + WAY, CHANNELS, side, side, generator=generator).relu()
        return maps[WAY:], maps[:WAY]


class Pictures:
    """Maps of the images of an episode by EfficientNet-Lite0 at the size whose map has the wanted side.

    Args:
        name: Data set; its test split is taken.
        root: Where its files are; None for one that needs none.
    """

    def __init__(self, name: str, root: str | None) -> None:
        self.images, self._root = name, root

    @cached_property
    def store(self) -> data.ImageStore:
        """The images of the classes to recognise."""
        return data.load(self.images, self._root, "test")

    @cached_property
    def _backbone(self) -> Backbone:
        return create("efficientnet_lite0")

    @torch.inference_mode()
    def encode(self, numbers: np.ndarray, side: int) -> Tensor:
        """Maps (B, 1280, side, side) of images of the store."""
        encoder = Encoder(self._backbone, size=STRIDE * side).eval()
        return torch.cat([encoder(part) for part in self.store.gather(numbers).split(8)])

    def maps(self, side: int, queries: int) -> tuple[Tensor, Tensor]:
        """Maps (queries, C, side, side) and (5, C, side, side)."""
        index = draw_episodes(self.store.labels, WAY, 1, -(-queries // WAY), 1, seed=0)
        maps = self.encode(np.concatenate([index.support[0], index.query[0][:queries]]), side)
        return maps[WAY:], maps[:WAY]


def make_problems(source: Noise | Pictures, nodes: int, count: int) -> Problems:
    """All pairs of 5 support images and ``count / 5`` queries, with the official code's costs and weights.

    Args:
        source: Where the maps come from.
        nodes: One of :data:`MAPS`.
        count: How many pairs, a multiple of 5.

    Example:
        >>> found = make_problems(Noise(), nodes=13, count=10)
        >>> found.cost.shape, bool((found.supply.sum(-1) - 13).abs().max() < 1e-9)
        (torch.Size([10, 13, 13]), True)
    """
    side, levels = MAPS[nodes]
    extractor = FeaturePyramid(levels) if levels else Dense()
    query, support = (extractor.nodes(maps).double() for maps in source.maps(side, count // WAY))
    weights = cross_reference_weights(query, support)
    cost = 1 - pair_cosines(directions(query, centre=True), directions(support, centre=True))
    sides = (normalise_weights(one, nodes).flatten(0, 1).contiguous() for one in weights)
    return Problems(cost.flatten(0, 1).contiguous(), *sides)


def single_precision(problems: Problems) -> Problems:
    """The same in float32.

    Example:
        >>> single_precision(make_problems(Noise(), nodes=9, count=5)).cost.dtype
        torch.float32
    """
    return Problems(problems.cost.float(), problems.supply.float(), problems.demand.float())
