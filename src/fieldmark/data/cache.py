"""The decoded images on disk: built beside and renamed, found again by the content of the files they came from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.images import Fit, Interpolation, fit_image
from fieldmark.data.readers import ImageRecord
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError
from fieldmark.files import cannot_write, write_json
from fieldmark.progress import track

FORMAT = 1
"""Part of every key: raise it when decoding or the files' layout changes."""

_BLOCK = 64
# Below this mean size of a file, one thread decodes faster than several: what is done per file holds the
# interpreter's lock (60,000 images of 32 pixels, 2 cores: 1 thread 7,100, 2 threads 5,300 images a second).
_TINY_FILE = 6_000

Boxes = tuple[float, float, float, float]


@dataclass
class Stored:
    """A store's parts.

    Attributes:
        images: uint8 (N, H, W, 3), mapped.
        labels: int64 (N,).
        digests: uint64 (N,), CRC-32 and size of each file.
        splits: int16 (N,) into ``split_names``.
        class_names: By label.
        names: File names.
        split_names: The data set's own splits of images.
        skipped: (name, reason) of files that could not be decoded.
        place: Folder it was read from, if any.
    """

    images: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    splits: np.ndarray
    class_names: list[str]
    names: list[str]
    split_names: list[str]
    skipped: tuple[tuple[str, str], ...] = ()
    place: Path | None = None

    def __reduce__(self) -> Any:
        # A mapped store is reopened in the other process instead of being sent through a pipe.
        if self.place is not None:
            return (open_stored, (self.place,))
        return (Stored, tuple(getattr(self, name) for name in self.__dataclass_fields__))


def cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    """The folder for stores: the argument, else FIELDMARK_CACHE, else ~/.cache/fieldmark."""
    return Path(cache or os.environ.get("FIELDMARK_CACHE") or "~/.cache/fieldmark").expanduser()


def open_or_build(
    source: Source,
    records: Sequence[ImageRecord],
    *,
    size: tuple[int, int],
    fit: Fit,
    interpolation: Interpolation,
    folder: Path,
    workers: int | None = None,
    progress: bool = True,
) -> Stored:
    """The store of these records: from ``folder`` if it is there, else decoded and put there.

    Concurrent builders of the same store wait for the first; one that is killed leaves only a partial folder, which
    the next builder removes.
    """
    digests = source.contents([record.name for record in records], progress=progress)
    facts = [FORMAT, size, fit, interpolation, [(r.name, r.class_name, r.box, r.split) for r in records]]
    key = hashlib.sha256(json.dumps(facts).encode() + digests.astype("<u8").tobytes()).hexdigest()[:32]
    place = folder / "stores" / key
    if (place / "store.json").exists():
        return open_stored(place)
    with _locked(folder / "stores" / f".{key}.lock"):
        if not (place / "store.json").exists():
            _clear_partial(place)
            _build(source, records, digests, place, size, fit, interpolation, workers, progress)
    return open_stored(place)


def open_stored(place: str | os.PathLike[str]) -> Stored:
    """Map a store's folder into memory.

    Raises:
        FieldmarkError: It is not whole (someone else changed it).
    """
    place = Path(place)
    try:
        facts = json.loads((place / "store.json").read_text("utf-8"))
        arrays = {name: np.load(place / f"{name}.npy") for name in ("labels", "digests", "splits")}
        count, height, width = facts["shape"]
        images = place / "images.bin"
        if images.stat().st_size != count * height * width * 3 or len(arrays["labels"]) != count:
            raise ValueError("sizes do not agree")
        mapped = np.memmap(images, np.uint8, "r", shape=(count, height, width, 3)) if count else _none(height, width)
    except (OSError, ValueError, KeyError) as error:
        raise FieldmarkError(f"image store {place} is damaged ({error}); remove that folder and try again") from None
    skipped = tuple((name, reason) for name, reason in facts["skipped"])
    return Stored(
        mapped, **arrays, class_names=facts["class_names"], names=facts["names"],
        split_names=facts["split_names"], skipped=skipped, place=place,
    )  # fmt: skip


def recall(folder: Path, request: str) -> Stored | None:
    """The store that answered the same request before, if it is still there."""
    try:
        key = json.loads((folder / "requests" / f"{request}.json").read_text("utf-8"))["store"]
        return open_stored(folder / "stores" / key)
    except (OSError, ValueError, KeyError, FieldmarkError):
        return None


def remember(folder: Path, request: str, stored: Stored) -> None:
    """Note which store answered a request, so that the next one need not read the files."""
    if stored.place is not None:
        write_json(folder / "requests" / f"{request}.json", {"store": stored.place.name})


def _none(height: int, width: int) -> np.ndarray:
    return np.zeros((0, height, width, 3), np.uint8)


def _build(
    source: Source,
    records: Sequence[ImageRecord],
    digests: np.ndarray,
    place: Path,
    size: tuple[int, int],
    fit: Fit,
    interpolation: Interpolation,
    workers: int | None,
    progress: bool,
) -> None:
    _require_room(place.parent, len(records) * size[0] * size[1] * 3)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        skipped: list[tuple[str, str]] = []
        kept: list[int] = []
        workers = workers or _default_workers(digests)
        blocks = _decoded(source, records, size, fit, interpolation, workers)
        count = -(-len(records) // _BLOCK)
        with open(partial / "images.bin", "wb") as file:
            for start, images, reasons in track(blocks, "decoding", step=_BLOCK, total=count * _BLOCK, show=progress):
                file.write(images.tobytes())
                stop = min(start + _BLOCK, len(records))
                skipped += [(records[i].name, reasons[i]) for i in range(start, stop) if i in reasons]
                kept += [i for i in range(start, stop) if i not in reasons]
            file.flush()
            os.fsync(file.fileno())
        _write_facts(partial, records, digests, kept, skipped, size)
        os.rename(partial, place)
    except OSError as error:
        if not (place / "store.json").exists():  # else another builder was faster, without a common lock
            raise cannot_write(place, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decoded(
    source: Source,
    records: Sequence[ImageRecord],
    size: tuple[int, int],
    fit: Fit,
    interpolation: Interpolation,
    workers: int,
) -> Iterator[tuple[int, np.ndarray, dict[int, str]]]:
    """Blocks in order: number of the first record, readable images, reasons of the others."""

    def decode(start: int) -> tuple[int, np.ndarray, dict[int, str]]:
        images, reasons = [], {}
        for i in range(start, min(start + _BLOCK, len(records))):
            record = records[i]
            try:
                images.append(fit_image(source.image(record.name), size, fit, record.box, interpolation))
            except FieldmarkError as error:
                where = source.where(record.name)
                reasons[i] = str(error) if where in str(error) else f"{where}: {error}"
        return start, np.stack(images) if images else _none(*size), reasons

    starts = iter(range(0, len(records), _BLOCK))
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[int, np.ndarray, dict[int, str]]]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(decode, start))
                if len(waiting) > 2 * workers:  # bounds the memory, however slow the disk is
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _write_facts(
    partial: Path,
    records: Sequence[ImageRecord],
    digests: np.ndarray,
    kept: Sequence[int],
    skipped: Sequence[tuple[str, str]],
    size: tuple[int, int],
) -> None:
    class_names = list(dict.fromkeys(record.class_name for record in records))
    split_names = list(dict.fromkeys(record.split for record in records))
    label = {name: i for i, name in enumerate(class_names)}
    split = {name: i for i, name in enumerate(split_names)}
    np.save(partial / "labels.npy", np.array([label[records[i].class_name] for i in kept], np.int64))
    np.save(partial / "splits.npy", np.array([split[records[i].split] for i in kept], np.int16))
    np.save(partial / "digests.npy", digests[np.asarray(kept, np.int64)])
    facts = {
        "format": FORMAT,
        "shape": [len(kept), *size],
        "class_names": class_names,
        "names": [records[i].name for i in kept],
        "split_names": split_names,
        "skipped": list(skipped),
    }
    (partial / "store.json").write_text(json.dumps(facts), "utf-8")


def _default_workers(digests: np.ndarray) -> int:
    mean_bytes = float((digests & np.uint64(0xFFFFFFFF)).mean()) if len(digests) else 0.0
    return 1 if mean_bytes < _TINY_FILE else max(1, os.cpu_count() or 1)


def _require_room(folder: Path, needed: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise cannot_write(folder, error) from None
    if free < needed:
        raise FieldmarkError(
            f"the disk is full: {folder} needs {needed / 1e9:.2f} GB for decoded images and has {free / 1e9:.2f} GB; "
            "free some space or set FIELDMARK_CACHE to a folder with room"
        )


def _clear_partial(place: Path) -> None:
    """Remove what killed builders of this store left behind; called with the lock held."""
    for old in place.parent.glob(f".{place.name}.*.partial"):
        shutil.rmtree(old, ignore_errors=True)
    if place.exists():  # never made by us: stores appear whole
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time; the system frees the lock of a killed one. Without locks: rename decides."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "wb")  # noqa: SIM115
    except OSError as error:
        raise cannot_write(path, error) from None
    with file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
