"""The pictures of `fieldmark analyse`, in the style of `fieldmark explain`; write them by ``explain.save_picture``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data import ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.analysis.clusters import DaviesBouldin
from fieldmark.evaluation.analysis.neighbours import Neighbours
from fieldmark.evaluation.analysis.spectrum import Spectrum
from fieldmark.explain.sheet import COLOURS, FOOT, INK, MARGIN, QUIET, WIDTH, Sheet, fitted, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIT, MISS = "#1a7f4b", "#c2410c"
_TITLE = 1.12
_CAPTION = 0.46  # two lines
_GAP = 0.12
_CHARACTER = 0.072  # inches a letter of a caption takes


def neighbours_picture(neighbours: Neighbours, data: ImageStore, model: str = "") -> Figure:
    """Queries at the left, their nearest images beside them; green frames are of the query's class, red ones are not.

    Source: SCL (Ouali et al. 2021), Figs. 2a and E.1.

    Args:
        neighbours: What :func:`nearest_neighbours` found.
        data: The images.
        model: What to call the model in the title.
    """
    count = neighbours.nearest.shape[1]
    between = 0.35
    tile = (WIDTH - 2 * MARGIN - between - (count - 1) * _GAP) / (count + 1)
    row = tile + _CAPTION + 0.1
    total = _TITLE + 0.1 + len(neighbours.queries) * row + FOOT
    figure = new_figure(total)
    sheet = Sheet(figure, total, 0, total)
    hits = neighbours.hits(data.labels)
    share = f"{100 * hits.mean():.0f} % of these neighbours are of the query's class"
    _title(sheet, f"Nearest neighbours: {share}", model, "query at the left  ·  below: class and cosine")
    for line, query in enumerate(neighbours.queries):
        top = _TITLE + 0.1 + line * row
        _tile(sheet, _pixels(data, query), MARGIN, top, tile, INK, _name(data, query))
        for place, (other, hit) in enumerate(zip(neighbours.nearest[line], hits[line], strict=True)):
            left = MARGIN + tile + between + place * (tile + _GAP)
            colour = HIT if hit else MISS
            cosine = f"{neighbours.similarities[line, place]:.2f}"
            _tile(sheet, _pixels(data, other), left, top, tile, colour, _name(data, other), cosine)
    return figure


def grad_cam_picture(examples: Sequence[Mapping[str, Any]], lead: str, model: str = "") -> Figure:
    """Images with what speaks for their class and for the class they are taken for, or the next likely one.

    Source: SCL (Ouali et al. 2021), Fig. 2b.

    Args:
        examples: For each image ``image`` (H, W, 3) uint8, ``cams``: two maps (h, w), ``names``: those of the class
            and of the other one, ``probabilities`` of both, and ``right``.
        lead: What the classifier is and how good, for the title.
        model: What to call the model.
    """
    columns, across = 2, 3
    between = 0.5
    tile = (WIDTH - 2 * MARGIN - between - columns * (across - 1) * _GAP) / (columns * across)
    row = tile + _CAPTION + 0.16
    rows = -(-len(examples) // columns)
    total = _TITLE + 0.1 + rows * row + FOOT
    figure = new_figure(total)
    sheet = Sheet(figure, total, 0, total)
    reading = "image  ·  Grad-CAM for its class  ·  for the likeliest other class; dark is nothing, bright its maximum"
    _title(sheet, f"Where a linear classifier looks: {lead}", model, reading)
    for number, one in enumerate(examples):
        top = _TITLE + 0.1 + number // columns * row
        left = MARGIN + number % columns * (across * tile + (across - 1) * _GAP + between)
        own, other = (f"{100 * p:.0f} %" for p in one["probabilities"])
        colour = HIT if one["right"] else MISS
        parts = [
            (one["image"], colour, "recognised" if one["right"] else "not recognised", ""),
            (heated(one["image"], one["cams"][0]), INK, one["names"][0], own),
            (heated(one["image"], one["cams"][1]), INK if one["right"] else MISS, one["names"][1], other),
        ]
        for place, (image, shade, name, note) in enumerate(parts):
            _tile(sheet, image, left + place * (tile + _GAP), top, tile, shade, name, note)
    return figure


def heated(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 under a map (h, w) that is scaled to its size and to its own maximum.

    Example:
        >>> grey = np.full((4, 4, 3), 128, np.uint8)
        >>> heated(grey, np.array([[0.0, 0.0], [0.0, 1.0]])).shape
        (4, 4, 3)
    """
    from matplotlib import colormaps
    from PIL import Image

    peak = float(cam.max())
    scaled = np.asarray(cam, dtype=np.float32) / (peak if peak > 0 else 1)
    size = (image.shape[1], image.shape[0])
    heat = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    colour = colormaps["inferno"](heat)[..., :3]
    grey = image.mean(2, keepdims=True) / 255
    return np.rint(255 * (0.45 * grey + 0.55 * colour)).astype(np.uint8)


def spectrum_picture(spectra: Mapping[str, Spectrum]) -> Figure:
    """Cumulative explained variance and singular values, one curve a model.

    Source: SCL (Ouali et al. 2021), Figs. 3 and E.2 (there the singular values of each model over its largest).

    Args:
        spectra: By name of the model.
    """
    height = 5.3
    figure = new_figure(height)
    sheet = Sheet(figure, height, 0, height)
    first = next(iter(spectra.values()))
    _title(sheet, "Spectrum of the centred feature matrix", f"{first.images} images",
           "many components and a slow fall: the embedding keeps much of what it saw")  # fmt: skip
    axes = [_plot(sheet, left, 1.2, 4.9, 3.5) for left in (0.95, 6.75)]
    for (name, one), colour in zip(spectra.items(), _curves(len(spectra)), strict=True):
        components = np.arange(1, len(one.singular_values) + 1)
        label = f"{shortened(name, 30)}: {one.components_for(0.8)} components for 80 %"
        axes[0].plot(components, 100 * one.cumulative, color=colour, linewidth=1.8, label=label)
        label = f"{shortened(name, 30)}: effective rank {one.effective_rank:.1f} of {one.channels}"
        shares = one.singular_values / one.singular_values[0]
        axes[1].plot(components, np.maximum(shares, 1e-6), color=colour, linewidth=1.8, label=label)
    axes[0].axhline(80, color=QUIET, linewidth=0.8, linestyle=":")
    axes[0].set_ylim(0, 102)
    axes[0].set_ylabel("explained variance in %")
    axes[1].set_yscale("log")
    axes[1].set_ylabel("singular value / largest")
    for one_axes, place in zip(axes, ("lower right", "upper right"), strict=True):
        one_axes.set_xlabel("principal component")
        legend = one_axes.legend(loc=place, frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def clusters_picture(found: DaviesBouldin, names: Sequence[str], model: str = "", most: int = 24) -> Figure:
    """The classes that overlap most, each with the class that it overlaps with.

    Args:
        found: What :func:`davies_bouldin` found.
        names: Names of the classes by label.
        model: What to call the model.
        most: How many classes to show.
    """
    order = found.ratios.argsort(descending=True)[:most].tolist()
    height = _TITLE + 0.5 + 0.27 * len(order) + 0.75
    figure = new_figure(height)
    sheet = Sheet(figure, height, 0, height)
    _title(sheet, f"Davies-Bouldin index {found.index:.3f} over {len(found.ratios)} classes", model,
           "mean of: spread of a class and of the one it overlaps most with, over the distance of their centres; "
           "small is tight")  # fmt: skip
    axes = _plot(sheet, 5.2, _TITLE + 0.3, 6.2, 0.27 * len(order))
    pairs = [(names[int(found.classes[i])], names[int(found.nearest[i])]) for i in order]
    labels = [f"{shortened(one, 26)} and {shortened(other, 26)}" for one, other in pairs]
    axes.barh(range(len(order)), [float(found.ratios[i]) for i in order], color=COLOURS[6], height=0.62)
    axes.set_yticks(range(len(order)), labels)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.axvline(found.index, color=QUIET, linewidth=1, linestyle=":")
    axes.set_xlabel("ratio of the class (dotted: their mean, the index)")
    return figure


def _title(sheet: Sheet, title: str, model: str, explanation: str) -> None:
    sheet.text(MARGIN, 0.36, title, 15, INK, weight="bold")
    for line, text in enumerate(text for text in (model, explanation) if text):
        sheet.text(MARGIN, 0.68 + 0.22 * line, shortened(text, 130), 9.8, QUIET)


def _tile(sheet: Sheet, image: np.ndarray, left: float, top: float, side: float, colour: str, name: str,
          note: str = "") -> None:  # fmt: skip
    """An image in a square place, framed, with a name and a note below it."""
    from matplotlib.patches import Rectangle

    width, height = fitted(image, side, side)
    axes = sheet.image(image, left + (side - width) / 2, top + (side - height) / 2, width, height)
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=colour, linewidth=3.2, clip_on=False)
    )
    room = max(int(side / _CHARACTER), 4)
    first, rest = _broken(name, max(room - len(note) - 1, 4) if note else room)
    sheet.text(left, top + side + 0.14, first, 8.2, colour)
    if rest:
        sheet.text(left, top + side + 0.3, shortened(rest, room), 8.2, colour)
    if note:
        sheet.text(left + side, top + side + 0.14, note, 8.2, QUIET, ha="right")


def _broken(name: str, room: int) -> tuple[str, str]:
    """A name on two lines: what fits into the first, broken at a space, dash or underscore where there is one."""
    if len(name) <= room:
        return name, ""
    cut = max(name[:room].rfind(mark) for mark in " -_") + 1 or room
    return name[:cut], name[cut:]


def _plot(sheet: Sheet, left: float, top: float, width: float, height: float) -> Any:
    """Axes with two spines."""
    axes = sheet.axes(left, top, width, height, (1, 1))
    axes.set_axis_on()
    axes.set_xlim(auto=True)
    axes.set_ylim(auto=True)
    if axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    return axes


def _curves(count: int) -> list[str]:
    if count > len(COLOURS):
        raise FieldmarkError(f"{count} models in one plot; expected at most {len(COLOURS)}")
    return [COLOURS[6], COLOURS[2], COLOURS[3], COLOURS[5], COLOURS[0], COLOURS[1], COLOURS[7], COLOURS[4]][:count]


def _pixels(data: ImageStore, image: int) -> np.ndarray:
    return data.gather([int(image)])[0].permute(1, 2, 0).numpy()


def _name(data: ImageStore, image: int) -> str:
    return str(data.class_names[int(data.labels[int(image)])]).rsplit("/", 1)[-1]
