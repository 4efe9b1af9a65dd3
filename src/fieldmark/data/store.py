"""Any data set as one array of 8-bit images: decoded once, kept on disk, mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fieldmark.data import cache as _cache
from fieldmark.data.images import Fit, Interpolation, as_size, check_fit
from fieldmark.data.manifest import Manifest
from fieldmark.data.readers import ImageRecord
from fieldmark.data.sources import Source, content_digest
from fieldmark.errors import FieldmarkError, unknown_name

if TYPE_CHECKING:
    import torch

OnError = Literal["raise", "skip"]


class ImageStore:
    """Images, labels and class names of a data set or of a part of it.

    Made by `build` (from files), `from_arrays`, `fieldmark.data.load`, or as a view of another store
    (`subset`, `select_classes`). Views share the images.

    Attributes:
        class_names: Names by label.
        labels: int64 (N,), values 0 to len(class_names) - 1.

    Example:
        >>> images = np.zeros((3, 8, 8, 3), np.uint8)
        >>> store = ImageStore.from_arrays(images, [0, 1, 1], ["cat", "dog"], Manifest("pets"))
        >>> store.class_counts().tolist(), tuple(store.gather([2, 0]).shape)
        ([1, 2], (2, 3, 8, 8))
        >>> store.select_classes(["dog"]).labels.tolist()
        [0, 0]
    """

    def __init__(self, part: _cache.Stored, manifest: Manifest, index: np.ndarray | None = None) -> None:
        """Use the constructors named above; this one takes the parts as they are stored."""
        self._part = part
        self._facts = manifest
        self._index = index
        self.class_names: list[str] = part.class_names
        self.labels: np.ndarray = part.labels if index is None else part.labels[index]

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
        manifest: Manifest,
        names: Sequence[str] | None = None,
    ) -> ImageStore:
        """A store of images that are in memory.

        Args:
            images: uint8 (N, H, W, 3).
            labels: (N,) whole numbers from 0 to len(class_names) - 1.
            class_names: Names by label, each once.
            manifest: Facts; size, counts and checksums are filled in.
            names: A name for each image; default: its number.

        Raises:
            FieldmarkError: Wrong type, shape or channel count, or labels that do not fit.
        """
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise FieldmarkError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape (N, height, width, 3)"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise FieldmarkError(f"labels have shape {labels.shape}; expected {len(images)} whole numbers")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(class_names)):
            raise FieldmarkError(
                f"labels go from {labels.min()} to {labels.max()}; there are {len(class_names)} classes"
            )
        if len(set(class_names)) != len(class_names):
            raise FieldmarkError("a class name is given twice; expected each once")
        names = [str(i) for i in range(len(images))] if names is None else list(names)
        rows = np.ascontiguousarray(images).reshape(len(images), -1)
        digests = np.array([content_digest(zlib.crc32(row.data), row.size) for row in rows], np.uint64)
        splits = np.zeros(len(images), np.int16)
        part = _cache.Stored(images, labels.astype(np.int64), digests, splits, list(class_names), names, [""], ())
        return cls(part, replace(manifest, size=images.shape[1:3]))

    @classmethod
    def build(
        cls,
        source: Source,
        records: Sequence[ImageRecord],
        *,
        size: int | tuple[int, int],
        fit: Fit = "crop",
        interpolation: Interpolation = "bicubic",
        cache: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        progress: bool = True,
        on_error: OnError = "raise",
        manifest: Manifest | None = None,
    ) -> ImageStore:
        """Decode images once and keep them on disk; the same contents are found again, wherever they lie.

        Args:
            source: Where the files are.
            records: Which images; labels follow the order in which classes appear.
            size: Side or (height, width) of the stored images.
            fit: How images are brought to that size (`fieldmark.data.images.fit_image`).
            interpolation: Filter of the resize.
            cache: Folder to keep stores in; default: the environment's FIELDMARK_CACHE, else ~/.cache/fieldmark.
            workers: Threads; default by the machine and the size of the files.
            progress: Show a bar (on a terminal, over two seconds).
            on_error: "raise" refuses unreadable files (after all were tried, naming the first and the count);
                "skip" leaves them out and lists them in the manifest.
            manifest: Facts; size, fit, counts and checksums are filled in.

        Raises:
            FieldmarkError: No records, unreadable files, a class of which no image is readable, or no disk space.
        """
        if on_error not in ("raise", "skip"):
            raise unknown_name("on_error", on_error, ("raise", "skip"))
        check_fit(fit, interpolation)
        if not records:
            raise FieldmarkError(f"{source.path} holds no image for this data set")
        stored = _cache.open_or_build(
            source,
            records,
            size=as_size(size),
            fit=fit,
            interpolation=interpolation,
            folder=_cache.cache_folder(cache),
            workers=workers,
            progress=progress,
        )
        return cls.from_stored(stored, manifest or Manifest(source.path.stem), fit, interpolation, on_error)

    @classmethod
    def from_stored(
        cls, stored: _cache.Stored, manifest: Manifest, fit: str, interpolation: str, on_error: OnError = "raise"
    ) -> ImageStore:
        """A store of what the cache holds; see `build` for ``on_error``."""
        refuse_unreadable(stored, on_error)
        height, width = stored.images.shape[1:3]
        return cls(
            stored,
            replace(
                manifest,
                size=(height, width),
                fit=fit,
                interpolation=interpolation,
                skipped=tuple(name for name, _ in stored.skipped),
            ),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        height, width = self._part.images.shape[1:3]
        return (
            f"ImageStore({self._facts.name!r}, split={self._facts.split!r}, {len(self)} images of {height} x {width}, "
            f"{len(self.class_names)} classes)"
        )

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, H, W, 3); mapped from disk for a whole store, copied for a view (prefer `gather`)."""
        return self._part.images if self._index is None else self._part.images[self._index]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = self._part.images.shape[1:3]
        return height, width

    @cached_property
    def names(self) -> list[str]:
        """File name of each image."""
        everyone = self._part.names
        return everyone if self._index is None else [everyone[i] for i in self._index]

    @cached_property
    def splits(self) -> np.ndarray:
        """(N,) the data set's own split of each image ("train", "test"); empty text where it has none."""
        chosen = self._part.splits if self._index is None else self._part.splits[self._index]
        return np.array(self._part.split_names)[chosen]

    @cached_property
    def manifest(self) -> Manifest:
        """The facts of this data, with counts and checksums of exactly these images."""
        digests = self._part.digests if self._index is None else self._part.digests[self._index]
        return replace(
            self._facts,
            classes=len(self.class_names),
            images=len(self),
            class_checksum=hashlib.sha256("\0".join(self.class_names).encode("utf-8", "replace")).hexdigest()[:16],
            checksum=_checksum(self.class_names, self.labels, digests),
        )

    def with_facts(self, **facts: Any) -> ImageStore:
        """The same images under other facts (``name``, ``split``, ``mean`` ... of the manifest)."""
        view = self._view(self._index)
        view.class_names, view.labels, view._facts = self.class_names, self.labels, replace(self._facts, **facts)
        return view

    def gather(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Images by number.

        Args:
            indices: (B,) whole numbers below N.

        Returns:
            uint8 tensor (B, 3, H, W), channels last in memory.
        """
        import torch

        chosen = np.asarray(indices)
        if self._index is not None:
            chosen = self._index[chosen]
        # np.take copies whole images, and from a plain view: np.memmap would wrap each result anew.
        return torch.from_numpy(np.take(np.asarray(self._part.images), chosen, axis=0)).permute(0, 3, 1, 2)

    def class_counts(self) -> np.ndarray:
        """int64 (classes,): images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def subset(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> ImageStore:
        """A view of some images (numbers or a boolean mask), with all class names kept.

        Args:
            indices: Which images.
            split: What the manifest calls this part; default: as before.
        """
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        view = self._view(chosen if self._index is None else self._index[chosen])
        view.class_names, view.labels = self.class_names, self.labels[chosen]
        view._facts = self._facts if split is None else replace(self._facts, split=split)
        return view

    def select_classes(self, names: Sequence[str], split: str | None = None) -> ImageStore:
        """A view of the images of some classes, relabelled 0, 1, ... in the order given.

        Raises:
            FieldmarkError: An unknown class (the nearest is named), or one given twice.
        """
        position = {name: i for i, name in enumerate(self.class_names)}
        for name in names:
            if name not in position:
                raise unknown_name("class", name, position)
        if len(set(names)) != len(names):
            raise FieldmarkError("a class is selected twice; expected each once")
        new = np.full(len(self.class_names), -1, np.int64)
        new[[position[name] for name in names]] = np.arange(len(names))
        labels = new[self.labels]
        chosen = np.flatnonzero(labels >= 0)
        view = self.subset(chosen, split)
        view.class_names, view.labels = list(names), labels[chosen]
        return view

    def _view(self, index: np.ndarray | None) -> ImageStore:
        return ImageStore(self._part, self._facts, index)


def refuse_unreadable(stored: _cache.Stored, on_error: OnError = "raise") -> None:
    """Raise what is wrong with a store whose files could not all be decoded."""
    if not stored.skipped:
        return
    if on_error == "raise":
        count, (_, reason) = len(stored.skipped), stored.skipped[0]
        total = count + len(stored.labels)
        more = f" ({count} of {total} files cannot be read)" if count > 1 else ""
        raise FieldmarkError(f"{reason}{more}; mend or remove them, or leave them out with on_error='skip'")
    empty = np.flatnonzero(np.bincount(stored.labels, minlength=len(stored.class_names)) == 0)
    if len(empty):
        raise FieldmarkError(
            f"no image of class {stored.class_names[empty[0]]!r} can be read; mend or remove the class"
        )


def _checksum(class_names: Sequence[str], labels: np.ndarray, digests: np.ndarray) -> str:
    """The same for the same files in the same classes, in whatever order and packing."""
    by_name = sorted(range(len(class_names)), key=class_names.__getitem__)
    rank = np.empty(max(len(class_names), 1), np.int64)
    rank[by_name] = np.arange(len(class_names))
    order = np.lexsort((digests, rank[labels]))
    digest = hashlib.sha256(json.dumps([class_names[i] for i in by_name]).encode())
    digest.update(np.ascontiguousarray(rank[labels][order]).astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(digests[order]).astype("<u8").tobytes())
    return digest.hexdigest()[:16]
