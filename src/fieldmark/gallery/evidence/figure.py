"""Evidence as a figure: the photo, the sums of the two classes, and the photos that add most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldmark.explain.sheet import INK, MARGIN, QUIET, WIDTH, Sheet, new_figure, shortened
from fieldmark.gallery.evidence.page import FIRST, MARKS, SECOND, SHADE, how, made, percent, signed, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fieldmark.gallery.evidence import ClassEvidence, Explanation, PhotoEvidence

_TOP, _ROW, _GAP = 1.2, 0.27, 0.3
_QUERY = 2.45
_COLUMN = (WIDTH - 2 * MARGIN - _GAP) / 2
_PHOTO = (_COLUMN - 0.12) / 2


def draw(found: Explanation) -> Figure:
    """The whole figure."""
    terms = max(len(one.terms) for one in found.classes) + 1 if found.additive else 1
    photos = max(len(one.photos) for one in found.classes)
    pairs = _TOP + _QUERY + 0.85 + 0.42 + terms * _ROW + 0.2
    height = pairs + photos * (_PHOTO + 0.42) + 0.75
    figure = new_figure(height)
    sheet = Sheet(figure, height, 0, height)
    answer, sure = words(found)
    colour = QUIET if found.prediction.rejected else FIRST
    sheet.text(MARGIN, 0.3, shortened(found.name, 80), 10, QUIET)
    sheet.text(MARGIN, 0.62, shortened(answer, 60), 20, colour, weight="bold")
    sheet.text(MARGIN, 0.97, shortened(sure, 150), 10.5, QUIET)
    _overview(sheet, found)
    for number, one in enumerate(found.classes):
        left = MARGIN + number * (_COLUMN + _GAP)
        _column(sheet, found, one, left, (FIRST, SECOND)[number], pairs)
    _foot(sheet, found, height)
    return figure


def _overview(sheet: Sheet, found: Explanation) -> None:
    ratio = found.image.shape[1] / found.image.shape[0]
    sheet.image(found.image, MARGIN, _TOP, _QUERY * ratio, _QUERY)
    sheet.text(MARGIN, _TOP + _QUERY + 0.17, "The photo as the model sees it", 9, QUIET)
    left = MARGIN + _QUERY * ratio + _GAP
    difference = found.difference
    if difference is not None:
        axes = sheet.image(found.image, left, _TOP, _QUERY * ratio, _QUERY)
        _heat(axes, found.boxes(), difference)
        sheet.text(left, _TOP + _QUERY + 0.17, "Which places speak for which of the two", 9, QUIET)
        for row, (one, colour) in enumerate(zip(found.classes, (FIRST, SECOND), strict=True)):
            sheet.text(left, _TOP + _QUERY + 0.38 + 0.2 * row, "■ " + shortened(str(one.label), 34), 9, colour)
        left += _QUERY * ratio + _GAP
    sheet.text(left, _TOP + 0.1, "Probability, if it is one of the classes", 10, QUIET)
    room = WIDTH - MARGIN - left
    second = str(found.classes[1].label) if len(found.classes) > 1 else None
    for row, (label, chance) in enumerate(found.prediction.top[:5]):
        y = _TOP + 0.42 + row * 0.4
        colour = FIRST if row == 0 else SECOND if str(label) == second else "#9aa5b1"
        sheet.text(left, y, shortened(str(label), 38), 10)
        sheet.text(left + room, y, percent(chance), 10, ha="right")
        _bar(sheet, left, y + 0.13, room, 0.0, chance, colour)
    more = len(found.prediction.top) - 5
    if more > 0:
        sheet.text(left, _TOP + 0.42 + 5 * 0.4, f"and {more} more class{'es' if more > 1 else ''}", 9, QUIET)


def _column(sheet: Sheet, found: Explanation, one: ClassEvidence, left: float, colour: str, photos: float) -> None:
    y = _TOP + _QUERY + 0.95
    sheet.rule(left, left + _COLUMN, y - 0.2)
    sheet.text(left, y + 0.05, shortened(str(one.label), 44), 14, colour, weight="bold")
    sheet.text(left + _COLUMN, y + 0.05, percent(one.probability), 14, colour, ha="right", weight="bold")
    y += 0.4
    if found.additive:
        every = [value for other in found.classes for _, value in [*other.terms, ("", other.score)]]
        low, high = min(0.0, *every), max(0.0, *every)
        span = (high - low) or 1.0
        for name, value in [*one.terms, ("score", one.score)]:
            last = name == "score"
            if last:
                sheet.rule(left, left + _COLUMN, y - _ROW / 2, INK, 0.6)
            weight = "bold" if last else "normal"
            sheet.text(left, y, shortened(name, 30), 9.5, weight=weight)
            sheet.text(left + _COLUMN, y, signed(value, not last), 9.5, ha="right", weight=weight)
            start, end = sorted((-low / span, (value - low) / span))
            _bar(sheet, left + 2.35, y - 0.055, _COLUMN - 2.95, start, end, colour if value >= 0 else "#9aa5b1", 0.11)
            y += _ROW
    else:
        sheet.text(left, y, f"score {one.score:.2f}", 10)
    for row, photo in enumerate(one.photos):
        _pair(sheet, found, photo, left, photos + row * (_PHOTO + 0.42), colour)


def _pair(sheet: Sheet, found: Explanation, photo: PhotoEvidence, left: float, top: float, colour: str) -> None:
    sheet.text(left, top + 0.08, shortened(photo.name, 34), 9.5)
    sheet.text(left + _COLUMN, top + 0.08, signed(photo.adds), 9.5, QUIET, ha="right")
    sides = (
        (found.image, photo.contributions.sum(1), [pair.query for pair in photo.regions]),
        (photo.image, photo.contributions.sum(0), [pair.support for pair in photo.regions]),
    )
    for side, (image, adds, numbers) in enumerate(sides):
        place = left + side * (_PHOTO + 0.12)
        if image is None:
            sheet.text(place + _PHOTO / 2, top + _PHOTO / 2, "cannot be shown", 9, QUIET, ha="center")
            continue
        axes = sheet.image(image, place, top + 0.22, _PHOTO, _PHOTO)
        boxes = found.boxes(image)
        _heat(axes, boxes, adds, colour)
        for i, number in enumerate(numbers):
            _mark(axes, boxes[number], MARKS[i % len(MARKS)], i + 1)


def _mark(axes: Axes, box: np.ndarray, colour: str, number: int) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = (float(value) for value in box)
    inset = 0.03 * (right - left)
    for edge, width in (("white", 3.2), (colour, 1.8)):
        corner = (left + inset, top + inset)
        axes.add_patch(
            Rectangle(
                corner, right - left - 2 * inset, bottom - top - 2 * inset, fill=False, edgecolor=edge, linewidth=width
            )
        )
    side = axes.get_xlim()[1] / 13
    axes.add_patch(Rectangle((left, top), side, side, facecolor=colour, edgecolor="white", linewidth=0.5, zorder=3))
    axes.text(
        left + side / 2,
        top + side / 2,
        str(number),
        fontsize=7,
        weight="bold",
        color=INK,
        ha="center",
        va="center_baseline",
        zorder=4,
    )


def _heat(axes: Axes, boxes: np.ndarray, values: np.ndarray, plus: str = FIRST) -> None:
    from matplotlib.patches import Rectangle

    most = float(np.abs(values).max()) or 1.0
    minus = SECOND if plus == FIRST else FIRST
    for (left, top, right, bottom), value in zip(boxes, values, strict=True):
        alpha = SHADE * abs(float(value)) / most
        tone = plus if value > 0 else minus
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=tone, alpha=alpha, linewidth=0))


def _bar(
    sheet: Sheet, left: float, top: float, width: float, start: float, end: float, colour: str, height: float = 0.1
) -> None:
    from matplotlib.patches import Rectangle

    axes = sheet.axes(left, top, width, height, (1, 1))
    axes.add_patch(Rectangle((0, 0), 1, 1, facecolor="#eef1f3", linewidth=0))
    axes.add_patch(Rectangle((start, 0), max(end - start, 0.004), 1, facecolor=colour, linewidth=0))


def _foot(sheet: Sheet, found: Explanation, height: float) -> None:
    import textwrap

    for row, line in enumerate([*textwrap.wrap(how(found), 165)[:3], made(found)]):
        sheet.text(MARGIN, height - 0.66 + 0.16 * row, line, 8, QUIET)
