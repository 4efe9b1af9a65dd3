"""What would make a gallery better: labels to check, copies, classes that need another photo, and what is confused.

Each photo is compared with its own class without it, and with the other classes. With --unlabelled, also which photos
without labels to label next: the least certain first, no two alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.cli.enroll import say
from fieldmark.cli.output import add_json_option, emit_json, print_table

if TYPE_CHECKING:
    from fieldmark.gallery.advice import Advice

EXAMPLE = "fieldmark coach --gallery birds --unlabelled inbox/ --csv advice.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
    parser.add_argument("--unlabelled", metavar="FOLDER", help="photos without labels: which of them to label next")
    parser.add_argument("--top", type=int, default=10, help="rows a table; default: 10 (the files hold all labels to "
                        "check, copies and classes)")  # fmt: skip
    parser.add_argument(
        "--sure", type=float, default=0.5,
        help="name a photo as mislabelled from this probability of a wrong label on; default: 0.5",
    )  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="write all advice as one table")
    parser.add_argument("--backbone", metavar="MODEL", help="where the gallery's model is now, if it was moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Give advice; status 1 if an unlabelled photo could not be read."""
    from fieldmark.gallery import Gallery
    from fieldmark.gallery.coach import coach

    gallery = Gallery.open(options.gallery)
    embedder = gallery.embedder(options.device, options.backbone) if options.unlabelled else None
    advice = coach(gallery, options.unlabelled, sure=options.sure, top=options.top, embedder=embedder)
    say(advice.problems, "fieldmark: ")
    if options.csv:
        advice.to_csv(options.csv)
    if not emit_json(options.json, advice.to_dict()):
        _print(advice, options.top)
        if options.csv:
            print(f"all of it in {options.csv}", file=sys.stderr)
    return 1 if advice.problems else 0


def _print(advice: Advice, top: int) -> None:
    from fieldmark.gallery.advice import box_text

    share = "" if advice.accuracy is None else f"; {advice.accuracy:.0%} of {advice.judged} recognised when left out"
    print(f"{advice.photos} photos of {advice.classes} classes{share}")
    _table(
        "Labels to check", ["photo", "class", "looks like", "sure", "nearest of that class", "file"],
        [
            (one.photo.id, one.photo.class_name, one.looks_like, f"{one.sure:.0%}", one.nearest.id, one.photo.path)
            for one in advice.mislabelled
        ], top, ["photo", "sure", "nearest of that class"],
    )  # fmt: skip
    _table(
        "Copies", ["photo", "class", "copy", "class of the copy", "", "file of the copy"],
        [
            (
                one.photo.id, one.photo.class_name, one.copy.id, one.copy.class_name,
                "same file" if one.same_file else f"{one.likeness:.3f} alike", one.copy.path,
            )
            for one in advice.duplicates
        ], top, ["photo", "copy"],
    )  # fmt: skip
    _table(
        "Classes that need another photo", ["class", "photos", "expected error", "why"],
        [(one.class_name, one.photos, f"{one.expected_error:.0%}", one.what()) for one in advice.needs], top,
        ["photos", "expected error"],
    )  # fmt: skip
    _table(
        "Classes that are confused", ["class", "with", "what", "photo", "like photo", "there"],
        [
            (
                row[1], row[4], one.what(), row[2], row[5],
                "" if one.part is None else box_text(one.part.other_box),
            )
            for one in advice.confusions for row in [one.row()]
        ], top, ["photo", "like photo"],
    )  # fmt: skip
    _table(
        "To label next", ["file", "looks like", "or", "margin"],
        [(Path(one.path), one.looks_like, one.or_like or "", f"{one.margin:.2f}") for one in advice.to_label], top,
        ["margin"],
    )  # fmt: skip


def _table(title: str, columns: list[str], rows: list[tuple], top: int, right: list[str]) -> None:
    if not rows:
        return
    more = f" ({top} of {len(rows)})" if len(rows) > top else ""
    print_table(title + more, columns, rows[:top], right=right)
