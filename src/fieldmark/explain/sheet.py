"""A sheet of paper in inches: every picture is laid out by hand, so that nothing overlaps and sizes are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 12.0
MARGIN = 0.4
HEADING = 0.78  # height of a part's heading and its line of explanation
FOOT = 0.3

INK = "#1f2a33"
QUIET = "#66737d"
RULE = "#d5dbe0"
# Distinct for colour-blind readers (Okabe and Ito 2008, without black) and on most photographs.
COLOURS = ("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#9467bd")


class Sheet:
    """A part of a figure that is drawn on in inches from its upper left corner.

    Args:
        canvas: The figure.
        height: Its height in inches; its width is ``WIDTH``.
        top: How far below the figure's upper edge it begins, in inches.
        total: The figure's height in inches.
    """

    def __init__(self, canvas: Figure, height: float, top: float, total: float) -> None:
        self.canvas, self.height, self._top, self._total = canvas, height, top, total

    def _fraction(self, y: float) -> float:
        return 1 - (self._top + y) / self._total

    def axes(self, left: float, top: float, width: float, height: float, span: tuple[float, float]) -> Axes:
        """Axes without frame whose coordinates run from (0, 0) at the upper left to ``span`` = (width, height)."""
        box = (left / WIDTH, self._fraction(top + height), width / WIDTH, height / self._total)
        axes = self.canvas.add_axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, span[0])
        axes.set_ylim(span[1], 0)
        return axes

    def image(self, image: np.ndarray, left: float, top: float, width: float, height: float) -> Axes:
        """An image that fills its place; coordinates are its pixels."""
        axes = self.axes(left, top, width, height, (image.shape[1], image.shape[0]))
        show(axes, image, (0, 0, image.shape[1], image.shape[0]))
        return axes

    def text(self, x: float, y: float, text: str, size: float = 9, colour: str = INK, **options: Any) -> None:
        """One line; ``y`` is its middle unless ``va`` says otherwise. Dollars and backslashes stand for themselves."""
        options = {"va": "center", "parse_math": False, **options}
        self.canvas.text(x / WIDTH, self._fraction(y), text, fontsize=size, color=colour, **options)

    def rule(self, left: float, right: float, y: float, colour: str = RULE, width: float = 0.8) -> None:
        """A thin horizontal line."""
        from matplotlib.lines import Line2D

        place = self._fraction(y)
        transform = self.canvas.transFigure
        line = Line2D((left / WIDTH, right / WIDTH), (place, place), color=colour, linewidth=width, transform=transform)
        self.canvas.add_artist(line)

    def heading(self, title: str, explanation: str) -> None:
        """What the part shows, and how to read it."""
        self.rule(MARGIN, WIDTH - MARGIN, 0.06)
        self.text(MARGIN, 0.28, title, 12.5, weight="bold")
        self.text(MARGIN, 0.53, explanation, 9.5, QUIET)


def new_figure(height: float) -> Figure:
    """A white figure without any state of ``pyplot``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), facecolor="white")


def show(axes: Axes, image: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """Draw an image into a box (left, top, right, bottom) of the coordinates."""
    limits = axes.get_xlim(), axes.get_ylim()
    left, top, right, bottom = box
    axes.imshow(image, extent=(left, right, bottom, top), aspect="auto", interpolation="auto")
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def draw_boxes(axes: Axes, boxes: np.ndarray, colour: str = "white", width: float = 0.6, alpha: float = 0.55) -> None:
    """Outlines of boxes, thin enough to see the image."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    frames = [Rectangle((left, top), right - left, bottom - top) for left, top, right, bottom in boxes]
    axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=colour, linewidth=width, alpha=alpha))


def fitted(image: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Width and height in inches of an image that fits into a place."""
    ratio = image.shape[0] / image.shape[1]
    width = min(width, height / ratio)
    return width, width * ratio


def pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box as whole pixels of an image of (height, width): left, top, right, bottom, at least one pixel."""
    left, top = (min(max(round(float(value)), 0), most - 1) for value, most in zip(box[:2], size[::-1], strict=True))
    right, bottom = (min(max(round(float(value)), 1), most) for value, most in zip(box[2:], size[::-1], strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def shortened(name: str, length: int = 36) -> str:
    """A long name with its middle left out.

    Example:
        >>> shortened("a_rather_long_name_of_a_file.jpg", 16)
        'a_rather…ile.jpg'
    """
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return name[: length - 1 - half] + "…" + name[-half:]
