"""Where each node lies in the image: cells of the map, bins of a pyramid, crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fieldmark.descriptors import CropExtractor, Dense, Extractor, FeaturePyramid, Grid
from fieldmark.errors import FieldmarkError


@dataclass(frozen=True)
class Nodes:
    """The places of an image's nodes.

    Attributes:
        boxes: ``(N, 4)`` left, top, right, bottom of each node, in pixels of the image.
        cells: ``(h, w)`` numbers of the nodes that are drawn as a grid: the finest level; -1 where there is none.
        tiled: Whether these cells lie side by side in the image; crops drawn at random do not.
    """

    boxes: np.ndarray
    cells: np.ndarray
    tiled: bool


def cell_boxes(grid: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Boxes ``(h * w, 4)`` of the cells of a map, row by row; they cover the image exactly and do not overlap.

    A node of a convolutional map has seen more than its cell (its receptive field); the cell is where that is centred.

    Args:
        grid: Rows and columns.
        image_size: (height, width) in pixels.

    Example:
        >>> cell_boxes((1, 2), (10, 20))
        array([[ 0.,  0., 10., 10.],
               [10.,  0., 20., 10.]])
    """
    (rows, columns), (height, width) = grid, image_size
    row, column = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    x, y = width / columns, height / rows
    return np.stack([column * x, row * y, (column + 1) * x, (row + 1) * y], axis=1).astype(np.float64)


def pyramid_boxes(levels: Sequence[int], grid: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Boxes of a feature pyramid: for each level its bins, then the cells of the map itself.

    The bins are those of adaptive average pooling: they may share a row or column of cells where the map does not
    divide.

    Args:
        levels: Bins a side of each pooled level, in the order of the nodes.
        grid: Rows and columns of the native map.
        image_size: (height, width) in pixels.

    Returns:
        Boxes ``(sum of levels squared + h * w, 4)``.

    Example:
        >>> pyramid_boxes([1], (1, 2), (10, 20))
        array([[ 0.,  0., 20., 10.],
               [ 0.,  0., 10., 10.],
               [10.,  0., 20., 10.]])
    """
    (rows, columns), (height, width) = grid, image_size
    boxes = []
    for level in levels:
        for row in range(level):
            top, bottom = row * rows // level, -(-(row + 1) * rows // level)
            for column in range(level):
                left, right = column * columns // level, -(-(column + 1) * columns // level)
                boxes.append((left / columns * width, top / rows * height,
                              right / columns * width, bottom / rows * height))  # fmt: skip
    return np.concatenate([np.array(boxes, np.float64).reshape(-1, 4), cell_boxes(grid, image_size)])


def place_nodes(
    extractor: Extractor, count: int, image_size: tuple[int, int], map_size: tuple[int, int], seed: int = 0
) -> Nodes:
    """Where the nodes of an extractor lie.

    Args:
        extractor: Dense, a feature pyramid, one that cuts windows, or any other with a method
            ``boxes(image_size, map_size)`` that gives ``(N, 4)``.
        count: Nodes an image, N.
        image_size: (height, width) of the image, in pixels.
        map_size: (height, width) of the map that the backbone gave.
        seed: Seed of the generator that windows were drawn from.

    Raises:
        FieldmarkError: If the extractor does not say where its nodes lie, or names another number of boxes.

    Example:
        >>> from fieldmark import descriptors
        >>> place_nodes(descriptors.create("dense"), 4, (8, 8), (2, 2)).cells
        array([[0, 1],
               [2, 3]])
    """
    if isinstance(extractor, Dense | FeaturePyramid):
        levels = extractor.levels if isinstance(extractor, FeaturePyramid) else ()
        places = map_size[0] * map_size[1]
        nodes = Nodes(
            pyramid_boxes(levels, map_size, image_size), count - places + np.arange(places).reshape(map_size), True
        )
    elif isinstance(extractor, CropExtractor):
        nodes = Nodes(_window_boxes(extractor, image_size, seed), *_grid_cells(extractor, count))
    elif callable(own := getattr(extractor, "boxes", None)):
        boxes = np.asarray(own(image_size, map_size), dtype=np.float64).reshape(-1, 4)
        nodes = Nodes(boxes, *_grid_cells(extractor, count))
    else:
        raise FieldmarkError(
            f"extractor {extractor.name!r} does not say where in the image its descriptors lie, so they cannot be "
            "drawn; give it a method boxes(image_size, map_size), or use dense, feature_pyramid, grid or sampling"
        )
    if len(nodes.boxes) != count:
        raise FieldmarkError(
            f"extractor {extractor.name!r} gave {count} descriptors and {len(nodes.boxes)} boxes; expected as many"
        )
    return nodes


def _window_boxes(extractor: CropExtractor, image_size: tuple[int, int], seed: int) -> np.ndarray:
    """The windows that the extractor cuts from one image with this seed."""
    place = extractor.windows(1, *image_size, torch.Generator().manual_seed(seed))
    sides = (place.left, place.top, place.left + place.width, place.top + place.height)
    return torch.stack([one[0] for one in sides], dim=1).double().numpy()


def _grid_cells(extractor: Extractor, count: int) -> tuple[np.ndarray, bool]:
    """The finest grid of an image pyramid; windows without order are laid out as near to a square as they go."""
    if isinstance(extractor, Grid):
        sizes = extractor.sizes
        finest = max(range(len(sizes)), key=lambda level: sizes[level])
        start = sum(size * size for size in sizes[:finest])
        return start + np.arange(sizes[finest] ** 2).reshape(sizes[finest], sizes[finest]), True
    columns = math.ceil(math.sqrt(count))
    cells = np.full((-(-count // columns), columns), -1)
    cells.flat[:count] = np.arange(count)
    return cells, False
