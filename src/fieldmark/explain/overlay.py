"""The strongest matches, drawn between the two images, with the numbers that add up to the similarity."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from fieldmark.errors import FieldmarkError
from fieldmark.explain.matching import Matching
from fieldmark.explain.sheet import (
    COLOURS,
    FOOT,
    HEADING,
    INK,
    MARGIN,
    QUIET,
    WIDTH,
    Sheet,
    fitted,
    new_figure,
    shortened,
    show,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TOP = 20
_IMAGE, _BETWEEN = 3.45, 0.7
_LIST = MARGIN + 2 * _IMAGE + _BETWEEN + 0.4  # where the list begins
_TALLEST = 4.8
_ROW = 0.285
_CAPTION = 0.3
_TAG = 0.17  # side of a number's ground, in inches
_COLUMNS = (("cosine", 0.98), ("flow", 1.6), ("adds", 2.27), ("share", 3.05))


def overlay(matching: Matching, top: int = 8) -> Figure:
    """Picture of both images side by side with the strongest matches and the list of their contributions.

    Args:
        matching: What :func:`fieldmark.explain.match` found.
        top: How many matches to draw, 1 to 20; the rest is summed up in one line of the list.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.

    Raises:
        FieldmarkError: If ``top`` is out of its range.
    """
    check_top(top)
    height = overlay_height(matching, top)
    figure = new_figure(height)
    draw_overlay(Sheet(figure, height, 0, height), matching, top)
    return figure


def check_top(top: int) -> None:
    """Refuse a number of matches that cannot be drawn."""
    if not 1 <= top <= MAX_TOP:
        raise FieldmarkError(f"top is {top}; expected 1 to {MAX_TOP} matches")


def overlay_height(matching: Matching, top: int = 8) -> float:
    """Inches that the part takes."""
    rows = min(top, len(matching.pairs())) + 4
    images = max(one[1] for one in _sides(matching)) + _CAPTION
    return HEADING + max(images, rows * _ROW) + FOOT


def draw_overlay(sheet: Sheet, matching: Matching, top: int = 8) -> None:
    """Draw the part on its sheet."""
    pairs = matching.pairs()[:top]
    sheet.heading(
        "Strongest matches", "Boxes of one colour and number belong together; a line is as wide as what the match adds."
    )
    (query_width, query_height), (support_width, support_height) = _sides(matching)
    tallest = max(query_height, support_height)
    # One pair of axes over both images, in inches, so that the lines between them are drawn in one piece.
    span = (2 * _IMAGE + _BETWEEN, tallest)
    axes = sheet.axes(MARGIN, HEADING, *span, span)
    corners = (
        ((_IMAGE - query_width) / 2, (tallest - query_height) / 2),
        (_IMAGE + _BETWEEN + (_IMAGE - support_width) / 2, (tallest - support_height) / 2),
    )
    scales = (query_width / matching.query_image.shape[1], support_width / matching.support_image.shape[1])
    images = (matching.query_image, matching.support_image)
    for image, (x, y), (w, h) in zip(images, corners, _sides(matching), strict=True):
        show(axes, image, (x, y, x + w, y + h))
    frames = _frames(matching, pairs, corners, scales)
    largest = max((float(matching.contributions[pair]) for pair in pairs), default=0.0)
    # The strongest is drawn last, on top of the others.
    for number in reversed(range(len(pairs))):
        added = float(matching.contributions[pairs[number]])
        width = 1.2 + 2.8 * max(added, 0.0) / largest if largest > 0 else 1.2
        _draw_match(axes, frames[number], COLOURS[number % len(COLOURS)], width, number + 1)
    for (x, _), (w, _), name in zip(
        corners, _sides(matching), (matching.query_name, matching.support_name), strict=True
    ):
        sheet.text(MARGIN + x + w / 2, HEADING + tallest + 0.17, shortened(name), 9.5, ha="center")
    _draw_list(sheet, matching, pairs)


Point = tuple[float, float]
Box = tuple[float, float, float, float]


class _Match(NamedTuple):
    """What is drawn of one match, in inches: its boxes in query and support, and the corners of its number."""

    boxes: tuple[Box, Box]
    numbers: tuple[Point, Point]


def _frames(
    matching: Matching, pairs: list[tuple[int, int]], corners: tuple[Point, Point], scales: Point
) -> list[_Match]:
    boxes = (matching.query_boxes, matching.support_boxes)
    used: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    taken: tuple[list[Point], list[Point]] = ([], [])
    frames = []
    for pair in pairs:
        drawn = []
        for side in (0, 1):
            node = pair[side]
            inset = 0.025 + 0.035 * used[side][node]  # a node with several matches has frames one inside the other
            used[side][node] += 1
            left, top, right, bottom = boxes[side][node] * scales[side]
            inset = min(inset, (right - left) / 3, (bottom - top) / 3)
            x, y = corners[side]
            drawn.append((x + left + inset, y + top + inset, x + right - inset, y + bottom - inset))
            taken[side].append(_free_place(drawn[side], taken[side]))
        frames.append(_Match((drawn[0], drawn[1]), (taken[0][-1], taken[1][-1])))
    return frames


def _free_place(box: Box, taken: list[Point]) -> Point:
    """The first place for a number, from the upper left of a box on, that no other number has."""
    columns = max(1, int((box[2] - box[0]) / _TAG))
    rows = max(1, int((box[3] - box[1]) / _TAG))
    for place in range(rows * columns):
        x, y = box[0] + place % columns * _TAG, box[1] + place // columns * _TAG
        if all(max(abs(x - other[0]), abs(y - other[1])) >= 0.9 * _TAG for other in taken):
            return x, y
    return box[0], box[1]


def _draw_match(axes: Axes, frame: _Match, colour: str, width: float, number: int) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    query, support = frame.boxes
    for box in frame.boxes:
        corner, across, down = box[:2], box[2] - box[0], box[3] - box[1]
        for edge, line in (("white", 3.4), (colour, 2.0)):
            axes.add_patch(Rectangle(corner, across, down, facecolor="none", edgecolor=edge, linewidth=line))
    # Matches of one row would lie on one line.
    lift = 0.09 * ((number - 1) % 8 - 3.5)
    heights = [(box[1] + box[3]) / 2 + lift * (box[3] - box[1]) for box in frame.boxes]
    start, end = (query[2], heights[0]), (support[0], heights[1])
    bend = max(0.3, 0.45 * (end[0] - start[0]))
    path = Path(
        [start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )
    for edge, line, alpha in (("white", width + 1.4, 0.75), (colour, width, 0.95)):
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=edge, linewidth=line, alpha=alpha))
    for x, y in frame.numbers:
        _draw_number(axes, x, y, colour, number)


def _draw_number(axes: Axes, x: float, y: float, colour: str, number: int) -> None:
    """A number on a ground of its colour, at the upper left of a box."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), _TAG, _TAG, facecolor=colour, edgecolor="white", linewidth=0.6, zorder=3))
    axes.text(
        x + _TAG / 2, y + _TAG / 2, str(number), fontsize=7.5, weight="bold", color=_on(colour),
        ha="center", va="center_baseline", zorder=4,
    )  # fmt: skip


def _on(colour: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _draw_list(sheet: Sheet, matching: Matching, pairs: list[tuple[int, int]]) -> None:
    everything = matching.pairs()
    right = WIDTH - MARGIN
    y = HEADING + _ROW / 2
    for title, x in _COLUMNS:
        sheet.text(_LIST + x, y, title, 9, QUIET, ha="right")
    sheet.rule(_LIST, right, y + _ROW / 2)
    axes = sheet.axes(_LIST, HEADING, _TAG + 0.04, (len(pairs) + 1) * _ROW, (_TAG + 0.04, (len(pairs) + 1) * _ROW))
    for number, pair in enumerate(pairs):
        y += _ROW
        _draw_number(axes, 0.02, y - HEADING - _TAG / 2, COLOURS[number % len(COLOURS)], number + 1)
        added = float(matching.contributions[pair])
        _draw_row(sheet, y, f"{matching.cosine[pair]:.2f}", float(matching.flow[pair]), added, matching.share(added))
    rest = everything[len(pairs) :]
    if rest:
        y += _ROW
        flow, added = (float(sum(of[pair] for pair in rest)) for of in (matching.flow, matching.contributions))
        sheet.text(_LIST, y, f"{len(rest)} more", 9.5)
        _draw_row(sheet, y, "", flow, added, matching.share(added))
    sheet.rule(_LIST, right, y + _ROW / 2)
    y += _ROW
    total = float(matching.contributions.sum())
    sheet.text(_LIST, y, "similarity", 10, weight="bold")
    _draw_row(sheet, y, "", float(matching.flow.sum()), total, matching.share(total), weight="bold")
    formula = f"adds = {matching.facts['temperature']:g} / {len(matching.flow)} × cosine × flow"
    sheet.text(_LIST, y + _ROW, formula, 9, QUIET)


def _draw_row(
    sheet: Sheet, y: float, cosine: str, flow: float, added: float, share: float | None, weight: str = "normal"
) -> None:
    part = "" if share is None else f"{100 * share:.1f} %"
    for (_, x), text in zip(_COLUMNS, (cosine, f"{flow:.2f}", f"{added:.3f}", part), strict=True):
        sheet.text(_LIST + x, y, text, 10, ha="right", weight=weight)


def _sides(matching: Matching) -> list[tuple[float, float]]:
    return [fitted(image, _IMAGE, _TALLEST) for image in (matching.query_image, matching.support_image)]
