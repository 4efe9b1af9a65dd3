"""All views of a spatial alignment on one sheet under a title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fieldmark.explain.alignment import Alignment
from fieldmark.explain.contributions import contributions_height, draw_contributions
from fieldmark.explain.correlations import correlations_height, draw_correlations
from fieldmark.explain.heat_maps import (
    check_masks,
    draw_foreground,
    draw_heat_maps,
    foreground_height,
    heat_maps_height,
)
from fieldmark.explain.picture import Part, check_parts, draw_lines, stacked
from fieldmark.explain.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALIGNMENT_PARTS = ("contributions", "heat_maps", "foreground", "correlations")

_DRAWN: dict[str, Part[Alignment]] = {
    "contributions": (contributions_height, draw_contributions),
    "heat_maps": (heat_maps_height, draw_heat_maps),
    "foreground": (foreground_height, draw_foreground),
    "correlations": (correlations_height, draw_correlations),
}


def alignment_picture(alignment: Alignment, what: Sequence[str] | None = None) -> Figure:
    """Parts below each other under a title that names backbone, distance and the parts of the head.

    Args:
        alignment: What :func:`fieldmark.explain.align` found.
        what: Parts to draw, in this order: ``"contributions"`` (where the two differ), ``"heat_maps"`` (Figs. 3 and 4
            of LSSA), ``"foreground"`` (masks, eq. 2) and ``"correlations"`` (Fig. 5). Default: all that there are.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.

    Raises:
        FieldmarkError: For an unknown part, or masks where there are none.
    """
    what = drawable(alignment) if what is None else what
    check_parts(what, ALIGNMENT_PARTS)
    if "foreground" in what:
        check_masks(alignment)
    return stacked(alignment, [_DRAWN[part] for part in what], _draw_title)


def drawable(alignment: Alignment) -> list[str]:
    """The parts that can be drawn: masks only where there are some."""
    return [part for part in ALIGNMENT_PARTS if part != "foreground" or alignment.masks]


def parts_in_words(facts: dict[str, Any]) -> str:
    """What the head is made of, for a title.

    Example:
        >>> options = {"foreground": "full", "correspondence": True, "reduce": False, "manipulation": False}
        >>> parts_in_words({"trained_head": False, "head_options": {**options, "temperature": 0.1}})
        'FOE (full), LSC without g (temperature 0.1), not trained'
    """
    options = facts["head_options"]
    words = []
    if options["foreground"] != "none":
        words.append(f"FOE ({options['foreground']})")
    if options["correspondence"]:
        how = "with" if options["reduce"] else "without"
        words.append(f"LSC {how} g (temperature {options['temperature']:g})")
    if options["manipulation"]:
        words.append("SSM")
    return ", ".join([*(words or ["no alignment"]), "trained" if facts["trained_head"] else "not trained"])


def _draw_title(sheet: Sheet, alignment: Alignment) -> None:
    facts = alignment.facts
    rows, columns = alignment.grid
    height, width = facts["size"]
    distance = facts["head_options"]["distance"].replace("_", " ")
    how = (
        f"{facts['backbone']} at {width} × {height} pixels, map {rows} × {columns}  ·  {parts_in_words(facts)}  ·  "
        f"distance {distance}"
    )
    # A score is minus the distance, times a factor that is 1 unless it was chosen.
    title = f"Distance after spatial alignment: {abs(alignment.score):.4g}"
    draw_lines(sheet, title, (alignment.query_name, alignment.support_name), how)
