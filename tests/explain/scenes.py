"""Images, backbones and matchings whose right answer is known beforehand."""

from __future__ import annotations

import numpy as np
from torch.nn import functional as F

from fieldmark.backbones import Backbone, Encoder
from fieldmark.explain import Matching, Nodes, cell_boxes

SIDE = 8


class Patches(Backbone):
    """Each cell of 8 x 8 pixels is described by its pixels and by nothing else."""

    def __init__(self):
        super().__init__(3 * SIDE**2, 32, mean=(0.5,) * 3, std=(0.25,) * 3)

    def forward(self, images):
        maps = F.unfold(images, SIDE, stride=SIDE)
        return maps.view(len(images), -1, images.shape[-2] // SIDE, images.shape[-1] // SIDE)


class Colours(Backbone):
    """The image is its own map: a window's descriptor is its mean colour, in 0 to 1."""

    def __init__(self):
        super().__init__(3, 64, mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(self, images):
        return images


def noise(seed=0, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(side=64):
    """Red is the column, green the row."""
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(side), np.arange(side)[:, None]
    return image


def patches():
    return Encoder(Patches()).eval()


def planted(flow, weights, grid, image, name="query"):
    """A matching with this flow; both images the same."""
    flow = np.asarray(flow, np.float64)
    count = grid[0] * grid[1]
    nodes = Nodes(cell_boxes(grid, image.shape[:2]), np.arange(count).reshape(grid), True)
    cosine = np.full((count, count), 0.5)
    contributions = 12.5 / count * cosine * flow
    facts = {"backbone": "none", "descriptors": "dense", "descriptor_options": {}, "weights": "equal",
             "variant": "code", "temperature": 12.5, "size": list(image.shape[:2]), "fit": "crop"}  # fmt: skip
    return Matching(
        float(contributions.sum()), image, image, flow, cosine, contributions, np.asarray(weights, np.float64),
        flow.sum(0), nodes, nodes, facts, name, "support",
    )  # fmt: skip
