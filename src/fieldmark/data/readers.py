"""Which images there are and what class each belongs to: folders of class folders, and lists."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fieldmark.data.sources import FolderSource, Source
from fieldmark.errors import FieldmarkError

IMAGE_EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
        ".j2k",
        ".tga",
    }
)
"""Files with other extensions are ignored by `read_class_folders` (upper or lower case)."""

LIST_EXTENSIONS = (".csv", ".tsv", ".txt")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Top-level folders that are read as splits, when all top-level folders are among them."""

_PATH_COLUMNS = ("path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "name")
_CLASS_COLUMNS = ("label", "class", "class_name", "label_name", "category", "species", "target")


@dataclass(frozen=True)
class ImageRecord:
    """One image of a data set.

    Attributes:
        name: File name inside the source.
        class_name: Its class.
        box: (left, top, right, bottom) in pixels of what is to be cut out, if annotated.
        split: The data set's own split of images ("train", "test"), if it has one.
    """

    name: str
    class_name: str
    box: tuple[float, float, float, float] | None = None
    split: str = ""


def is_image_name(name: str) -> bool:
    """Whether a file name ends as image files do.

    Example:
        >>> is_image_name("a/b.JPG"), is_image_name("a/readme.txt")
        (True, False)
    """
    return PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS


def read_class_folders(source: Source, prefix: str | None = None) -> list[ImageRecord]:
    """One class for each top-level folder; images may lie deeper inside of it.

    A single wrapping folder (as zip files often have) is entered. When all top-level folders are named train, val or
    test, their folders are the classes and each image's split is recorded. Hidden files, ``__MACOSX`` and files that
    do not end as images do are ignored.

    Args:
        source: Folder or zip.
        prefix: Look below this folder ("images/"); None finds it.

    Returns:
        Records sorted by class, then by name.

    Raises:
        FieldmarkError: There is no class folder, or a class folder holds no image (named).
    """
    names, folders = source.names(), source.folders()
    if prefix is None:
        prefix = _unwrap(names, folders)
    inside = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    top = sorted({f[len(prefix) :].split("/")[0] for f in folders if f.startswith(prefix) and f != prefix[:-1]})
    if top and all(folder.lower() in SPLIT_FOLDERS for folder in top) and _nested(folders, prefix, top):
        records = []
        for folder in top:
            start = f"{prefix}{folder}/"
            classes = _children(folders, start)
            _refuse_empty(source, start, classes, inside, skip=len(folder) + 1)
            for name in inside:
                parts = name.split("/")
                if parts[0] == folder and len(parts) > 2 and is_image_name(name):
                    records.append(ImageRecord(prefix + name, parts[1], split=SPLIT_FOLDERS[folder.lower()]))
        return sorted(records, key=lambda record: (record.class_name, record.name))
    records = [ImageRecord(prefix + name, name.split("/")[0]) for name in inside if "/" in name and is_image_name(name)]
    if not top:
        loose = sum(is_image_name(name) for name in inside)
        found = f"{loose} images but no folders" if loose else "no folders"
        raise FieldmarkError(
            f"{source.path} holds {found}; expected one folder of images for each class (or a list file: path, label)"
        )
    _refuse_empty(source, prefix, top, inside)
    return sorted(records, key=lambda record: (record.class_name, record.name))


def read_list(source: Source, name: str) -> list[ImageRecord]:
    """Images and labels from a CSV, TSV or TXT file of the source: path, label; a header is optional.

    Columns are found by their header ("path" or "file", "label" or "class", optionally "split"), else the first is
    the path (relative to the list or to the source) and the second the label. In a text file without commas or tabs
    the label follows the last space.

    Raises:
        FieldmarkError: A line without label, a file that does not exist (first one named, with the count), or no line.
    """
    rows = _rows(source.text(name), name, source)
    where = source.where(name)
    if not rows:
        raise FieldmarkError(f"{where} lists no image; expected lines of: path, label")
    path_column, class_column, split_column = 0, 1, None
    head = [cell.strip().lower() for cell in rows[0][1]]
    if not is_image_name(rows[0][1][0].strip()) and any(cell in _PATH_COLUMNS for cell in head):
        path_column = next(i for i, cell in enumerate(head) if cell in _PATH_COLUMNS)
        found = [i for i, cell in enumerate(head) if cell in _CLASS_COLUMNS and i != path_column]
        if not found:
            raise FieldmarkError(f"{where} has no column for the class; expected a header like: path,label")
        class_column = found[0]
        split_column = head.index("split") if "split" in head else None
        rows = rows[1:]
    exists = _existence(source, PurePosixPath(name).parent)
    records, missing = [], []
    for number, row in rows:
        if len(row) <= max(path_column, class_column) or not row[class_column].strip():
            raise FieldmarkError(f"{where} line {number} has no label; expected: path, label")
        listed = row[path_column].strip()
        found_name = exists(listed)
        if found_name is None:
            missing.append(listed)
            continue
        split = row[split_column].strip() if split_column is not None and split_column < len(row) else ""
        records.append(ImageRecord(found_name, row[class_column].strip(), split=split))
    if missing:
        raise FieldmarkError(f"{where} lists {len(missing)} files that do not exist; the first is {missing[0]!r}")
    if not records:
        raise FieldmarkError(f"{where} lists no image; expected lines of: path, label")
    return sorted(records, key=lambda record: record.class_name)


def open_list(path: str | os.PathLike[str]) -> tuple[FolderSource, list[ImageRecord]]:
    """A list file on disk: the source of just the files that it lists, and its records.

    Raises:
        FieldmarkError: As `read_list`; also when the list names files outside of its folder.
    """
    place = Path(path)
    records = read_list(FolderSource(place.parent, only=[place.name]), place.name)
    return FolderSource(place.parent, only=[place.name, *(record.name for record in records)]), records


def find_list(source: Source) -> str | None:
    """The list file at the top of a source that has one: labels, list or images with extension .csv, .tsv or .txt."""
    top = [name for name in source.names() if "/" not in name and name.lower().endswith(LIST_EXTENSIONS)]
    named = [name for name in top if PurePosixPath(name).stem.lower() in ("labels", "list", "images")]
    if named:
        return named[0]
    no_folders = not any(is_image_name(name) and "/" in name for name in source.names())
    return top[0] if len(top) == 1 and no_folders else None


def _unwrap(names: Sequence[str], folders: Sequence[str]) -> str:
    """The prefix below which the class folders lie: enters folders that wrap everything."""
    prefix = ""
    while True:
        top = _children(folders, prefix)
        images = [name[len(prefix) :] for name in names if name.startswith(prefix) and is_image_name(name)]
        if len(top) != 1 or not images or min(name.count("/") for name in images) < 2:
            return prefix
        prefix += top[0] + "/"


def _children(folders: Sequence[str], prefix: str) -> list[str]:
    return [
        f[len(prefix) :] for f in folders if f.startswith(prefix) and f != prefix[:-1] and "/" not in f[len(prefix) :]
    ]


def _nested(folders: Sequence[str], prefix: str, top: Sequence[str]) -> bool:
    return all(_children(folders, f"{prefix}{folder}/") for folder in top)


def _refuse_empty(source: Source, prefix: str, classes: Sequence[str], inside: Sequence[str], skip: int = 0) -> None:
    head = prefix[len(prefix) - skip :]
    filled: Counter[str] = Counter()
    ignored: dict[str, list[str]] = {}
    for name in inside:
        if not name.startswith(head):
            continue
        first, slash, _ = name[len(head) :].partition("/")
        if slash and is_image_name(name):
            filled[first] += 1
        elif slash:
            ignored.setdefault(first, []).append(PurePosixPath(name).suffix or PurePosixPath(name).name)
    empty = [name for name in classes if not filled[name]]
    if empty:
        others = sorted(set(ignored.get(empty[0], [])))
        only = f" (only {', '.join(others[:5])} files, which are not images)" if others else ""
        more = f"; {len(empty)} of {len(classes)} classes are empty" if len(empty) > 1 else ""
        where = source.where(prefix + empty[0])
        raise FieldmarkError(f"class folder {where} holds no image{only}{more}: add images or remove the folder")


def _rows(text: str, name: str, source: Source) -> list[tuple[int, list[str]]]:
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        return []
    first = lines[0][1]
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in first), None)
    try:
        if delimiter is None:
            return [(i, line.rsplit(maxsplit=1)) for i, line in lines]
        return [(i, next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))) for i, line in lines]
    except csv.Error as error:
        raise FieldmarkError(f"{source.where(name)} cannot be read as a list ({error})") from None


def _existence(source: Source, folder: PurePosixPath) -> Callable[[str], str | None]:
    """A function from a listed path to the file's name in the source, or None."""
    root = os.path.abspath(source.path)
    known = frozenset() if isinstance(source, FolderSource) else frozenset(source.names())

    def find(listed: str) -> str | None:
        if os.path.isabs(listed) and os.path.abspath(listed).startswith(root + os.sep):
            listed = os.path.relpath(listed, root)
        listed = listed.replace("\\", "/").removeprefix("./")
        if ".." in listed.split("/") or listed.startswith("/"):
            raise FieldmarkError(f"{source.path}: the list names {listed!r}, which lies outside of its folder; refused")
        for candidate in (str(folder / listed), listed):
            if source.exists(candidate) if isinstance(source, FolderSource) else candidate in known:
                return candidate
        return None

    return find
