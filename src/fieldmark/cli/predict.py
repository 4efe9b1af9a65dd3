"""What images show: the class, how sure that is, the runner-up, or none of the enrolled classes; and why.

The confidence is calibrated on the enrolled photos, each left out in turn. "none of these" is the answer below a line
that was found in the same way.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.cli.enroll import add_classifier_options
from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.cli.values import parse_options
from fieldmark.errors import FieldmarkError

if TYPE_CHECKING:
    from fieldmark.gallery import FewShotClassifier, Prediction

EXAMPLE = "fieldmark predict new.jpg --gallery birds --explain why/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
    parser.add_argument("--top", type=int, default=5, help="classes that --json lists; default: 5")
    parser.add_argument("--explain", metavar="DIR", help="the reasons for each image: page, picture, JSON")
    parser.add_argument("--always", action="store_true", help="always name a class, never answer none of these")
    add_classifier_options(parser)
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Predict; status 1 if an image could not be read (the others are predicted)."""
    if options.top < 1:
        raise FieldmarkError(f"--top is {options.top}; expected at least 1")
    images = _expand(options.images)

    from fieldmark.gallery import Gallery  # takes seconds

    gallery = Gallery.open(options.gallery)
    embedder = gallery.embedder(options.device, options.backbone)
    head = {"head": options.head} if options.head else {}
    classifier = gallery.classifier(
        embedder, evidence=options.explain is not None, reject=not options.always,
        head_options=parse_options("--head-option", options.head_option), **head,
    )  # fmt: skip
    pictures = embedder.read(images, on_error="skip")
    for _, problem in pictures.problems:
        print(f"fieldmark: {problem}", file=sys.stderr)
    found: list[Prediction] = []
    if len(pictures):
        scores = classifier.score_descriptors(embedder.embed(pictures, [classifier.head_.descriptors]))
        found = classifier.answers(scores, max(2, options.top))
    pages = _explain(classifier, pictures.names, options.explain) if options.explain is not None else {}
    predictions = []
    for name, one in zip(pictures.names, found, strict=True):
        facts = one.to_dict()
        facts["top"] = facts["top"][: options.top]
        predictions.append({"image": name, **facts} | ({"explanation": pages[name]} if name in pages else {}))
    calibration = classifier.calibration_
    report = {
        "gallery": gallery.uri, "classes": len(classifier.classes_), "head": classifier.head,
        "calibration": None if calibration is None else calibration.to_dict(), "predictions": predictions,
        "problems": [{"image": images[at], "problem": problem} for at, problem in pictures.problems],
    }  # fmt: skip
    if not emit_json(options.json, report) and found:
        _print(pictures.names, found, classifier)
        if pages:
            print(f"reasons are in {options.explain}: for each image a page (.html), a picture (.png), numbers (.json)")
    return 1 if pictures.problems else 0


def _print(names: Sequence[str], found: Sequence[Prediction], classifier: FewShotClassifier) -> None:
    print_table(
        f"{len(classifier.classes_)} classes, head {classifier.head}",
        ["image", "answer", "confidence", "runner-up", ""],
        [
            (
                name, f"{one.label} (nearest: {one.top[0][0]})" if one.label != one.top[0][0] else one.label,
                f"{one.confidence:.0%}",
                *((one.top[1][0], f"{one.top[1][1]:.0%}") if len(one.top) > 1 else ("", "")),
            )
            for name, one in zip(names, found, strict=True)
        ],
        right=["confidence", ""],
    )  # fmt: skip
    calibration = classifier.calibration_
    if calibration is not None and calibration.basis == "strangers":
        print("note: hardly any class has two photos, so the confidence is a rule of thumb; enroll more to measure it")


def _explain(classifier: FewShotClassifier, names: Sequence[str], folder: str) -> dict[str, str]:
    """A page, a picture and the numbers for each image; returns where the pages are."""
    from fieldmark.explain import save_picture
    from fieldmark.files import write_json
    from fieldmark.progress import track

    if Path(folder).exists() and not Path(folder).is_dir():
        raise FieldmarkError(f"--explain {folder} is a file; expected a folder for the pages")
    pages: dict[str, str] = {}
    taken: set[str] = set()
    for name in track(names, "explaining"):
        stem = re.sub(r"[^\w.-]", "_", Path(name).stem)[:100] or "image"
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        found, target = classifier.explain(name), Path(folder) / free
        write_json(f"{target}.json", found.to_dict())
        save_picture(found.figure(), f"{target}.png")
        found.to_html(f"{target}.html")
        pages[name] = f"{target}.html"
    return pages


def _expand(paths: Sequence[str]) -> list[str]:
    """Files, and the image files in folders; each once."""
    from fieldmark.data.readers import is_image_name

    out: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            out.append(path)
            continue
        inside = sorted(str(one) for one in Path(path).iterdir() if one.is_file() and is_image_name(one.name))
        if not inside:
            raise FieldmarkError(f"folder {path} holds no image; give image files, or a folder of them")
        out += inside
    return list(dict.fromkeys(out))
