"""`fieldmark explain IMAGE ... --parts`: the parts that a model by parts looks at, beside those of another one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmark.cli.output import print_table
from fieldmark.errors import FieldmarkError

PARTS: tuple[str, ...] = ("boxes", "pooling")
OPTIONS: tuple[str, ...] = ("--beside", "--key-points", "--part")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this picture."""
    group = parser.add_argument_group("parts (SSANET, NTS-Net)")
    group.add_argument(
        "--parts", action="store_const", dest="head", const="parts",
        help="boxes of the parts in any number of images; --model is a run folder or model file of ssanet or nts",
    )  # fmt: skip
    group.add_argument("--beside", metavar="MODEL", help="another such model, in the paper NTS-Net")
    group.add_argument(
        "--key-points", metavar="PATH", help="folder or archive of CUB-200-2011, for the key points of images from it"
    )
    group.add_argument("--part", type=int, default=1, help="the part whose histograms are drawn; default: 1")


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be drawn."""
    if options.part < 1:
        raise FieldmarkError(f"--part is {options.part}; expected at least 1")


def find(options: argparse.Namespace, model: Any, facts: dict[str, Any], **how: Any) -> Any:
    """Look at the images."""
    from fieldmark.backbones import Encoder
    from fieldmark.cli.models import find_model
    from fieldmark.explain.parts import parts

    if not isinstance(model, Encoder) or model.classifier is None:
        raise FieldmarkError(
            f"--model {options.model} brings no classifier; expected a run folder or model file of a training with "
            "ssanet or nts"
        )
    beside = None if options.beside is None else find_model(options.beside, model.device)[0]
    if beside is not None and (not isinstance(beside, Encoder) or beside.classifier is None):
        raise FieldmarkError(f"--beside {options.beside} brings no classifier; expected a model of ssanet or nts")
    paths = [options.query, *options.support]
    return parts(model, paths, beside=beside, key_points=_points(options, paths), **how)


def drawable(found: Any) -> list[str]:
    """Boxes; histograms only of a model with oriented pooling."""
    from fieldmark.explain.part_pictures import part_drawable

    return part_drawable(found)


def draw(found: Any, what: Sequence[str], options: argparse.Namespace) -> Any:
    """The picture."""
    from fieldmark.explain.part_pictures import part_picture

    return part_picture(found, what, options.part)


def show(found: Any, what: Sequence[str], options: argparse.Namespace) -> None:
    """Print the boxes."""
    rows = []
    for one in found.to_dict()["images"]:
        for name in ("beside", "model"):
            look = one[name]
            if look is None:
                continue
            boxes = look["aligned"] or look["proposed"]
            distances = look.get("aligned_point_distance") or look.get("proposed_point_distance")
            for number, box in enumerate(boxes):
                place = f"{box[0]:.0f}-{box[2]:.0f} x {box[1]:.0f}-{box[3]:.0f}"
                far = "" if distances is None else f"{distances[number]:.1f}"
                rows.append((one["name"], name, number + 1, place, far, look["prediction"]))
    print_table(
        f"{options.out}: parts, in pixels of the image as the model sees it",
        ["image", "model", "part", "box", "to key point", "prediction"],
        rows,
        right=["part", "to key point"],
    )


def _points(options: argparse.Namespace, paths: Sequence[str]) -> list[Any] | None:
    """The key points of images that lie in, or are named as those of, the data set."""
    if options.key_points is None:
        return None
    from fieldmark.evaluation.point_distance import read_key_points

    known = read_key_points(options.key_points)
    by_name = {Path(name).name: points for name, points in known.items()}
    found = [by_name.get(Path(path).name) for path in paths]
    if all(one is None for one in found):
        raise FieldmarkError(f"--key-points {options.key_points} has no key points of {Path(paths[0]).name}")
    return found
