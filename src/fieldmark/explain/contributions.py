"""What each place of the query adds to the score, over the image and in numbers that add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldmark.explain.alignment import Alignment
from fieldmark.explain.panels import (
    CAPTION,
    GAP,
    Scale,
    cell_by_cell,
    draw_row,
    draw_scale,
    over_image,
    size_of,
)
from fieldmark.explain.sheet import FOOT, HEADING, INK, MARGIN, Sheet, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NUMBERS = 100
"""Places up to which each one's share is written into its cell."""


def contributions(alignment: Alignment) -> Figure:
    """Picture of both images and of what each place of the query adds to the distance.

    Args:
        alignment: What :func:`fieldmark.explain.align` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.
    """
    height = contributions_height(alignment)
    figure = new_figure(height)
    draw_contributions(Sheet(figure, height, 0, height), alignment)
    return figure


def contributions_height(alignment: Alignment) -> float:
    """Inches that the part takes."""
    return HEADING + size_of(alignment.query_image, 4)[1] + CAPTION + FOOT


def draw_contributions(sheet: Sheet, alignment: Alignment) -> None:
    """Draw the part on its sheet."""
    count = len(alignment.contributions)
    shares = alignment.shares
    numbers = shares is not None and count <= MAX_NUMBERS
    sheet.heading(
        "Where they differ",
        f"What each of the {count} places of the query adds to the distance; all of them add up to it exactly."
        + (" The numbers are shares in %." if numbers else ""),
    )
    values = -alignment.contributions.reshape(alignment.grid)
    scale = Scale.of([values], "adds to the distance", low=min(0.0, float(values.min())))
    query, support = alignment.query_image, alignment.support_image
    images = [query, support, over_image(query, values, scale), cell_by_cell(values, scale, query.shape[:2])]
    names = [shortened(name, 30) for name in (alignment.query_name, alignment.support_name)]
    size = size_of(query, 4)
    captions = [*names, "distance by place of the query", f"sum: {values.sum():.4g}"]
    draw_row(sheet, HEADING, images, size, captions)
    left = MARGIN + 4 * size[0] + 3 * GAP
    if shares is not None and numbers:
        _draw_numbers(sheet, left - size[0], size, shares.reshape(alignment.grid), scale, values)
    draw_scale(sheet, scale, left + 0.2, HEADING, size[1])


def _draw_numbers(
    sheet: Sheet, left: float, size: tuple[float, float], shares: np.ndarray, scale: Scale, values: np.ndarray
) -> None:
    rows, columns = shares.shape
    width, height = size[0] / columns, size[1] / rows
    letters = min(8.5, 72 * min(width / 2.6, height / 1.5))
    colours = scale.colours(values) @ np.array([0.299, 0.587, 0.114])
    for (row, column), share in np.ndenumerate(shares):
        x, y = left + (column + 0.5) * width, HEADING + (row + 0.5) * height
        ink = INK if colours[row, column] > 120 else "white"
        sheet.text(x, y, f"{100 * share:.1f}", letters, ink, ha="center")
