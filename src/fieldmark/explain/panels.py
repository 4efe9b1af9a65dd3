"""Rows of small pictures with one colour scale: maps over their image, and cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fieldmark.explain.sheet import HEADING, INK, MARGIN, QUIET, WIDTH, Sheet, fitted

COLOURS = "viridis"
GAP = 0.28
CAPTION = 0.34
BAR = 0.95  # room for the scale at the right
_TALLEST = 3.0


@dataclass(frozen=True)
class Scale:
    """A colour scale that several panels share.

    Attributes:
        low: Value of the first colour.
        high: Value of the last colour.
        label: What the colours mean, in a word or two.
    """

    low: float
    high: float
    label: str

    @classmethod
    def of(cls, values: Sequence[np.ndarray], label: str, low: float | None = None) -> Scale:
        """The scale from the smallest (or ``low``) to the largest of some values."""
        least = min(float(one.min()) for one in values) if low is None else low
        return cls(least, max(float(one.max()) for one in values), label)

    def colours(self, values: np.ndarray) -> np.ndarray:
        """uint8 ``(*shape, 3)`` of values ``(*shape)``; what is outside of the scale has the colour of its end.

        Example:
            >>> Scale(0.0, 1.0, "").colours(np.array([0.0, 1.0])).tolist()
            [[68, 1, 84], [253, 231, 36]]
        """
        from matplotlib import colormaps

        spread = self.high - self.low
        unit = (values - self.low) / spread if spread > 0 else np.zeros_like(values, dtype=np.float64)
        return (255 * np.asarray(colormaps[COLOURS](np.clip(unit, 0, 1)))[..., :3]).astype(np.uint8)


def over_image(image: np.ndarray, values: np.ndarray, scale: Scale) -> np.ndarray:
    """A map as colours over the grey image, smooth between the middles of its cells.

    Args:
        image: ``(H, W, 3)`` uint8.
        values: ``(h, w)``.
        scale: Which value has which colour.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    height, width = image.shape[:2]
    smooth = np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR), np.float64
    )
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.rint(0.45 * grey + 0.55 * scale.colours(smooth)).astype(np.uint8)


def cell_by_cell(values: np.ndarray, scale: Scale, shape: tuple[int, int]) -> np.ndarray:
    """A map as one colour a cell, as uint8 ``(H, W, 3)`` of that shape (about: a whole number of pixels a cell)."""
    rows, columns = values.shape
    down, across = max(1, shape[0] // rows), max(1, shape[1] // columns)
    return scale.colours(values).repeat(down, 0).repeat(across, 1)


def size_of(image: np.ndarray, columns: int, scale: bool = True) -> tuple[float, float]:
    """Width and height in inches of each of so many panels beside each other."""
    room = WIDTH - 2 * MARGIN - (BAR if scale else 0.0)
    return fitted(image, (room - (columns - 1) * GAP) / columns, _TALLEST)


def draw_row(
    sheet: Sheet, top: float, images: Sequence[np.ndarray], size: tuple[float, float], captions: Sequence[str] = ()
) -> None:
    """Images of one size beside each other, with a line below each."""
    width, height = size
    for place, image in enumerate(images):
        left = MARGIN + place * (width + GAP)
        sheet.image(image, left, top, width, height)
        if captions:
            letters = fitting(captions[place], width + 0.8 * GAP)
            sheet.text(left + width / 2, top + height + 0.17, captions[place], letters, ha="center")


def fitting(text: str, room: float, most: float = 9.5) -> float:
    """Size of letters at which a text takes at most so many inches, about."""
    return min(most, 72 * room / (0.58 * max(len(text), 1)))


def draw_scale(sheet: Sheet, scale: Scale, left: float, top: float, height: float) -> None:
    """The colours from low (below) to high (above), with both values and the label."""
    steps = np.linspace(scale.high, scale.low, 128)[:, None]
    sheet.image(scale.colours(steps), left, top, 0.16, height)
    for value, y in ((scale.high, top + 0.07), (scale.low, top + height - 0.07)):
        sheet.text(left + 0.24, y, f"{value:.3g}", 9, INK)
    letters = fitting(scale.label, height - 0.5, 9)
    if letters < 5:
        return  # too flat for a label
    sheet.text(left + 0.3, top + height / 2, scale.label, letters, QUIET, rotation=90, ha="center")


def draw_maps(
    sheet: Sheet,
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    captions: Sequence[str],
    scale: Scale,
) -> None:
    """Two rows below a heading: each map over its image, and below it cell by cell; the scale at the right."""
    size = size_of(images[0], len(images))
    draw_row(sheet, HEADING, [over_image(i, m, scale) for i, m in zip(images, maps, strict=True)], size)
    below = HEADING + size[1] + 0.1
    plain = [cell_by_cell(one, scale, image.shape[:2]) for one, image in zip(maps, images, strict=True)]
    draw_row(sheet, below, plain, size, captions)
    left = MARGIN + len(images) * size[0] + (len(images) - 1) * GAP + 0.2
    draw_scale(sheet, scale, left, HEADING, 2 * size[1] + 0.1)


def maps_height(images: Sequence[np.ndarray]) -> float:
    """Inches from the heading's upper edge to below the captions of :func:`draw_maps`."""
    return HEADING + 2 * size_of(images[0], len(images))[1] + 0.1 + CAPTION
