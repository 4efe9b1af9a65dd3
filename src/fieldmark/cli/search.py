"""The enrolled photos that are nearest to an image, with what they are."""

from __future__ import annotations

import argparse

from fieldmark.cli.output import add_json_option, emit_json, print_table

EXAMPLE = "fieldmark search new.jpg --gallery birds --rerank emd"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="any image file")
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
    parser.add_argument("--top", type=int, default=10, help="photos to show; default: 10")
    parser.add_argument("--rerank", metavar="HEAD", help="put the shortlist in order by this head: emd, local_knn ...")
    parser.add_argument("--shortlist", type=int, default=50, help="photos that --rerank compares; default: 50")
    parser.add_argument(
        "--mode", default="auto", help="exact, index, or auto: an index from 20,000 photos on (the default)"
    )
    parser.add_argument("--backbone", metavar="MODEL", help="where the gallery's model is now, if it was moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Search and print."""
    from fieldmark.gallery import Gallery

    gallery = Gallery.open(options.gallery)
    found = gallery.search(
        options.image, options.top, rerank=options.rerank, shortlist=options.shortlist, mode=options.mode,
        embedder=gallery.embedder(options.device, options.backbone),
    )  # fmt: skip
    report = {"image": options.image, "gallery": gallery.uri, "rerank": options.rerank,
              "found": [one.to_dict() for one in found]}  # fmt: skip
    if not emit_json(options.json, report):
        score = [] if options.rerank is None else [f"{options.rerank} score"]
        print_table(
            f"Nearest to {options.image}",
            ["", "class", "photo", "similarity", *score, "file"],
            [
                (
                    place, one.photo.class_name, one.photo.id, f"{one.similarity:.3f}",
                    *([] if one.score is None else [f"{one.score:.3f}"]), one.photo.path,
                )
                for place, one in enumerate(found, 1)
            ],
            right=["", "photo", "similarity", *score],
        )  # fmt: skip
    return 0
