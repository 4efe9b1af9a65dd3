"""All parts on one sheet under a title, and the file they are written to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.flows import check_readable, draw_flows, flows_height
from fieldmark.explain.matching import Matching
from fieldmark.explain.overlay import check_top, draw_overlay, overlay_height
from fieldmark.explain.reconstruction import draw_reconstruction, reconstruction_height
from fieldmark.explain.sheet import INK, MARGIN, QUIET, Sheet, new_figure, shortened
from fieldmark.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    measure: dict[str, Callable[[Matching], float]] = {
        "overlay": lambda one: overlay_height(one, top),
        "reconstruction": reconstruction_height,
        "flows": flows_height,
    }
    draw: dict[str, Callable[[Sheet, Matching], None]] = {
        "overlay": lambda sheet, one: draw_overlay(sheet, one, top),
        "reconstruction": draw_reconstruction,
        "flows": draw_flows,
    }
    heights = {part: measure[part](matching) for part in what}
    total = _TITLE + sum(heights[part] for part in what)
    figure = new_figure(total)
    _draw_title(Sheet(figure, _TITLE, 0, total), matching)
    place = _TITLE
    for part in what:
        draw[part](Sheet(figure, heights[part], place, total), matching)
        place += heights[part]
    return figure


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


def check_parts(what: Sequence[str]) -> None:
    """Refuse an unknown part, with the nearest known one, and an empty picture."""
    if not what:
        raise FieldmarkError(f"a picture without parts; expected some of {', '.join(PARTS)}")
    for part in what:
        if part not in PARTS:
            raise unknown_name("part of the picture", part, PARTS)


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
    sheet.text(MARGIN, 0.36, f"Similarity by optimal matching: {matching.similarity:.3f} of at most {most:g}", 17, INK,
               weight="bold")  # fmt: skip
    names = f"query {shortened(matching.query_name, 44)}  ·  support {shortened(matching.support_name, 44)}"
    # Images that are no files have no names.
    lines = (
        [(how, QUIET)]
        if (matching.query_name, matching.support_name) == ("query", "support")
        else [(names, INK), (how, QUIET)]
    )
    for row, (line, colour) in enumerate(lines):
        sheet.text(MARGIN, 0.68 + 0.21 * row, line, 10.2, colour)
