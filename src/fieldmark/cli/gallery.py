"""Look into a gallery and change it; each change is whole or has not happened, whenever the program is killed."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from fieldmark.cli.enroll import add_model_options, make_embedder, say
from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import FieldmarkError

if TYPE_CHECKING:
    from fieldmark.gallery import Gallery

EXAMPLE = "fieldmark gallery list --gallery birds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        one = actions.add_parser(
            name, help=text, description=text, allow_abbrev=False,
            epilog=f"example:  fieldmark gallery {name} {example} --gallery birds".replace("  --", " --"),
        )  # fmt: skip
        one.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
        add_json_option(one)
        return one

    one = add("list", "classes with their numbers of photos", "")
    one.add_argument("--photos", action="store_true", help="each photo, with its id and file")
    one.add_argument("--class", dest="class_name", metavar="NAME", help="only the photos of this class")
    one = add("remove", "remove classes or single photos", "'coal tit'")
    one.add_argument("classes", nargs="*", metavar="CLASS", help="names of classes")
    one.add_argument("--photo", type=int, nargs="+", default=[], metavar="ID", help="ids of photos (list --photos)")
    one = add("rename", "give a class another name", "tit 'blue tit'")
    one.add_argument("old", metavar="OLD", help="its name now")
    one.add_argument("new", metavar="NEW", help="its new name")
    one = add("merge", "put the photos of classes into another class", "'blue tits' bluetit --into 'blue tit'")
    one.add_argument("classes", nargs="+", metavar="CLASS", help="names of classes that end")
    one.add_argument("--into", required=True, metavar="CLASS", help="the class that gets their photos")
    one = add("move", "put single photos into another class, new or old", "17 18 --into 'coal tit'")
    one.add_argument("photos", type=int, nargs="+", metavar="ID", help="ids of photos (list --photos)")
    one.add_argument("--into", required=True, metavar="CLASS", help="name of the class")
    one = add("export", "write all into one zip: pictures, descriptors, ids, provenance", "birds.zip")
    one.add_argument("file", metavar="FILE", help="zip file to write")
    one = add("import", "add what export wrote", "birds.zip")
    one.add_argument("file", metavar="FILE", help="zip file to read")
    one = add("reembed", "describe all photos anew, with another model", "--backbone conv4")
    one.add_argument(
        "--missing", default="raise", metavar="WHAT",
        help="where a photo's file is gone: raise (the default), thumbnail (describe the stored picture) or drop",
    )  # fmt: skip
    add_model_options(one)
    one = add("compact", "merge small files, drop old versions and leftovers of killed processes", "")
    one.add_argument(
        "--all", action="store_true", help="old versions of any age: removed photos are gone from the disk for good"
    )


def run(options: argparse.Namespace) -> int:
    """Do it, and say what was done."""
    from fieldmark.gallery import Gallery

    gallery = Gallery.open(options.gallery, create=options.action == "import")
    if options.action == "list":
        return _list(gallery, options)
    text, report = _ACTIONS[options.action](gallery, options)
    if not emit_json(options.json, {"gallery": gallery.uri, "action": options.action, **report}):
        print(text)
    return 0


def _list(gallery: Gallery, options: argparse.Namespace) -> int:
    if options.photos or options.class_name is not None:
        photos = gallery.photos(options.class_name)
        if not emit_json(options.json, [photo.to_dict() for photo in photos]):
            print_table(
                f"Photos of {gallery.uri}",
                ["photo", "class", "size", "enrolled", "licence", "file"],
                [
                    (one.id, one.class_name, f"{one.width} x {one.height}", _day(one.added), one.licence, one.path)
                    for one in photos
                ],
                right=["photo"],
            )
        return 0
    classes, header = gallery.list(), gallery.header
    report = {
        "gallery": gallery.uri, "version": gallery.version, "photos": sum(one.photos for one in classes),
        "classes": [one.to_dict() for one in classes], "header": None if header is None else header.to_dict(),
    }  # fmt: skip
    if emit_json(options.json, report):
        return 0
    print_table(
        f"Gallery {gallery.uri}",
        ["id", "class", "photos", "last enrolled", "licences"],
        [(one.id, one.name, one.photos, _day(one.added), ", ".join(one.licences)) for one in classes],
        right=["id", "photos"],
    )
    print(f"{report['photos']} photos with thumbnails, {len(classes)} classes")
    if header is not None:
        made = header.identity
        print(
            f"model {header.model} (weights {made.weights[:12]}), {made.size[0]} x {made.size[1]} pixels, fit "
            f"{made.fit}, {made.descriptors} descriptors {' x '.join(map(str, header.shapes['local']))}"
        )
    return 0


def _remove(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if not options.classes and not options.photo:
        raise FieldmarkError("nothing to remove; name classes, or photos by --photo ID")
    count = gallery.remove(options.classes, options.photo)
    return f"{count} photos removed; {len(gallery.list())} classes are left", {"photos": count}


def _rename(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    gallery.rename(options.old, options.new)
    return f"class {options.old!r} is now {options.new.strip()!r}", {"old": options.old, "new": options.new.strip()}


def _merge(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    count = gallery.merge(options.classes, options.into)
    return f"{count} photos put into class {options.into!r}", {"photos": count, "into": options.into}


def _move(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    gallery.move(options.photos, options.into)
    count = len(set(options.photos))
    return f"{count} photos put into class {options.into.strip()!r}", {"photos": count, "into": options.into.strip()}


def _export(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    counts = gallery.export(options.file)
    return f"{counts['photos']} photos of {counts['classes']} classes written to {options.file}", dict(counts)


def _import(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    done = gallery.import_(options.file)
    text = f"{done.added} photos added, {done.unchanged} were there already; {len(done.classes)} new classes"
    return text, done.to_dict()


def _reembed(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    embedder, model = make_embedder(options, gallery.filled().model)
    counts = gallery.reembed(embedder, model, missing=options.missing)
    if counts["dropped"]:
        say([f"{counts['dropped']} photos were dropped, since their files are gone"], "fieldmark: note: ")
    text = f"{counts['files']} photos described anew from their files, {counts['thumbnails']} from stored pictures"
    return text, dict(counts)


def _compact(gallery: Gallery, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from fieldmark.gallery.table import KEEP

    gallery.compact(datetime.timedelta(0) if options.all else KEEP)
    return f"gallery {gallery.uri} is tidied up", {"version": gallery.version}


_ACTIONS = {
    "remove": _remove, "rename": _rename, "merge": _merge, "move": _move, "export": _export, "import": _import,
    "reembed": _reembed, "compact": _compact,
}  # fmt: skip


def _day(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")
