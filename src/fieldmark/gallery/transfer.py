"""A whole gallery as one zip file, and back.

In the zip: ``gallery.json`` (what made the descriptors; id, class and provenance of each photo),
``pictures/CLASS/ID.jpg`` and an array ``KIND.npy`` for each kind of descriptors. Nothing in it is executed when it is
read.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside
from fieldmark.gallery.enrolling import Enrolled, Known, read_described
from fieldmark.gallery.records import FACTS, Described, Header, Photo, check_class_name, make_rows
from fieldmark.gallery.table import Table

DESCRIPTION = "gallery.json"
_SPAN = 500
_MAX_DESCRIPTION = 1 << 30


def export(table: Table, path: str | os.PathLike[str]) -> dict[str, int]:
    """Write a gallery, see :meth:`fieldmark.gallery.Gallery.export`."""
    if Path(path).suffix.lower() != ".zip":
        raise FieldmarkError(f"{path} does not end in .zip; an export is a zip file")
    header = table.header
    assert header is not None
    rows = table.read(FACTS).select(list(FACTS)).to_pylist()
    photos = [Photo(**row) for row in rows]
    if not photos:
        raise FieldmarkError(f"gallery {table.uri} holds no photo; there is nothing to export")
    folders = _folders({photo.class_name for photo in photos})
    listed = [{**photo.to_dict(), "file": f"pictures/{folders[photo.class_name]}/{photo.id}.jpg"} for photo in photos]
    facts = {**header.to_dict(), "highest": table.highest(), "photos": listed}

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(DESCRIPTION, json.dumps(facts, ensure_ascii=False, indent=1), zipfile.ZIP_DEFLATED)
            for kind in header.shapes:
                _write_sets(archive, table, [photo.id for photo in photos], kind, header)
            for start in range(0, len(photos), _SPAN):
                part = [photo.id for photo in photos[start : start + _SPAN]]
                stored = table.read(["thumbnail"], f"id IN ({', '.join(map(str, part))})")
                for one, thumbnail in zip(listed[start : start + _SPAN], stored["thumbnail"].to_pylist(), strict=True):
                    archive.writestr(one["file"], thumbnail)

    write_beside(Path(path), write)
    return {"photos": len(photos), "classes": len(folders)}


def _write_sets(archive: zipfile.ZipFile, table: Table, ids: list[int], kind: str, header: Header) -> None:
    dtype = np.dtype(np.float32 if kind == "pooled" else np.float16).newbyteorder("<")
    head = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (len(ids), *header.shapes[kind]),
    }
    with archive.open(f"{kind}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, head)
        for start in range(0, len(ids), _SPAN):
            found = read_described(table, ids[start : start + _SPAN], [kind])
            file.write(np.stack([one.sets[kind] for _, one in found]).astype(dtype).tobytes())


def import_(table: Table, path: str | os.PathLike[str]) -> Enrolled:
    """Read a gallery, see :meth:`fieldmark.gallery.Gallery.import_`."""
    path = Path(path)
    if not path.is_file():
        raise FieldmarkError(f"no file at {path}; expected a zip that `fieldmark gallery export` wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            return _import(table, archive, str(path))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise FieldmarkError(f"{path} is no export of a gallery, or it is damaged ({error})") from None


def _import(table: Table, archive: zipfile.ZipFile, where: str) -> Enrolled:
    facts = _read_description(archive, where)
    header = Header.from_dict(facts, where)
    photos, files = _read_photos(facts, where)
    sets = {kind: _read_sets(archive, kind, len(photos), shape, where) for kind, shape in header.shapes.items()}

    def describe(i: int) -> Described:
        thumbnail = _member(archive, files[i], where)
        if not thumbnail.startswith(b"\xff\xd8"):
            raise FieldmarkError(f"{files[i]} in {where} is no JPEG; the export is damaged")
        return Described(
            thumbnail, photos[i].width, photos[i].height, {kind: np.asarray(found[i]) for kind, found in sets.items()}
        )

    with table.writing():
        table.check(header.identity, header.model)
        if not table.exists:
            rows = make_rows(photos, [describe(i) for i in range(len(photos))], header)
            used = max(max(photo.id, photo.class_id) for photo in photos)
            highest = facts.get("highest")
            table.create(rows, max(highest, used) if isinstance(highest, int) else used, header)
            names = list(dict.fromkeys(photo.class_name for photo in photos))
            return Enrolled(len(photos), classes=names, ids=[photo.id for photo in photos], version=table.version)
        return _join(table, photos, describe)


def _join(table: Table, photos: list[Photo], describe: Callable[[int], Described]) -> Enrolled:
    """Add photos to a gallery that has some: classes by name, new ids."""
    known = Known.of(table)
    new = [i for i, photo in enumerate(photos) if (photo.class_name, photo.sha256) not in known.ids]
    fresh = list(dict.fromkeys(photos[i].class_name for i in new if photos[i].class_name not in known.classes))
    if not new:
        return Enrolled(0, unchanged=len(photos), version=table.version)
    assert table.header is not None
    first = table.reserve(len(new) + len(fresh))
    classes = {**known.classes, **{name: first + i for i, name in enumerate(fresh)}}
    first += len(fresh)
    given = [
        Photo(**{**vars(photos[i]), "id": first + n, "class_id": classes[photos[i].class_name]})
        for n, i in enumerate(new)
    ]
    table.put(make_rows(given, [describe(i) for i in new], table.header), replacing=False)
    return Enrolled(
        len(new), unchanged=len(photos) - len(new), classes=fresh, ids=[one.id for one in given], version=table.version
    )


def _read_description(archive: zipfile.ZipFile, where: str) -> dict[str, Any]:
    if DESCRIPTION not in archive.namelist():
        raise FieldmarkError(f"{where} holds no {DESCRIPTION}; expected a zip that `fieldmark gallery export` wrote")
    if archive.getinfo(DESCRIPTION).file_size > _MAX_DESCRIPTION:
        raise FieldmarkError(f"{DESCRIPTION} in {where} unpacks to more than a gigabyte; refused")
    try:
        facts = json.loads(_member(archive, DESCRIPTION, where))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise FieldmarkError(f"{DESCRIPTION} in {where} cannot be read; the export is damaged")
    return facts


def _read_photos(facts: Mapping[str, Any], where: str) -> tuple[list[Photo], list[str]]:
    photos, files = [], []
    try:
        for row in facts["photos"]:
            values = {name: row[name] for name in FACTS}
            values["added"] = datetime.fromisoformat(row["added"])
            values["class_name"] = check_class_name(row["class_name"])
            numbers = [values[name] for name in ("id", "class_id", "width", "height")]
            if not all(isinstance(one, int) and 0 < one < 2**62 for one in numbers):
                raise ValueError("a number is out of range")
            if not re.fullmatch("[0-9a-f]{64}", values["sha256"]):
                raise ValueError("a hash is none")
            photos.append(Photo(**values))
            files.append(str(row["file"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FieldmarkError(f"{DESCRIPTION} in {where} is damaged: {error}") from None
    if not photos or len({photo.id for photo in photos}) != len(photos):
        raise FieldmarkError(f"{DESCRIPTION} in {where} is damaged: {'ids occur twice' if photos else 'no photos'}")
    return photos, files


def _read_sets(archive: zipfile.ZipFile, kind: str, count: int, shape: tuple[int, int], where: str) -> np.ndarray:
    size = count * shape[0] * shape[1] * (4 if kind == "pooled" else 2)
    if f"{kind}.npy" not in archive.namelist() or archive.getinfo(f"{kind}.npy").file_size > size + 4096:
        raise FieldmarkError(f"{where} holds no {kind} descriptors of {count} photos; the export is damaged")
    try:
        found = np.load(io.BytesIO(_member(archive, f"{kind}.npy", where)), allow_pickle=False)
    except ValueError:
        found = np.empty(0)
    if found.shape != (count, *shape) or found.dtype.kind != "f":
        raise FieldmarkError(f"{where} holds no {kind} descriptors of {count} photos; the export is damaged")
    return found


def _member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError:
        raise FieldmarkError(f"{where} holds no {name}; the export is damaged") from None
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise FieldmarkError(f"{name} in {where} cannot be read ({error}); the export is damaged") from None


def _folders(names: set[str]) -> dict[str, str]:
    """A folder name for each class, that every file system takes and that is no other class's.

    Example:
        >>> _folders({"a/b", "a:b", "tit"}) == {"a/b": "a_b", "a:b": "a_b~2", "tit": "tit"}
        True
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        plain = re.sub(r'[\\/:*?"<>|]', "_", name).strip(". ")[:120] or "_"
        folder, number = plain, 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{plain}~{number}"
        taken.add(folder.casefold())
        out[name] = folder
    return out
