"""The full flows: for every cell of the query, where in the support its weight goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fieldmark.errors import FieldmarkError
from fieldmark.explain.matching import Matching
from fieldmark.explain.reconstruction import drawn_boxes
from fieldmark.explain.sheet import (
    FOOT,
    HEADING,
    MARGIN,
    WIDTH,
    Sheet,
    draw_boxes,
    fitted,
    new_figure,
    pixels,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 64
"""Cells of the query from which on the picture would be too small to read."""

_SIDE = 2.35
_GAP = 0.3
_TALLEST = 6.2
_CAPTION = 0.3
_PIXELS = 1400  # width of the grid of pictures
_DARK = 0.2  # brightness of what a cell sends nothing to
_BAR = (230, 159, 0)  # the colour of weights


def flows(matching: Matching) -> Figure:
    """Picture of all flows: a grid like that of the query, each cell showing the support lit where its weight goes.

    Source: DeepEMD (Zhang et al. 2020), Fig. 7.

    Args:
        matching: What :func:`fieldmark.explain.match` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.

    Raises:
        FieldmarkError: If the query has more than ``MAX_CELLS`` cells.
    """
    check_readable(matching)
    height = flows_height(matching)
    figure = new_figure(height)
    draw_flows(Sheet(figure, height, 0, height), matching)
    return figure


def is_readable(matching: Matching) -> bool:
    """Whether the query has few enough cells for a picture of all flows."""
    rows, columns = matching.query_grid
    return rows * columns <= MAX_CELLS


def check_readable(matching: Matching) -> None:
    """Refuse a picture whose cells would be too small to read."""
    if not is_readable(matching):
        rows, columns = matching.query_grid
        raise FieldmarkError(
            f"the picture of all flows shows at most {MAX_CELLS} cells and the query has {rows} x {columns}; "
            "take smaller images (--size) or leave this part out (--what overlay,reconstruction)"
        )


def flows_height(matching: Matching) -> float:
    """Inches that the part takes."""
    return HEADING + max(_sizes(matching)[1], *(one[1] for one in _sides(matching))) + _CAPTION + FOOT


def draw_flows(sheet: Sheet, matching: Matching) -> None:
    """Draw the part on its sheet."""
    sheet.heading("All flows", _explanation(matching))
    (query_width, query_height), (support_width, support_height) = _sides(matching)
    width, height = _sizes(matching)
    tallest = max(height, query_height, support_height)
    left, right = MARGIN, WIDTH - MARGIN - support_width
    middle = (MARGIN + query_width + right - width) / 2
    places = (
        ("query", matching.query_image, shortened(matching.query_name, 28), left, query_width, query_height),
        ("support", matching.support_image, shortened(matching.support_name, 28), right, support_width, support_height),
    )
    for side, image, caption, x, w, h in places:
        top = HEADING + (tallest - h) / 2
        axes = sheet.image(image, x, top, w, h)
        cells = (matching.query_nodes if side == "query" else matching.support_nodes).cells
        draw_boxes(axes, drawn_boxes(matching, side)[cells[cells >= 0]])
        sheet.text(x + w / 2, top + h + 0.17, caption, 9.5, ha="center")
    sheet.image(flow_grid(matching), middle, HEADING + (tallest - height) / 2, width, height)
    what = "cell" if matching.query_nodes.tiled else "window"
    caption = f"for each {what} of the query: where in the support its weight goes"
    sheet.text(middle + width / 2, HEADING + (tallest + height) / 2 + 0.17, caption, 9.5, ha="center")


def flow_grid(matching: Matching, width: int = _PIXELS) -> np.ndarray:
    """The support once for each cell of the query, lit by that cell's flows, as one image on white.

    Args:
        matching: What :func:`fieldmark.explain.match` found.
        width: Pixels of the whole image, about.

    Returns:
        uint8 ``(height, width, 3)``. A patch is as bright as its part of the cell's largest flow; the bar below is as
        long as the cell's weight, and the largest weight fills the width.
    """
    cells = matching.query_nodes.cells
    rows, columns = cells.shape
    gap = max(2, round(0.06 * width / columns))
    bar = max(1, gap // 3)
    across = max(8, (width + gap) // columns - gap)
    support = matching.support_image
    down = max(8, round(across * support.shape[0] / support.shape[1]))
    thumbnail = np.asarray(Image.fromarray(support).resize((across, down), Image.Resampling.LANCZOS)).astype(np.float32)
    scale = np.array([across / support.shape[1], down / support.shape[0]] * 2)
    boxes = [pixels(box, (down, across)) for box in drawn_boxes(matching, "support") * scale]
    heaviest = max(float(matching.query_weights[cells[cells >= 0]].max()), 1e-12)
    step = down + 2 * bar + gap
    grid = np.full((rows * step - gap, columns * (across + gap) - gap, 3), 255, np.uint8)
    for (row, column), node in np.ndenumerate(cells):
        if node < 0:
            continue
        y, x = row * step, column * (across + gap)
        light = _light(matching.flow[node], boxes, (down, across))[..., None]
        grid[y : y + down, x : x + across] = np.rint(thumbnail * light)
        if not matching.query_nodes.tiled:
            _inset(grid[y : y + down, x : x + across], matching, int(node))
        grid[y + down + bar : y + down + 2 * bar, x : x + across] = 232
        length = round(across * min(float(matching.query_weights[node]) / heaviest, 1.0))
        grid[y + down + bar : y + down + 2 * bar, x : x + length] = _BAR
    return grid


def _inset(panel: np.ndarray, matching: Matching, node: int) -> None:
    """What a window of the query shows, in the corner: where windows are no grid, the place does not tell."""
    left, top, right, bottom = pixels(matching.query_boxes[node], matching.query_image.shape[:2])
    room = 0.36 * min(panel.shape[:2])
    scale = room / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    window = Image.fromarray(matching.query_image[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS)
    panel[: size[1] + 2, : size[0] + 2] = 255
    panel[: size[1], : size[0]] = np.asarray(window)


def _light(flow: np.ndarray, boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> np.ndarray:
    """Brightness of each pixel: the largest of the flows into the nodes that cover it."""
    light = np.full(size, _DARK, np.float32)
    most = float(flow.max())
    if most <= 0:
        return light
    for value, (left, top, right, bottom) in zip(flow / most, boxes, strict=True):
        if value > 0:
            part = light[top:bottom, left:right]
            np.maximum(part, _DARK + (1 - _DARK) * value, out=part)
    return light


def _explanation(matching: Matching) -> str:
    text = "Each small picture is the support, lit where "
    if matching.query_nodes.tiled:
        text += "that cell of the query sends its weight; the bar is the weight."
    else:
        text += "the window of the query in its corner sends its weight; the bar is the weight."
    hidden = len(matching.flow) - int((matching.query_nodes.cells >= 0).sum())
    return text + (f" {hidden} coarser nodes are not shown." if hidden else "")


def _sides(matching: Matching) -> list[tuple[float, float]]:
    return [fitted(image, _SIDE, _TALLEST) for image in (matching.query_image, matching.support_image)]


def _sizes(matching: Matching) -> tuple[float, float]:
    room = WIDTH - 2 * MARGIN - 2 * _GAP - sum(width for width, _ in _sides(matching))
    return fitted(flow_grid(matching, 400), room, _TALLEST)
