"""`fieldmark explain --head spatial_alignment`: how a support image is aligned to the query, and where they differ."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fieldmark.cli.output import print_table
from fieldmark.cli.values import parse_options

PARTS: tuple[str, ...] = ("contributions", "heat_maps", "foreground", "correlations")
OPTIONS: tuple[str, ...] = ("--head-option", "--heat")
_ROWS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this head."""
    head = parser.add_argument_group("head spatial_alignment")
    head.add_argument(
        "--head-option", action="append", default=[], metavar="KEY=VALUE",
        help="of the head: temperature=0.05, distance=pooled ...; default: those that it was trained with, else the "
        "correspondence alone at a low temperature",
    )  # fmt: skip
    head.add_argument(
        "--heat", default="maximum",
        help="of a place in heat maps: its largest channel (maximum, the default) or the length of its vector (norm)",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Refuse options that the head does not take, and heat maps of another kind."""
    from fieldmark import heads
    from fieldmark.explain.align import check_heat

    check_heat(options.heat)
    heads.create("spatial_alignment", **_options(options))


def find(options: argparse.Namespace, model: Any, facts: dict[str, Any], **how: Any) -> Any:
    """Align the support to the query."""
    from fieldmark.explain import align

    return align(model, options.query, options.support, heat=options.heat, **how, **_options(options))


def drawable(found: Any) -> list[str]:
    """All parts; masks only where there are some."""
    from fieldmark.explain import drawable as parts_of

    return parts_of(found)


def draw(found: Any, what: Sequence[str], options: argparse.Namespace) -> Any:
    """The picture of the alignment."""
    from fieldmark.explain import alignment_picture

    return alignment_picture(found, what)


def show(found: Any, what: Sequence[str], options: argparse.Namespace) -> None:
    """Print the places that differ most."""
    from fieldmark.explain import parts_in_words

    record = found.to_dict()
    columns = found.grid[1]
    rows = []
    for one in record["places"][:_ROWS]:
        source = one.get("takes_most_from")
        rows.append((
            _place(one["place"], columns), "" if source is None else _place(source, columns),
            "" if source is None else f"{one['weight']:.3f}",
            *(f"{value:.3f}" for value in one["cosine"].values()),
            f"{one['contribution']:.4g}", "" if one["share"] is None else f"{100 * one['share']:.1f} %",
        ))  # fmt: skip
    title = (
        f"{options.out}: score {found.score:.4g} ({parts_in_words(found.facts)}), "
        f"the {len(rows)} of {len(record['places'])} places that differ most"
    )
    stages = {"support": "cosine before", "correspondence": "after LSC", "manipulation": "after SSM"}
    names = ["query", "takes most from", "weight", *(stages[stage] for stage in found.correlations), "adds", "share"]
    print_table(title, names, rows, right=names[2:])


def _options(options: argparse.Namespace) -> dict[str, Any]:
    return parse_options("--head-option", options.head_option)


def _place(node: int, columns: int) -> str:
    return f"row {node // columns + 1}, column {node % columns + 1}"
