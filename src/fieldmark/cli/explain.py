"""Which places of two images match, and what each match adds to their similarity, as a picture.

The picture holds the strongest matches with their contributions, the query rebuilt from the support's patches (Fig. 6
of DeepEMD) and all flows (Fig. 7). QUERY and SUPPORT are any image files.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import FieldmarkError

EXAMPLE = "fieldmark explain query.jpg support.jpg --out matches.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("query", metavar="QUERY", help="the image to explain")
    parser.add_argument("support", metavar="SUPPORT", help="the image it is compared with")
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write: .png, .pdf or .svg")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default="efficientnet_lite0", metavar="MODEL",
        help="run folder, model file or backbone name; default: efficientnet_lite0",
    )  # fmt: skip
    model.add_argument("--size", type=int, help="pixels a side; default: what the model was made for")
    model.add_argument("--fit", help="how the images are brought to that size: crop, squash or pad")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    matching = parser.add_argument_group("matching")
    matching.add_argument(
        "--descriptors",
        metavar="NAME",
        help="dense, feature_pyramid, grid or sampling; default: those that the model was trained with, else dense",
    )
    matching.add_argument("--descriptor-option", action="append", default=[], metavar="KEY=VALUE", help="of these")
    matching.add_argument("--weights", default="cross_reference", help="cross_reference (the default) or equal")
    matching.add_argument("--variant", default="code", help="code (the default) or paper")
    drawing = parser.add_argument_group("picture")
    drawing.add_argument(
        "--what", metavar="PART[,PART...]", help="overlay, reconstruction, flows; default: all that can be read"
    )
    drawing.add_argument("--top", type=int, default=8, metavar="N", help="matches that the overlay draws")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Match and draw."""
    from fieldmark import explain
    from fieldmark.explain.overlay import check_top
    from fieldmark.explain.picture import check_parts, format_of

    # What can be refused without a model is refused before one is loaded.
    format_of(options.out)
    what = None if options.what is None else [part.strip() for part in options.what.split(",") if part.strip()]
    if what is not None:
        check_parts(what)
    check_top(options.top)
    _protect_images(options)
    found = _match(options)
    shown = list(what or explain.PARTS)
    if what is None and not explain.is_readable(found):
        shown.remove("flows")
    explain.save_picture(explain.picture(found, shown, options.top), options.out)
    if not emit_json(options.json, {"out": options.out, "what": shown, **found.to_dict()}):
        _print(found, options)
        if what is None and "flows" not in shown:
            rows, columns = found.query_grid
            print(f"Note: all flows are left out; {rows} x {columns} cells are too many to be read (--size).")
    return 0


def _match(options: argparse.Namespace) -> Any:
    from fieldmark.cli.evaluate import parse_options
    from fieldmark.cli.models import choose_device, choose_extractor, find_model, image_size
    from fieldmark.explain import match, read_image

    chosen = parse_options("--descriptor-option", options.descriptor_option)
    for path in (options.query, options.support):
        read_image(path)
    model, facts = find_model(options.model, choose_device(options.device))
    extractor = choose_extractor(options.descriptors, chosen, facts)
    size = image_size(model, facts) if options.size is None else options.size
    return match(
        model, options.query, options.support, size=size,
        fit=options.fit or (facts.get("manifest") or {}).get("fit") or "crop",
        descriptors=extractor, weights=options.weights, variant=options.variant,
    )  # fmt: skip


def _protect_images(options: argparse.Namespace) -> None:
    """Refuse to write over an image, or the JSON over the picture."""
    written = [("--out", options.out)] + ([("--json", options.json)] if options.json not in (None, "-") else [])
    taken = [options.query, options.support]
    for option, path in written:
        if any(_same_file(path, other) for other in taken):
            raise FieldmarkError(f"{option} {path} would overwrite another file of this command; choose another name")
        taken.append(path)


def _same_file(one: str, other: str) -> bool:
    return Path(os.path.realpath(one)) == Path(os.path.realpath(other))


def _print(found: Any, options: argparse.Namespace) -> None:
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


def _place(node: int, nodes: Any, columns: int) -> str:
    """Row and column of a cell, counted from 1; other nodes by their box."""
    first = int(nodes.cells.flat[0])
    if nodes.tiled and node >= first:
        return f"row {(node - first) // columns + 1}, column {(node - first) % columns + 1}"
    left, top, right, bottom = nodes.boxes[node]
    return f"{left:.0f}-{right:.0f} x {top:.0f}-{bottom:.0f} px"
