"""Heat maps: the largest channel at each place of a map, before and after the alignment; and the foreground masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.explain.alignment import STAGES, Alignment
from fieldmark.explain.panels import (
    CAPTION,
    GAP,
    Scale,
    cell_by_cell,
    draw_maps,
    draw_row,
    draw_scale,
    maps_height,
    over_image,
    size_of,
)
from fieldmark.explain.sheet import FOOT, HEADING, MARGIN, Sheet, new_figure
from fieldmark.shapes import Float, Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHAT = {"maximum": "largest channel", "norm": "length of the vector"}


def heat_map(maps: Float[Tensor, "*batch C h w"]) -> Float[Tensor, "*batch h w"]:
    """The largest channel at each place.

    Source: LSSA (Wu et al. 2021), section 4.6.

    Example:
        >>> import torch
        >>> heat_map(torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]]))
        tensor([[3., 2.]])
    """
    return maps.amax(-3)


def heat_maps(alignment: Alignment) -> Figure:
    """Picture of the heat maps of query, support and the support after each stage, on one colour scale.

    Source: LSSA (Wu et al. 2021), Figs. 3 and 4.

    Args:
        alignment: What :func:`fieldmark.explain.align` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.
    """
    height = heat_maps_height(alignment)
    figure = new_figure(height)
    draw_heat_maps(Sheet(figure, height, 0, height), alignment)
    return figure


def heat_maps_height(alignment: Alignment) -> float:
    """Inches that the part takes."""
    return maps_height(_images(alignment, alignment.heat)) + FOOT


def draw_heat_maps(sheet: Sheet, alignment: Alignment) -> None:
    """Draw the part on its sheet."""
    kind = alignment.facts["heat_of"]
    sheet.heading(
        "Heat maps",
        f"The {_WHAT[kind]} at each place, one colour scale for all; above over the image, below cell by cell. "
        "The aligned support lies over the query.",
    )
    maps = list(alignment.heat.values())
    captions = [STAGES[name] for name in alignment.heat]
    draw_maps(sheet, _images(alignment, alignment.heat), maps, captions, Scale.of(maps, _WHAT[kind]))


def foreground(alignment: Alignment) -> Figure:
    """Picture of the foreground masks of query and support.

    Source: LSSA (Wu et al. 2021), eq. 2.

    Args:
        alignment: What :func:`fieldmark.explain.align` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.

    Raises:
        FieldmarkError: If the head has no mask.
    """
    check_masks(alignment)
    height = foreground_height(alignment)
    figure = new_figure(height)
    draw_foreground(Sheet(figure, height, 0, height), alignment)
    return figure


def check_masks(alignment: Alignment) -> None:
    """Refuse a picture of masks where there are none."""
    if not alignment.masks:
        raise FieldmarkError(
            "there is no foreground mask to draw: the head's option foreground is "
            f"{alignment.facts['head_options']['foreground']!r}; expected 'full' or 'mask'; leave the part out"
        )


def foreground_height(alignment: Alignment) -> float:
    """Inches that the part takes."""
    return HEADING + size_of(alignment.query_image, 4)[1] + CAPTION + FOOT


def draw_foreground(sheet: Sheet, alignment: Alignment) -> None:
    """Draw the part on its sheet."""
    sheet.heading(
        "Foreground",
        "How near each place is to the image's mean descriptor, (cosine + 1) / 2: what the features are multiplied by.",
    )
    scale = Scale.of(list(alignment.masks.values()), "mask")
    images, captions = [], []
    for image, (name, mask) in zip(_images(alignment, alignment.masks), alignment.masks.items(), strict=True):
        images += [over_image(image, mask, scale), cell_by_cell(mask, scale, image.shape[:2])]
        captions += [f"mask of the {name}", f"mean {mask.mean():.2f}"]
    width, height = size_of(alignment.query_image, 4)
    draw_row(sheet, HEADING, images, (width, height), captions)
    draw_scale(sheet, scale, MARGIN + 4 * width + 3 * GAP + 0.2, HEADING, height)


def _images(alignment: Alignment, maps: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The image that each map lies over: after the alignment the support has the query's layout."""
    return [alignment.support_image if name == "support" else alignment.query_image for name in maps]
