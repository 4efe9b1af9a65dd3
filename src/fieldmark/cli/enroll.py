"""Photos of classes into a gallery; again to add classes or photos: only what is new or has changed is looked at.

FOLDER holds one folder of photos for each class; a zip of these or a list file (path, label) will do.

All of it is one change, done or not done. For very many photos --engine writes a shard at a time: a job that is killed
goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.errors import FieldmarkError

if TYPE_CHECKING:
    from fieldmark.gallery import Embedder, Gallery

EXAMPLE = "fieldmark enroll photos/ --gallery birds"
_SHOWN = 10  # warnings that are printed; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="FOLDER", help="folder of class folders, zip of these, or list file")
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery; made if there is none")
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of these photos, kept with each")
    parser.add_argument("--skip-bad", action="store_true", help="leave out photos that cannot be read, enroll the rest")
    bulk = parser.add_argument_group("very many photos")
    bulk.add_argument("--engine", metavar="NAME", help="write shard by shard; local: here, ray: by Ray Data's workers")
    bulk.add_argument("--shard", type=int, metavar="N", help="photos a shard; default: 256")
    bulk.add_argument("--bad-list", metavar="FILE", help="where bad photos are listed; default: GALLERY.bad.txt")
    add_model_options(parser)
    add_json_option(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what describes the photos."""
    model = parser.add_argument_group("model (of a new gallery; an old one keeps its own)")
    model.add_argument(
        "--backbone", metavar="MODEL",
        help="backbone's name, run folder or model file; default: the gallery's own, else efficientnet_lite0",
    )  # fmt: skip
    model.add_argument("--size", type=int, help="pixels a side; default: what the model was made for")
    model.add_argument("--fit", help="how photos are brought to that size: crop, squash or pad; default: crop")
    model.add_argument("--descriptors", metavar="NAME", help="local descriptors; default: dense, or the model's own")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda ...")


def add_classifier_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what answers from a gallery."""
    parser.add_argument(
        "--head", default="", metavar="NAME", help="head that decides (`fieldmark heads`); default: the classifier's"
    )
    parser.add_argument(
        "--head-option", action="append", default=[], metavar="KEY=VALUE", help="option of the head; may be repeated"
    )
    parser.add_argument("--backbone", metavar="MODEL", help="where the gallery's model is now, if it was moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")


def run(options: argparse.Namespace) -> int:
    """Enroll."""
    start = time.perf_counter()
    if not os.path.exists(os.path.expanduser(options.folder)):  # said before anything is loaded
        raise FieldmarkError(f"no folder, zip or list file at {options.folder}; expected a folder of class folders")

    from fieldmark.gallery import BadPhotosError, Gallery

    for name in ("shard", "bad_list"):
        if options.engine is None and getattr(options, name) is not None:
            raise FieldmarkError(f"--{name.replace('_', '-')} belongs to --engine; give that as well: --engine local")
    gallery = Gallery.open(options.gallery, create=True)
    embedder, model = choose_embedder(options, gallery)
    if options.engine is not None:
        return _run_in_shards(options, gallery, embedder, model, start)
    try:
        done = gallery.enroll(
            options.folder, embedder=embedder, model=model, licence=options.licence,
            on_bad="skip" if options.skip_bad else "raise",
        )  # fmt: skip
    except BadPhotosError as error:
        say(error.problems, "fieldmark: ")
        raise
    classes = gallery.list()
    report = {
        "gallery": gallery.uri, **done.to_dict(), "seconds": time.perf_counter() - start,
        "photos": sum(one.photos for one in classes), "classes_in_all": len(classes),
    }  # fmt: skip
    say(done.skipped, "fieldmark: left out: ")
    say(done.warnings, "fieldmark: note: ")
    if not emit_json(options.json, report):
        print(
            f"{done.added} photos added, {done.changed} changed, {done.unchanged} unchanged, {len(done.skipped)} left "
            f"out; {len(done.classes)} new classes ({report['seconds']:.1f} s)"
        )
        print(f"gallery {gallery.uri} holds {report['photos']} photos of {len(classes)} classes")
    return 0


def _run_in_shards(options: argparse.Namespace, gallery: Gallery, embedder: Embedder, model: str, start: float) -> int:
    """Status 1 if photos were bad and that was not said to be fine."""
    from fieldmark.gallery.bulk import SHARD, enroll_in_shards

    done = enroll_in_shards(
        gallery, options.folder, embedder=embedder, model=model, licence=options.licence, engine=options.engine,
        shard=SHARD if options.shard is None else options.shard,
    )  # fmt: skip
    remote = "://" in gallery.uri
    listed = options.bad_list or ("bad.txt" if remote else f"{os.path.normpath(gallery.uri)}.bad.txt")
    done.write_bad(listed)
    classes = gallery.list()
    report = {
        "gallery": gallery.uri, "engine": options.engine, **done.to_dict(),
        "bad_list": listed if done.skipped else None, "seconds": time.perf_counter() - start,
        "photos": sum(one.photos for one in classes), "classes_in_all": len(classes),
    }  # fmt: skip
    say(done.warnings, "fieldmark: note: ")
    if done.skipped:
        print(f"fieldmark: {len(done.skipped)} photos cannot be used; they are listed in {listed}", file=sys.stderr)
    if not emit_json(options.json, report):
        print(
            f"{done.added} photos added in {done.shards} shards, {done.changed} changed, {done.unchanged} unchanged, "
            f"{len(done.skipped)} left out ({report['seconds']:.1f} s)"
        )
        print(f"gallery {gallery.uri} holds {report['photos']} photos of {len(classes)} classes")
    return 1 if done.skipped and not options.skip_bad else 0


def choose_embedder(options: argparse.Namespace, gallery: Gallery) -> tuple[Embedder, str]:
    """What the options ask for, else the gallery's own; and what to write down as its name."""
    header = gallery.header
    given = (options.backbone, options.size, options.fit, options.descriptors)
    if header is not None and given == (None, None, None, None):
        return gallery.embedder(options.device), header.model
    embedder, model = make_embedder(options, header.model if header else "efficientnet_lite0")
    gallery.check(embedder)
    return embedder, model


def make_embedder(options: argparse.Namespace, default: str) -> tuple[Embedder, str]:
    """What the options ask for, and what to write down as its name: of a file its whole path."""
    from fieldmark.gallery import Embedder

    name = options.backbone or default
    embedder = Embedder(name, options.size, options.fit, options.descriptors, device=options.device)
    return embedder, str(Path(name).resolve()) if Path(name).exists() else name


def say(lines: list[str], start: str) -> None:
    """Print the first lines on standard error, and how many more there are."""
    for line in lines[:_SHOWN]:
        print(f"{start}{line}", file=sys.stderr)
    if len(lines) > _SHOWN:
        print(f"{start}... and {len(lines) - _SHOWN} more (--json FILE lists all)", file=sys.stderr)
