"""Why two images are alike for a head, as a picture whose numbers add up to the score.

Of head emd: the strongest matches with their contributions, the query rebuilt from the support's patches (Fig. 6 of
DeepEMD) and all flows (Fig. 7). Of head spatial_alignment: where the images differ, heat maps before and after the
alignment (Figs. 3 and 4 of LSSA), foreground masks and correlation matrices (Fig. 5). With --gates: the maps of the
channels that API-Net's gates open in a pair (Fig. 3 of API-Net). With --parts: the parts that SSANET or NTS-Net looks
at, in any number of images (Figs. 5 to 7 of SSANET). QUERY and SUPPORT are any image files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fieldmark.cli import explain_alignment, explain_emd, explain_gates, explain_parts
from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.cli.tasks import note_given, refuse_others
from fieldmark.errors import FieldmarkError, unknown_name

EXAMPLE = "fieldmark explain query.jpg support.jpg --out matches.png"


class View(Protocol):
    """What the command has to know of a head: a module of this folder."""

    PARTS: tuple[str, ...]
    """Parts of its picture, in their order."""
    OPTIONS: tuple[str, ...]
    """Options that it alone takes."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its own options."""

    def check(self, options: argparse.Namespace) -> None:
        """Refuse what can be refused without a model."""

    def find(self, options: argparse.Namespace, model: Any, facts: dict[str, Any], **how: Any) -> Any:
        """What is to be drawn; it has ``to_dict()``. ``how`` is size and fit."""

    def drawable(self, found: Any) -> list[str]:
        """Parts that can be drawn of it."""

    def draw(self, found: Any, what: Sequence[str], options: argparse.Namespace) -> Any:
        """The figure."""

    def show(self, found: Any, what: Sequence[str], options: argparse.Namespace) -> None:
        """Print it as a table."""


VIEWS: dict[str, View] = {
    "emd": explain_emd, "spatial_alignment": explain_alignment, "gates": explain_gates, "parts": explain_parts,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    note_given(parser)
    parser.add_argument("query", metavar="QUERY", help="the image to explain")
    parser.add_argument(
        "support", metavar="SUPPORT", nargs="*", help="the image it is compared with; of --parts any more"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write: .png, .pdf or .svg")
    parser.add_argument(
        "--head", default="emd", metavar="NAME", help="emd (the default), spatial_alignment, gates or parts"
    )
    parts = "; ".join(f"of {name}: {', '.join(view.PARTS)}" for name, view in VIEWS.items())
    parser.add_argument("--what", metavar="PART[,PART...]", help=f"{parts}; default: all that can be drawn")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default="efficientnet_lite0", metavar="MODEL",
        help="run folder, model file, or name of a trained model or backbone; default: efficientnet_lite0",
    )  # fmt: skip
    model.add_argument("--size", type=int, help="pixels a side; default: what the model was made for")
    model.add_argument("--fit", help="how the images are brought to that size: crop, squash or pad")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    for view in VIEWS.values():
        view.add_arguments(parser)
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Explain and draw."""
    from fieldmark.cli.models import choose_device, find_model, image_size
    from fieldmark.explain import read_image, save_picture
    from fieldmark.explain.picture import format_of

    # What can be refused without a model is refused before one is loaded.
    format_of(options.out)
    if options.head not in VIEWS:
        raise unknown_name("head to explain", options.head, VIEWS)
    view = VIEWS[options.head]
    refuse_others("--head", options.head, options.given, {name: one.OPTIONS for name, one in VIEWS.items()})
    what = None if options.what is None else [part.strip() for part in options.what.split(",") if part.strip()]
    if what is not None:
        _check_parts(what, options.head)
    view.check(options)
    images = [options.query, *options.support]
    if options.head != "parts":
        if len(images) != 2:
            raise FieldmarkError(
                f"{len(images)} images given; expected two, QUERY and SUPPORT (--parts takes any number)"
            )
        options.support = options.support[0]
    _protect_images(options, images)
    for path in images:
        read_image(path)
    model, facts = find_model(options.model, choose_device(options.device))
    size = image_size(model, facts) if options.size is None else options.size
    fit = options.fit or (facts.get("manifest") or {}).get("fit") or "crop"
    found = view.find(options, model, facts, size=size, fit=fit)
    shown = view.drawable(found) if what is None else what
    save_picture(view.draw(found, shown, options), options.out)
    if not emit_json(options.json, {"out": options.out, "head": options.head, "what": shown, **found.to_dict()}):
        view.show(found, shown, options)
    return 0


def _check_parts(what: list[str], head: str) -> None:
    """Refuse parts that the head's picture does not have; those of another head are named with it."""
    from fieldmark.explain.picture import check_parts

    for part in what:
        for name, view in VIEWS.items():
            if part in view.PARTS and part not in VIEWS[head].PARTS:
                raise FieldmarkError(
                    f"{part} is a part of --head {name}; --head {head} has {', '.join(VIEWS[head].PARTS)}"
                )
    check_parts(what, VIEWS[head].PARTS)


def _protect_images(options: argparse.Namespace, images: Sequence[str]) -> None:
    """Refuse to write over an image, or the JSON over the picture."""
    written = [("--out", options.out)] + ([("--json", options.json)] if options.json not in (None, "-") else [])
    taken = list(images)
    for option, path in written:
        if any(_same_file(path, other) for other in taken):
            raise FieldmarkError(f"{option} {path} would overwrite another file of this command; choose another name")
        taken.append(path)


def _same_file(one: str, other: str) -> bool:
    return Path(os.path.realpath(one)) == Path(os.path.realpath(other))
