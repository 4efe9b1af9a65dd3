"""What is to be enrolled: photos of a folder, a zip, a list file or from memory, each with its class and a hash."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fieldmark.data.images import decode_image
from fieldmark.data.layouts.folders import open_folder
from fieldmark.data.readers import ImageRecord, find_list, is_image_name, read_class_folders, read_list
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.pictures import as_inputs, name_of, open_picture
from fieldmark.gallery.records import check_class_name
from fieldmark.progress import track

Content = bytes | Image.Image | np.ndarray


class BadPhotosError(FieldmarkError):
    """Photos that cannot be used; nothing was changed.

    Attributes:
        problems: One line for each.
    """

    def __init__(self, problems: Sequence[str], total: int) -> None:
        self.problems = list(problems)
        super().__init__(
            f"{len(problems)} of {total} photos cannot be used, the first: {problems[0]}; nothing was changed: repair "
            "or remove them, or leave them out with --skip-bad"
        )


@dataclass(frozen=True)
class Incoming:
    """A photo to be enrolled.

    Attributes:
        name: What to call it in messages.
        path: Where its file lies, for the record; "" when there is none.
        class_name: Its class.
        read: Gives the file's bytes, or the picture where there is no file.
    """

    name: str
    path: str
    class_name: str
    read: Callable[[], Content] = field(repr=False)

    def load(self) -> tuple[str, Content]:
        """Hash and content.

        Raises:
            FieldmarkError: The file cannot be read.
        """
        try:
            content = self.read()
        except (OSError, ValueError) as error:
            if isinstance(error, FieldmarkError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise FieldmarkError(f"{self.name} cannot be read ({reason})") from None
        return hash_of_content(content, self.name), content

    def decode(self, content: Content) -> Image.Image:
        """The picture, upright 8-bit RGB.

        Raises:
            FieldmarkError: It cannot be read as an image.
        """
        return decode_image(content, self.name) if isinstance(content, bytes) else open_picture(content, self.name)


def hash_of_content(content: Content, name: str = "image") -> str:
    """SHA-256 of a file's bytes, or of the size and pixels of a picture.

    Example:
        >>> pixels = np.zeros((2, 3, 3), np.uint8)
        >>> hash_of_content(pixels) == hash_of_content(Image.fromarray(pixels)) != hash_of_content(pixels[:1])
        True
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    picture = open_picture(content, name)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def collect(photos: Any, labels: Any = None) -> tuple[list[Incoming], list[str]]:
    """Photos with their classes, and what the user should know of them.

    Args:
        photos: A folder of class folders, a zip of these, or a list file (path, label); or with ``labels`` a list of
            whatever :func:`~fieldmark.gallery.pictures.read_pictures` takes.
        labels: A class for each, or one for all.

    Raises:
        FieldmarkError: No photos, or labels that do not fit them.
    """
    if labels is None:
        if not isinstance(photos, str | os.PathLike):
            raise FieldmarkError("photos without labels; give a class for each: enroll(photos, labels)")
        return _from_folder(photos)
    items = as_inputs(photos)
    labels = [labels] * len(items) if isinstance(labels, str) else list(labels)
    if len(labels) != len(items):
        raise FieldmarkError(f"{len(items)} photos but {len(labels)} labels; expected one for each photo")
    if not items:
        raise FieldmarkError("there is no photo to enroll; expected at least one")
    return [_from_input(item, i, label) for i, (item, label) in enumerate(zip(items, labels, strict=True))], []


def _from_input(item: Any, position: int, label: object) -> Incoming:
    name = name_of(item, position)
    if isinstance(item, str | os.PathLike):
        path = os.path.abspath(item)
        return Incoming(name, path, check_class_name(label), Path(path).read_bytes)
    return Incoming(name, "", check_class_name(label), lambda: item)


def _from_folder(place: str | os.PathLike[str]) -> tuple[list[Incoming], list[str]]:
    source = open_folder(place)
    warnings: list[str] = []
    records = getattr(source, "records", None)
    if records is None:
        listed = find_list(source)
        records = read_list(source, listed) if listed else _read_classes(source, warnings)
    splits = {record.split for record in records} - {""}
    if "train" in splits and len(splits) > 1:
        kept = [record for record in records if record.split in ("", "train")]
        warnings.append(f"{place} is split into {', '.join(sorted(splits))}; only the {len(kept)} of train are taken")
        records = kept
    base = os.path.abspath(source.path)
    inside_file = os.path.isfile(base)
    out = []
    for record in records:
        path = f"{base}!{record.name}" if inside_file else os.path.join(base, *record.name.split("/"))
        read = _reader(source, record.name)
        out.append(Incoming(source.where(record.name), path, check_class_name(record.class_name), read))
    return out, warnings


def _reader(source: Source, name: str) -> Callable[[], bytes]:
    return lambda: source.read(name)


class _Filled(Source):
    """A source without the folders that hold no image."""

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.where = source.where  # type: ignore[method-assign]
        self._source = source
        filled = {"/".join(name.split("/")[:depth]) for name in source.names() if is_image_name(name)
                  for depth in range(1, name.count("/") + 1)}  # fmt: skip
        self.empty = [folder for folder in source.folders() if folder not in filled]
        self._folders = [folder for folder in source.folders() if folder in filled]

    def names(self) -> list[str]:
        return self._source.names()

    def folders(self) -> list[str]:
        return self._folders

    def read(self, name: str) -> bytes:
        return self._source.read(name)

    def fingerprint(self) -> str:
        return self._source.fingerprint()


def _read_classes(source: Source, warnings: list[str]) -> list[ImageRecord]:
    filled = _Filled(source)
    records = read_class_folders(filled)
    inner = {os.path.dirname(os.path.dirname(record.name)) for record in records}
    for folder in filled.empty:
        # Only where classes lie: an empty folder inside a class folder means nothing.
        if os.path.dirname(folder) in inner:
            warnings.append(f"class folder {source.where(folder)} holds no image; it is left out")
    return records


def hash_all(
    photos: Sequence[Incoming], *, progress: bool = True
) -> tuple[list[tuple[Incoming, str]], list[tuple[Incoming, str]]]:
    """Photos with their hashes, and those that cannot be read with the reason."""
    good, bad = [], []
    for photo in track(photos, "reading photos", show=progress):
        try:
            good.append((photo, photo.load()[0]))
        except FieldmarkError as error:
            bad.append((photo, str(error)))
    return good, bad


def copies(hashed: Iterable[tuple[Incoming, str]], known: Iterable[tuple[str, str]]) -> list[str]:
    """Lines about photos that are in more than one class.

    Args:
        hashed: Photos with their hashes.
        known: Class name and hash of photos in the gallery.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for name, sha in known:
        classes[sha].add(name)
    example: dict[str, str] = {}
    for photo, sha in hashed:
        classes[sha].add(photo.class_name)
        example.setdefault(sha, photo.name)
    return [
        f"{example[sha]} is in {len(names)} classes: {', '.join(sorted(names))}; one of the labels is wrong, or the "
        "photo shows both"
        for sha, names in classes.items()
        if len(names) > 1 and sha in example
    ]
