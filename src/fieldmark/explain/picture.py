"""All parts on one sheet under a title, and the file they are written to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.flows import check_readable, draw_flows, flows_height
from fieldmark.explain.matching import Matching
from fieldmark.explain.overlay import check_top, draw_overlay, overlay_height
from fieldmark.explain.reconstruction import draw_reconstruction, reconstruction_height
from fieldmark.explain.sheet import INK, MARGIN, QUIET, Sheet, new_figure, shortened
from fieldmark.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Part = tuple[Callable[[T], float], Callable[[Sheet, T], None]]
"""Of a part of a picture: how many inches it takes, and what draws it."""

PARTS = ("overlay", "reconstruction", "flows")
FORMATS = ("png", "pdf", "svg")
_TITLE = 1.05
_DPI = 130


def picture(matching: Matching, what: Sequence[str] = PARTS, top: int = 8) -> Figure:
    """Parts below each other under a title that names backbone, similarity and variant.

    Args:
        matching: What :func:`fieldmark.explain.match` found.
        what: Parts to draw, in this order: ``"overlay"`` (strongest matches), ``"reconstruction"`` (Fig. 6 of
            DeepEMD) and ``"flows"`` (Fig. 7).
        top: Matches drawn by the overlay.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`save_picture`.

    Raises:
        FieldmarkError: For an unknown part, a ``top`` out of range, or more cells than the flows can show.
    """
    check_parts(what)
    check_top(top)
    if "flows" in what:
        check_readable(matching)
    parts: dict[str, Part[Matching]] = {
        "overlay": (lambda one: overlay_height(one, top), lambda sheet, one: draw_overlay(sheet, one, top)),
        "reconstruction": (reconstruction_height, draw_reconstruction),
        "flows": (flows_height, draw_flows),
    }
    return stacked(matching, [parts[part] for part in what], _draw_title)


def stacked(found: T, parts: Sequence[Part[T]], draw_title: Callable[[Sheet, T], None]) -> Figure:
    """Parts below each other under a title.

    Args:
        found: What is drawn.
        parts: Of each part its height in inches and what draws it on its sheet.
        draw_title: Draws the title on a sheet of its own.
    """
    heights = [height(found) for height, _ in parts]
    total = _TITLE + sum(heights)
    figure = new_figure(total)
    draw_title(Sheet(figure, _TITLE, 0, total), found)
    place = _TITLE
    for (_, draw), height in zip(parts, heights, strict=True):
        draw(Sheet(figure, height, place, total), found)
        place += height
    return figure


def draw_lines(sheet: Sheet, title: str, names: tuple[str, str], how: str) -> None:
    """A title, the names of the two images where they are files, and a line on how it was made."""
    sheet.text(MARGIN, 0.36, title, 17, INK, weight="bold")
    lines = [(how, QUIET)]
    if names != ("query", "support"):  # images that are no files have no names
        query, support = (shortened(name, 44) for name in names)
        lines.insert(0, (f"query {query}  ·  support {support}", INK))
    for row, (line, colour) in enumerate(lines):
        sheet.text(MARGIN, 0.68 + 0.21 * row, line, 10.2, colour)


def save_picture(figure: Figure, path: str | Path, dpi: int = _DPI) -> Path:
    """Write a figure as PNG, PDF or SVG, by the file's suffix; beside and renamed, so never half a file.

    Args:
        figure: From :func:`picture` or one of the parts.
        path: The file.
        dpi: Pixels an inch, of a PNG.

    Raises:
        FieldmarkError: Another suffix, or a place that cannot be written.
    """
    import matplotlib

    kind = format_of(path)
    # Without the time of writing, the same picture is the same file.
    metadata = {"png": None, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with matplotlib.rc_context({"svg.hashsalt": "fieldmark"}), warnings.catch_warnings():
        # A file's name may hold letters that the font lacks; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        return write_beside(path, lambda file: figure.savefig(file, format=kind, dpi=dpi, metadata=metadata))


def format_of(path: str | Path) -> str:
    """The format that a file's suffix asks for.

    Example:
        >>> format_of("a/b.PDF")
        'pdf'
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise FieldmarkError(f"cannot write a picture to {path}; expected a name that ends in .png, .pdf or .svg")
    return suffix


def check_parts(what: Sequence[str], known: Sequence[str] = PARTS) -> None:
    """Refuse an unknown part, with the nearest known one, and an empty picture."""
    if not what:
        raise FieldmarkError(f"a picture without parts; expected some of {', '.join(known)}")
    for part in what:
        if part not in known:
            raise unknown_name("part of the picture", part, known)


def _draw_title(sheet: Sheet, matching: Matching) -> None:
    facts = matching.facts
    most = facts["temperature"]
    rows, columns = matching.query_grid
    whole = matching.query_nodes.tiled and len(matching.flow) == rows * columns
    count = f"{rows} × {columns}" if whole else f"{len(matching.flow)} nodes"
    height, width = facts["size"]
    how = (
        f"{facts['backbone']} at {width} × {height} pixels  ·  {facts['descriptors']} descriptors, {count}  ·  "
        f"{facts['weights'].replace('_', '-')} weights  ·  variant {facts['variant']}"
    )
    title = f"Similarity by optimal matching: {matching.similarity:.3f} of at most {most:g}"
    draw_lines(sheet, title, (matching.query_name, matching.support_name), how)
