"""A gallery's classifier as a file that runs without fieldmark: ONNX (.onnx), or torch.export (.pt2).

The gallery is an input of the model, and is written beside it: FILE.npz has the enrolled photos' descriptors and
labels, FILE.json the class names, the calibration and how images are to be prepared. The model also gives the
descriptors of new photos, so classes can be added without exporting again. Nothing is written before the exported model
has been run and its scores compared with the classifier's.
"""

from __future__ import annotations

import argparse
import time

from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.cli.values import parse_options

EXAMPLE = "fieldmark export birds.onnx --gallery birds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="file to write; .onnx or .pt2")
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
    parser.add_argument(
        "--head", default="", metavar="NAME", help="head that decides (`fieldmark heads`); default: the classifier's"
    )
    parser.add_argument(
        "--head-option", action="append", default=[], metavar="KEY=VALUE", help="option of the head; may be repeated"
    )
    parser.add_argument("--backbone", metavar="MODEL", help="where the gallery's model is now, if it was moved")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Export."""
    from fieldmark.gallery import Gallery
    from fieldmark.gallery.portable import check_path, export_classifier

    started = time.perf_counter()
    check_path(options.file)
    gallery = Gallery.open(options.gallery)
    head = {"head": options.head} if options.head else {}
    classifier = gallery.classifier(
        gallery.embedder("cpu", options.backbone), head_options=parse_options("--head-option", options.head_option),
        **head,
    )  # fmt: skip
    done = export_classifier(classifier, options.file)
    files = [str(one) for one in done.files]
    report = {
        "gallery": gallery.uri, "files": files, "difference": done.difference, "description": done.facts,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    if not emit_json(options.json, report):
        print(
            f"{len(done.facts['classes'])} classes by head {classifier.head}: scores as the classifier's up to "
            f"{done.difference:.1g} ({report['seconds']:.0f} s)"
        )
        for one in done.files:
            print(f"{one}   {one.stat().st_size / 1e6:.1f} MB")
    return 0
