"""Where image files come from: a folder or a zip file, behind one interface."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark.data.images import decode_image
from fieldmark.errors import FieldmarkError
from fieldmark.progress import track

MAX_FILE_BYTES = 1 << 30
"""Files that unpack to more are refused."""


def is_hidden(name: str) -> bool:
    """Whether any part of a path is hidden or an archiver's left-over.

    Example:
        >>> is_hidden("__MACOSX/cat/._1.jpg"), is_hidden("cat/1.jpg")
        (True, False)
    """
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in name.split("/"))


class Source(ABC):
    """Files by name (relative, with forward slashes); hidden ones are left out."""

    path: Path

    @abstractmethod
    def names(self) -> list[str]:
        """All files, sorted."""

    @abstractmethod
    def folders(self) -> list[str]:
        """All folders, empty ones included, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file; FieldmarkError when there is none of that name or it cannot be read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when any file changes, made from names, sizes and times without reading the files."""

    def contents(self, names: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Per file a uint64 of its CRC-32 and size: equal for equal files, in a folder or a zip."""

        def digest(name: str) -> int:
            try:
                data = self.read(name)
            except FieldmarkError:
                return 0  # reported by the decoder, with all other unreadable files
            return content_digest(zlib.crc32(data), len(data))

        digests = np.zeros(len(names), np.uint64)
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
            values = pool.map(digest, names, chunksize=16)
            for i, value in enumerate(track(values, "reading files", total=len(names), show=progress)):
                digests[i] = value
        return digests

    def image(self, name: str) -> Image.Image:
        """The decoded RGB image of a file."""
        return decode_image(self.read(name), self.where(name))

    def where(self, name: str) -> str:
        """A file's name for messages."""
        return f"{self.path}/{name}"

    def text(self, name: str) -> str:
        """A text file's content; UTF-8 with or without mark, else Latin-1."""
        data = self.read(name)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")


class FolderSource(Source):
    """Files below a folder; linked folders are followed.

    Args:
        path: The folder.
        only: Take these files and look no further (None: all below the folder).
    """

    def __init__(self, path: str | os.PathLike[str], only: Iterable[str] | None = None) -> None:
        self.path = Path(path)
        self._only = None if only is None else sorted(set(only))
        self._walked: tuple[list[str], list[str], list[tuple[int, int, int]]] | None = None

    def names(self) -> list[str]:
        """All files, sorted."""
        return self._only if self._only is not None else self._walk()[0]

    def folders(self) -> list[str]:
        """All folders, empty ones included, sorted."""
        return self._walk()[1]

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        check_inside(name, str(self.path))
        try:
            file = self.path / name
            if file.stat().st_size > MAX_FILE_BYTES:
                raise FieldmarkError(f"{self.where(name)} is larger than {MAX_FILE_BYTES:,} bytes")
            return file.read_bytes()
        except OSError as error:
            raise FieldmarkError(f"{self.where(name)} cannot be read ({error.strerror})") from None

    def fingerprint(self) -> str:
        """A hash of what tells that the files are as before, without reading them."""
        if self._only is not None:
            names, stats = self._only, [_stat(self.path / name) for name in self._only]
        else:
            names, _, stats = self._walk()
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.path)))
        digest.update(os.fsencode("\0".join(names)))
        digest.update(np.array(stats, np.int64).tobytes())
        return digest.hexdigest()

    def _walk(self) -> tuple[list[str], list[str], list[tuple[int, int, int]]]:
        if self._walked is None:
            files: list[tuple[str, tuple[int, int, int]]] = []
            folders: list[str] = []
            seen: set[str] = set()
            todo = [("", str(self.path))]
            while todo:
                prefix, folder = todo.pop()
                real = os.path.realpath(folder)
                if real in seen:
                    continue
                seen.add(real)
                for entry in _scan(folder):
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        folders.append(prefix + entry.name)
                        todo.append((prefix + entry.name + "/", entry.path))
                    else:
                        files.append((prefix + entry.name, _stat(entry)))
            files.sort()
            self._walked = ([name for name, _ in files], sorted(folders), [stat for _, stat in files])
        return self._walked


class ZipSource(Source):
    """Files of a zip archive, read in place."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._opened: tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], list[str]] | None = None

    def names(self) -> list[str]:
        """All files, sorted."""
        return list(self._open()[1])

    def folders(self) -> list[str]:
        """All folders, empty ones included, sorted."""
        return self._open()[2]

    def read(self, name: str) -> bytes:
        """The content of a file."""
        archive, entries, _ = self._open()
        info = entries.get(name)
        if info is None:
            raise FieldmarkError(f"{self.where(name)} does not exist in the zip file")
        if info.file_size > MAX_FILE_BYTES:
            raise FieldmarkError(f"{self.where(name)} unpacks to more than {MAX_FILE_BYTES:,} bytes")
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, zlib.error) as error:
            raise FieldmarkError(f"{self.where(name)} cannot be read ({error})") from None

    def contents(self, names: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """CRC-32 and size of each file in 64 bits."""
        entries = self._open()[1]
        return np.array([content_digest(entries[name].CRC, entries[name].file_size) for name in names], np.uint64)

    def fingerprint(self) -> str:
        """A hash of what tells that the files are as before, without reading them."""
        facts = (os.path.realpath(self.path), *_stat(self.path))
        return hashlib.sha256(os.fsencode(repr(facts))).hexdigest()

    def where(self, name: str) -> str:
        """A file's name for messages."""
        return f"{self.path}!{name}"

    def _open(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], list[str]]:
        if self._opened is None:
            try:
                archive = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise FieldmarkError(f"{self.path} cannot be read as a zip file ({error})") from None
            entries: dict[str, zipfile.ZipInfo] = {}
            folders: set[str] = set()
            for info in archive.infolist():
                check_inside(info.filename, str(self.path))
                name = info.filename.rstrip("/")
                if is_hidden(name):
                    continue
                if info.is_dir():
                    folders.add(name)
                else:
                    entries[name] = info
                parent = name.rpartition("/")[0]
                while parent and parent not in folders:
                    folders.add(parent)
                    parent = parent.rpartition("/")[0]
            self._opened = (archive, dict(sorted(entries.items())), sorted(folders))
        return self._opened


class JoinedSource(Source):
    """Several sources as one; the files of each are below a folder of its name."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self.path = parts[0].path.parent
        self._parts: dict[str, Source] = {}
        for i, part in enumerate(parts):
            stem = part.path.stem
            self._parts[stem if stem not in self._parts else f"{stem}-{i}"] = part

    def names(self) -> list[str]:
        """All files, sorted."""
        return sorted(f"{stem}/{name}" for stem, part in self._parts.items() for name in part.names())

    def folders(self) -> list[str]:
        """All folders, empty ones included, sorted."""
        inner = [f"{stem}/{name}" for stem, part in self._parts.items() for name in part.folders()]
        return sorted([*self._parts, *inner])

    def read(self, name: str) -> bytes:
        """The content of a file."""
        part, inner = self._find(name)
        return part.read(inner)

    def contents(self, names: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """CRC-32 and size of each file in 64 bits."""
        digests = np.zeros(len(names), np.uint64)
        for stem, part in self._parts.items():
            here = [i for i, name in enumerate(names) if name.startswith(stem + "/")]
            digests[here] = part.contents([names[i][len(stem) + 1 :] for i in here], progress=progress)
        return digests

    def fingerprint(self) -> str:
        """A hash of what tells that the files are as before, without reading them."""
        return hashlib.sha256("".join(part.fingerprint() for part in self._parts.values()).encode()).hexdigest()

    def where(self, name: str) -> str:
        """A file's name for messages."""
        part, inner = self._find(name)
        return part.where(inner)

    def _find(self, name: str) -> tuple[Source, str]:
        stem, _, inner = name.partition("/")
        if stem not in self._parts:
            raise FieldmarkError(f"{self.path}/{name} does not exist")
        return self._parts[stem], inner


def open_source(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Source) -> Source:
    """Open a folder or zip file, or several of them as one.

    Args:
        path: One path, a list of paths, or a string of paths joined by the system's path separator (":").

    Raises:
        FieldmarkError: The path does not exist, or is a file that is no zip archive.

    Example:
        >>> open_source("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: no such file or folder: no/such/folder (looked for ...
    """
    if isinstance(path, Source):
        return path
    if isinstance(path, str) and os.pathsep in path and not os.path.exists(path):
        path = path.split(os.pathsep)
    if not isinstance(path, (str, os.PathLike)):
        return JoinedSource([open_source(part) for part in path])
    place = Path(path).expanduser()
    if place.is_dir():
        return FolderSource(place)
    if not place.exists():
        raise FieldmarkError(f"no such file or folder: {path} (looked for {Path(os.path.abspath(place))})")
    if zipfile.is_zipfile(place):
        return ZipSource(place)
    raise FieldmarkError(f"{path} is neither a folder nor a zip file; expected a folder or zip of images")


def check_inside(name: str, root: str) -> None:
    """Refuse a name that leads out of its folder or archive."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
        raise FieldmarkError(f"{root} names {name!r}, which lies outside of it; refused")


def content_digest(crc: int, size: int) -> int:
    """CRC-32 and size of a file in one 64-bit number."""
    return (crc & 0xFFFFFFFF) << 32 | (size & 0xFFFFFFFF)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise FieldmarkError(f"folder {folder} cannot be read ({error.strerror})") from None


def _stat(entry: os.DirEntry[str] | Path) -> tuple[int, int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a dangling link: its reading will say so
        return (-1, 0, 0)
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
