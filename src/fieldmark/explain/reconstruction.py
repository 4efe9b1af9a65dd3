"""The query rebuilt from the support's patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fieldmark.explain.boxes import cell_boxes
from fieldmark.explain.matching import Matching
from fieldmark.explain.sheet import FOOT, HEADING, MARGIN, WIDTH, Sheet, fitted, new_figure, pixels, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP = 0.45
_TALLEST = 4.6
_CAPTION = 0.3


def reconstruct(matching: Matching) -> np.ndarray:
    """Each cell of the query filled with the support patch that it sends most to, as bright as its weight.

    Source: DeepEMD (Zhang et al. 2020), Fig. 6.

    Args:
        matching: What :func:`fieldmark.explain.match` found.

    Returns:
        ``(H, W, 3)`` uint8, as large as the query. The brightest cell has the largest weight; a cell without weight
        is black, and so is what no crop covers.

    Example:
        >>> from fieldmark import backbones, explain
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        >>> found = explain.match(backbones.create("conv4", last_pool=False), image, image, size=32, weights="equal")
        >>> bool((explain.reconstruct(found) == image).all())
        True
    """
    query_size = matching.query_image.shape[:2]
    targets = drawn_boxes(matching, "query")
    sources = drawn_boxes(matching, "support")
    nodes = matching.query_nodes.cells[matching.query_nodes.cells >= 0]
    weights = matching.query_weights
    brightest = max(float(weights[nodes].max()), 1e-12)
    canvas = np.zeros_like(matching.query_image)
    # Where windows overlap the smaller one is on top.
    for node in nodes[np.argsort(-_areas(targets[nodes]), kind="stable")]:
        left, top, right, bottom = pixels(sources[matching.flow[node].argmax()], matching.support_image.shape[:2])
        patch = matching.support_image[top:bottom, left:right]
        left, top, right, bottom = pixels(targets[node], query_size)
        size = (right - left, bottom - top)
        if patch.shape[:2] != size[::-1]:
            patch = np.asarray(Image.fromarray(patch).resize(size, Image.Resampling.BICUBIC))
        canvas[top:bottom, left:right] = np.rint(patch * min(float(weights[node]) / brightest, 1.0))
    return canvas


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def drawn_boxes(matching: Matching, side: str) -> np.ndarray:
    """Boxes ``(N, 4)`` that a node is drawn as: enlarged crops that form a grid are cut back to their cells."""
    nodes = matching.query_nodes if side == "query" else matching.support_nodes
    image = matching.query_image if side == "query" else matching.support_image
    if not nodes.tiled:
        return nodes.boxes
    boxes = nodes.boxes.copy()
    boxes[nodes.cells.ravel()] = cell_boxes((nodes.cells.shape[0], nodes.cells.shape[1]), image.shape[:2])
    return boxes


def reconstruction(matching: Matching) -> Figure:
    """Picture of the query, of the query rebuilt from the support's patches, and of the support.

    Source: DeepEMD (Zhang et al. 2020), Fig. 6.

    Args:
        matching: What :func:`fieldmark.explain.match` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.
    """
    height = reconstruction_height(matching)
    figure = new_figure(height)
    draw_reconstruction(Sheet(figure, height, 0, height), matching)
    return figure


def reconstruction_height(matching: Matching) -> float:
    """Inches that the part takes."""
    return HEADING + max(side[1] for side in _sides(matching)) + _CAPTION + FOOT


def draw_reconstruction(sheet: Sheet, matching: Matching) -> None:
    """Draw the part on its sheet."""
    part = "cell" if matching.query_nodes.tiled else "window"
    sheet.heading(
        "Reconstruction",
        f"Each {part} of the query is filled with the support's patch that it sends most to; brightness is its weight.",
    )
    images = (matching.query_image, reconstruct(matching), matching.support_image)
    names = (matching.query_name, "query rebuilt from the support", matching.support_name)
    captions = [shortened(names[0]), names[1], shortened(names[2])]
    column = _column()
    for place, (image, caption, (width, height)) in enumerate(zip(images, captions, _sides(matching), strict=True)):
        left = MARGIN + place * (column + _GAP) + (column - width) / 2
        sheet.image(image, left, HEADING, width, height)
        sheet.text(left + width / 2, HEADING + height + 0.17, caption, 9.5, ha="center")


def _column() -> float:
    return (WIDTH - 2 * MARGIN - 2 * _GAP) / 3


def _sides(matching: Matching) -> list[tuple[float, float]]:
    query, support = (fitted(image, _column(), _TALLEST) for image in (matching.query_image, matching.support_image))
    return [query, query, support]
