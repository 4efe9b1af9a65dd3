"""`fieldmark explain --head emd`: which places match, and what each match adds to the similarity."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fieldmark.cli.output import print_table
from fieldmark.cli.values import parse_options

PARTS: tuple[str, ...] = ("overlay", "reconstruction", "flows")
OPTIONS: tuple[str, ...] = ("--descriptors", "--descriptor-option", "--weights", "--variant", "--top")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this head."""
    matching = parser.add_argument_group("head emd")
    matching.add_argument(
        "--descriptors",
        metavar="NAME",
        help="dense, feature_pyramid, grid or sampling; default: those that the model was trained with, else dense",
    )
    matching.add_argument("--descriptor-option", action="append", default=[], metavar="KEY=VALUE", help="of these")
    matching.add_argument("--weights", default="cross_reference", help="cross_reference (the default) or equal")
    matching.add_argument("--variant", default="code", help="code (the default) or paper")
    matching.add_argument("--top", type=int, default=8, metavar="N", help="matches that the overlay draws")


def check(options: argparse.Namespace) -> None:
    """Refuse a number of matches that cannot be drawn, and descriptor options that are none."""
    from fieldmark.explain.overlay import check_top

    check_top(options.top)
    parse_options("--descriptor-option", options.descriptor_option)


def find(options: argparse.Namespace, model: Any, facts: dict[str, Any], **how: Any) -> Any:
    """Match the two images."""
    from fieldmark.cli.models import choose_extractor
    from fieldmark.explain import match

    chosen = parse_options("--descriptor-option", options.descriptor_option)
    extractor = choose_extractor(options.descriptors, chosen, facts)
    return match(
        model, options.query, options.support, descriptors=extractor, weights=options.weights,
        variant=options.variant, **how,
    )  # fmt: skip


def drawable(found: Any) -> list[str]:
    """All parts; the flows only of few enough cells."""
    from fieldmark.explain import is_readable

    return [part for part in PARTS if part != "flows" or is_readable(found)]


def draw(found: Any, what: Sequence[str], options: argparse.Namespace) -> Any:
    """The picture of the matches."""
    from fieldmark.explain import picture

    return picture(found, what, options.top)


def show(found: Any, what: Sequence[str], options: argparse.Namespace) -> None:
    """Print the strongest matches."""
    pairs = found.pairs()
    columns = found.query_grid[1], found.support_grid[1]
    rows = []
    for i, j in pairs[: options.top]:
        added = float(found.contributions[i, j])
        share = found.share(added)
        rows.append((
            _place(i, found.query_nodes, columns[0]), _place(j, found.support_nodes, columns[1]),
            f"{found.cosine[i, j]:.3f}", f"{found.flow[i, j]:.3f}", f"{added:.4f}",
            "" if share is None else f"{100 * share:.1f} %",
        ))  # fmt: skip
    title = (
        f"{options.out}: similarity {found.similarity:.4f} (at most {found.facts['temperature']:g}), "
        f"the strongest {len(rows)} of {len(pairs)} matches"
    )
    names = ["query", "support", "cosine", "flow", "adds", "share"]
    print_table(title, names, rows, right=names[2:])
    if options.what is None and "flows" not in what:
        height, width = found.query_grid
        print(f"Note: all flows are left out; {height} x {width} cells are too many to be read (--size).")


def _place(node: int, nodes: Any, columns: int) -> str:
    """Row and column of a cell, counted from 1; other nodes by their box."""
    first = int(nodes.cells.flat[0])
    if nodes.tiled and node >= first:
        return f"row {(node - first) // columns + 1}, column {(node - first) % columns + 1}"
    left, top, right, bottom = nodes.boxes[node]
    return f"{left:.0f}-{right:.0f} x {top:.0f}-{bottom:.0f} px"
