"""Pictures of parts: their boxes on the images, and what their maps and oriented poolings look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.explain.panels import GAP, fitting
from fieldmark.explain.parts import Look, PartView, PartViews
from fieldmark.explain.picture import Part, check_parts, draw_lines, stacked
from fieldmark.explain.sheet import (
    COLOURS,
    FOOT,
    HEADING,
    INK,
    MARGIN,
    QUIET,
    RULE,
    WIDTH,
    Sheet,
    fitted,
    pixels,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PART_PARTS = ("boxes", "pooling")
_PART_COLOURS = (COLOURS[3], COLOURS[0], COLOURS[6], COLOURS[5], COLOURS[4], COLOURS[1], COLOURS[2], COLOURS[7])
_TALLEST, _CAPTION, _BAR_ROW = 3.6, 0.5, 1.45
_TITLES = 0.48  # height of the histograms' titles
_MOST = 8  # images of a picture


def part_picture(found: PartViews, what: Sequence[str] | None = None, part: int = 1) -> Figure:
    """Boxes and histograms of parts below each other under a title.

    Args:
        found: What :func:`fieldmark.explain.parts` found, at most 8 images.
        what: ``"boxes"`` (Figs. 6 and 7 of SSANET) and ``"pooling"`` (Fig. 5); default: all that there are.
        part: The part whose histograms are drawn, from 1.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.

    Raises:
        FieldmarkError: For an unknown part of the picture, a part's number out of range, too many images, or histograms
            of a model without oriented pooling.
    """
    what = part_drawable(found) if what is None else what
    check_parts(what, PART_PARTS)
    count = len(found.views[0].look.proposed)
    if not 1 <= part <= count:
        raise FieldmarkError(f"part is {part}; expected 1 to {count}, the parts of the model")
    if len(found.views) > _MOST:
        raise FieldmarkError(f"{len(found.views)} images for one picture; expected at most {_MOST}")
    if "pooling" in what and "pooling" not in part_drawable(found):
        raise FieldmarkError("the model has no oriented pooling to draw; leave the part pooling out")
    drawn: dict[str, Part[PartViews]] = {
        "boxes": (_boxes_height, _draw_boxes),
        "pooling": (_pooling_height, lambda sheet, one: _draw_pooling(sheet, one, part - 1)),
    }
    return stacked(found, [drawn[one] for one in what], _draw_title)


def part_drawable(found: PartViews) -> list[str]:
    """The parts of the picture that can be drawn: histograms only of a model with oriented pooling."""
    return [one for one in PART_PARTS if one == "boxes" or found.views[0].look.rows.size]


def _columns(view: PartView, facts: dict[str, object]) -> list[tuple[str, Look, np.ndarray]]:
    """What is drawn beside each other: the other model, the proposals, the aligned parts."""
    columns = []
    if view.beside is not None:
        other = facts["beside"]["classifier"]  # type: ignore[index]
        columns.append((_titled(other), view.beside, view.beside.boxes))
    own = _titled(facts["classifier"])
    if view.look.aligned is None:
        return [*columns, (own, view.look, view.look.proposed)]
    return [
        *columns,
        (f"{own}, proposals", view.look, view.look.proposed),
        (f"{own}, aligned", view.look, view.look.aligned),
    ]


def _titled(name: object) -> str:
    return {"nts": "NTS-Net", "ssanet": "SSANET"}.get(str(name), str(name))


def _in_row(found: PartViews) -> tuple[int, int]:
    """Panels of an image, and how many images stand beside each other."""
    panels = len(_columns(found.views[0], found.facts))
    return panels, max(1, min(len(found.views), 4 // panels))


def _panel(found: PartViews) -> tuple[float, float]:
    panels, images = _in_row(found)
    across = max(3, panels * images)
    room = (WIDTH - 2 * MARGIN - (across - 1) * GAP) / across
    return fitted(found.views[0].image, room, _TALLEST)


def _boxes_height(found: PartViews) -> float:
    _, images = _in_row(found)
    rows = -(-len(found.views) // images)
    return HEADING + rows * (_panel(found)[1] + _CAPTION) + FOOT


def _draw_boxes(sheet: Sheet, found: PartViews) -> None:
    points = any(one.points is not None for one in found.views)
    told = "Boxes and triangles (their middles) of the parts, numbered by the navigator's rank"
    sheet.heading("Parts", f"{told}; dots are annotated key points." if points else f"{told}.")
    panels, images = _in_row(found)
    width, height = _panel(found)
    for number, view in enumerate(found.views):
        row, place = divmod(number, images)
        top = HEADING + row * (height + _CAPTION)
        for column, (title, look, boxes) in enumerate(_columns(view, found.facts)):
            left = MARGIN + (place * panels + column) * (width + GAP)
            axes = sheet.image(view.image, left, top, width, height)
            _mark(axes, view, boxes)
            sheet.text(left + width / 2, top + height + 0.15, title, fitting(title, width, 9.5), ha="center")
            said = f"{shortened(look.guess, 28)}  ·  {100 * look.probability:.0f} %"
            sheet.text(left + width / 2, top + height + 0.32, said, fitting(said, width, 8.5), QUIET, ha="center")


def _mark(axes: Axes, view: PartView, boxes: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    reach = max(view.image.shape[:2])
    if view.points is not None and len(view.points):
        axes.scatter(
            view.points[:, 0],
            view.points[:, 1],
            s=16,
            c="white",
            edgecolors=INK,
            linewidths=0.9,
            zorder=3,
            clip_on=True,
        )
    for part, (left, top, right, bottom) in list(enumerate(boxes))[::-1]:
        colour = _PART_COLOURS[part % len(_PART_COLOURS)]
        inset = 0.006 * reach  # so that a box along the image's edge is seen whole
        corner, size = (left + inset, top + inset), (right - left - 2 * inset, bottom - top - 2 * inset)
        for line, tint, alpha in ((4.0, "white", 0.75), (2.2, colour, 1.0)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=tint, linewidth=line, alpha=alpha, zorder=4))
        axes.scatter(
            (left + right) / 2,
            (top + bottom) / 2,
            marker="^",
            s=46,
            c=colour,
            edgecolors="white",
            linewidths=1.0,
            zorder=6,
        )
        axes.text(
            left + 2 * inset, top + 2 * inset, str(part + 1), fontsize=8.5, color="white", weight="bold", va="top",
            ha="left", zorder=7, bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.6},
        )  # fmt: skip


def _pooling_height(found: PartViews) -> float:
    return HEADING + _TITLES + len(found.views) * (_BAR_ROW + 0.32) + FOOT


def _draw_pooling(sheet: Sheet, found: PartViews, part: int) -> None:
    sheet.heading(
        f"Oriented pooling of part {part + 1}",
        "Mean over the channels. Left: the part. (a) horizontal and vertical pooling, patch by patch; (b) its map, "
        "place by place" + ("; (c) the other model's map of the same box." if _with_other(found) else "."),
    )
    tops = HEADING + _TITLES
    kinds = [("(a) oriented pooling", 1.5), ("(b) map, trained with OP", 1.0)]
    if _with_other(found):
        kinds.append((f"(c) map, {_titled(found.facts['beside']['classifier'])}", 1.0))
    first = MARGIN + _BAR_ROW + 0.5
    room = WIDTH - MARGIN - first - (len(kinds) - 1) * 0.45
    widths = [room * share / sum(one for _, one in kinds) for _, share in kinds]
    lefts = [first + sum(widths[:n]) + 0.45 * n for n in range(len(kinds))]
    for number, (title, _) in enumerate(kinds):
        likeness = _agreement([_bars(one, number, part)[0] for one in found.views])
        sheet.text(lefts[number], HEADING + 0.06, title, 9.5, weight="bold")
        if likeness is not None:
            told = f"correlation between the images {likeness:.2f}"
            sheet.text(lefts[number], HEADING + 0.26, told, fitting(told, widths[number], 9), QUIET)
    most = [max(float(np.max(_bars(one, n, part)[0])) for one in found.views) for n in range(len(kinds))]
    for row, view in enumerate(found.views):
        top = tops + row * (_BAR_ROW + 0.32)
        left, up, right, down = pixels(view.look.boxes[part], (view.image.shape[0], view.image.shape[1]))
        cut = view.image[up:down, left:right]
        width, height = fitted(cut, _BAR_ROW, _BAR_ROW)
        sheet.image(cut, MARGIN + (_BAR_ROW - width) / 2, top + (_BAR_ROW - height) / 2, width, height)
        name = shortened(view.name, 26)
        sheet.text(MARGIN + _BAR_ROW / 2, top + _BAR_ROW + 0.13, name, fitting(name, _BAR_ROW, 8.5), QUIET, ha="center")
        for number in range(len(kinds)):
            values, split = _bars(view, number, part)
            _histogram(sheet, (lefts[number], top, widths[number], _BAR_ROW), values, split, most[number], part)


def _bars(view: PartView, kind: int, part: int) -> tuple[np.ndarray, int]:
    """Values of a histogram, and where its second half begins (0: it has none)."""
    if kind == 0:
        return np.concatenate([view.look.rows[part], view.look.columns[part]]), view.look.rows.shape[1]
    maps = view.look.maps if kind == 1 else view.maps_beside
    assert maps is not None
    return maps[part], 0


def _histogram(
    sheet: Sheet, box: tuple[float, float, float, float], values: np.ndarray, split: int, most: float, part: int
) -> None:
    left, top, width, height = box
    axes = sheet.axes(left, top, width, height, (len(values), 1.0))
    axes.set_ylim(0, 1.06 * max(most, 1e-9))
    colour = _PART_COLOURS[part % len(_PART_COLOURS)]
    shades = [colour] * len(values) if not split else [colour] * split + [QUIET] * (len(values) - split)
    axes.bar(np.arange(len(values)) + 0.5, values, width=0.82, color=shades, linewidth=0)
    axes.axhline(0, color=RULE, linewidth=1.2)
    if split:
        axes.axvline(split, color=RULE, linewidth=1.0)
        for place, word in ((0.005, "horizontal"), (0.505, "vertical")):
            axes.text(place, 1.0, word, transform=axes.transAxes, fontsize=8, color=QUIET, va="top")
    sheet.text(left - 0.06, top + 0.06, f"{most:.2g}", 7.5, QUIET, ha="right")
    sheet.text(left - 0.06, top + height - 0.03, "0", 7.5, QUIET, ha="right")


def _agreement(values: Sequence[np.ndarray]) -> float | None:
    """Mean correlation of all pairs of histograms; None for one image, or where one of them is flat."""
    if len(values) < 2 or any(float(one.std()) == 0 for one in values):
        return None
    table = np.corrcoef(np.stack(values))
    return float(table[np.triu_indices(len(values), 1)].mean())


def _with_other(found: PartViews) -> bool:
    return found.views[0].beside is not None


def _draw_title(sheet: Sheet, found: PartViews) -> None:
    facts = found.facts
    height, width = facts["size"]
    options = facts["classifier_options"]
    words = [f"{facts['backbone']} at {width} × {height} pixels", f"{options.get('parts', '?')} parts"]
    if "dsm" in options:
        words += [f"DSM {options['dsm']}", f"{options['pooling']} pooling"]
    if facts["beside"] is not None:
        words.append(f"beside {_titled(facts['beside']['classifier'])}")
    draw_lines(sheet, f"Parts that {_titled(facts['classifier'])} looks at", ("query", "support"), "  ·  ".join(words))
