"""Boxes are where the descriptors come from."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from fieldmark import descriptors, explain
from fieldmark.backbones import Encoder
from fieldmark.descriptors import Extractor
from fieldmark.errors import FieldmarkError

_spec = importlib.util.spec_from_file_location("explain_scenes_of_boxes", Path(__file__).with_name("scenes.py"))
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


@pytest.mark.parametrize(("grid", "size"), [((5, 5), (84, 84)), ((7, 3), (224, 100)), ((1, 1), (32, 32))])
def test_cells_cover_the_image_exactly(grid, size):
    boxes = explain.cell_boxes(grid, size)
    points = np.random.default_rng(0).random((2000, 2)) * size[::-1]
    inside = (points[:, None] >= boxes[:, :2]) & (points[:, None] < boxes[:, 2:])
    assert (inside.all(-1).sum(1) == 1).all()
    assert boxes[:, :2].min() == 0
    assert boxes[:, 2].max() == size[1]
    assert boxes[:, 3].max() == size[0]
    assert len(boxes) == grid[0] * grid[1]


@pytest.mark.parametrize("grid", [(5, 5), (7, 4)])
def test_bins_of_a_pyramid_are_those_of_the_pooling(grid):
    """The mean place of the cells that the pooling averages is the centre of the box."""
    levels, size = (3, 2, 1), (84, 120)
    y = (torch.arange(grid[0]) + 0.5) * size[0] / grid[0]
    x = (torch.arange(grid[1]) + 0.5) * size[1] / grid[1]
    places = torch.stack([x.expand(grid), y[:, None].expand(grid)]).double()
    pooled = [adaptive_avg_pool2d(places, level).flatten(1) for level in levels]
    expected = torch.cat([*pooled, places.flatten(1)], dim=1).T.numpy()
    boxes = explain.pyramid_boxes(levels, grid, size)
    assert np.allclose((boxes[:, :2] + boxes[:, 2:]) / 2, expected)


@pytest.mark.parametrize(
    ("name", "options", "cells"),
    [("grid", {"sizes": [3, 2]}, (3, 3)), ("grid", {"sizes": [2, 4]}, (4, 4)), ("sampling", {"patches": 7}, (3, 3))],
)
def test_windows_are_where_their_colours_come_from(name, options, cells):
    """On a ramp of colours the mean colour of a window is its centre."""
    image = scenes.ramp()
    extractor = descriptors.create(name, **options).eval()
    batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    colours = extractor(Encoder(scenes.Colours()), batch, torch.Generator().manual_seed(3))[0]
    nodes = explain.place_nodes(extractor, len(colours), (64, 64), (64, 64), seed=3)
    centres = (nodes.boxes[:, :2] + nodes.boxes[:, 2:] - 1) / 2
    assert np.allclose(colours[:, :2].numpy() * 255, centres, atol=0.6)
    assert nodes.cells.shape == cells
    assert nodes.tiled == (name == "grid")


def test_the_finest_level_is_drawn():
    pyramid = descriptors.create("feature_pyramid", levels=(2, 1))
    assert explain.place_nodes(pyramid, 14, (12, 12), (3, 3)).cells.ravel().tolist() == list(range(5, 14))
    grids = descriptors.create("grid", sizes=(2, 3)).eval()
    assert explain.place_nodes(grids, 13, (12, 12), (3, 3)).cells.ravel().tolist() == list(range(4, 13))


class Corners(Extractor):
    """An extractor that is not ours: the four corners of the map."""

    from_maps = False

    def forward(self, encode, images, generator=None):
        return encode(images)[:, :, ::3, ::3].flatten(2).mT


class KnownCorners(Corners):
    def boxes(self, image_size, map_size):
        return explain.cell_boxes(map_size, image_size).reshape(*map_size, 4)[::3, ::3].reshape(-1, 4)


def test_extractors_of_others_tell_their_boxes_or_are_refused():
    image = scenes.noise()
    found = explain.match(scenes.patches(), image, image, size=32, descriptors=KnownCorners(), weights="equal")
    assert found.query_boxes.tolist() == [[0, 0, 8, 8], [24, 0, 32, 8], [0, 24, 8, 32], [24, 24, 32, 32]]
    with pytest.raises(FieldmarkError, match=r"does not say where .* boxes\(image_size, map_size\)"):
        explain.match(scenes.patches(), image, image, size=32, descriptors=Corners())


def test_a_wrong_number_of_boxes_is_refused():
    with pytest.raises(FieldmarkError, match="gave 3 descriptors and 4 boxes"):
        explain.place_nodes(KnownCorners(), 3, (32, 32), (4, 4))
