"""Correlation matrices: cosines of all places of the query with all of the support, before and after the alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldmark.explain.alignment import STAGES, Alignment
from fieldmark.explain.panels import BAR, CAPTION, GAP, Scale, cell_by_cell, draw_scale
from fieldmark.explain.sheet import FOOT, HEADING, MARGIN, QUIET, WIDTH, Sheet, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 3.3
_AXIS = 0.3  # room for the axis' name


def correlations(alignment: Alignment) -> Figure:
    """Picture of the correlation matrices of places, before the alignment and after each stage.

    Source: LSSA (Wu et al. 2021), Fig. 5.

    Args:
        alignment: What :func:`fieldmark.explain.align` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.
    """
    height = correlations_height(alignment)
    figure = new_figure(height)
    draw_correlations(Sheet(figure, height, 0, height), alignment)
    return figure


def correlations_height(alignment: Alignment) -> float:
    """Inches that the part takes."""
    return HEADING + _side(alignment) + 0.2 + 2 * CAPTION + FOOT


def draw_correlations(sheet: Sheet, alignment: Alignment) -> None:
    """Draw the part on its sheet."""
    sheet.heading(
        "Correlation of places",
        "Cosine of each place of the query (row) with each place of the support (column), both read row by row. "
        "Places that match where they stand are on the diagonal.",
    )
    matrices = alignment.correlations
    scale = Scale.of(list(matrices.values()), "cosine")
    side = _side(alignment)
    middle = HEADING + side / 2
    sheet.text(MARGIN + 0.12, middle, "place of the query", 9, QUIET, rotation=90, ha="center")
    for place, (stage, matrix) in enumerate(matrices.items()):
        left = MARGIN + _AXIS + place * (side + GAP)
        sheet.image(cell_by_cell(matrix, scale, (600, 600)), left, HEADING, side, side)
        sheet.text(left + side / 2, HEADING + side + 0.14, "place of the support", 9, QUIET, ha="center")
        name = "support before the alignment" if stage == "support" else STAGES[stage]
        sheet.text(left + side / 2, HEADING + side + 0.4, name, 9.5, ha="center")
        diagonal = f"mean of the diagonal {alignment.diagonal(stage):.3f}"
        sheet.text(left + side / 2, HEADING + side + 0.62, diagonal, 9.5, weight="bold", ha="center")
    draw_scale(sheet, scale, MARGIN + _AXIS + len(matrices) * (side + GAP) - GAP + 0.2, HEADING, side)


def _side(alignment: Alignment) -> float:
    columns = len(alignment.correlations)
    return min(_SIDE, (WIDTH - 2 * MARGIN - _AXIS - BAR - (columns - 1) * GAP) / columns)
