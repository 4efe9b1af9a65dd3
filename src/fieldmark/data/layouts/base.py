"""What every data set shares: its facts, its registration, and the way from a path and a split to a store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fieldmark.data import cache as _cache
from fieldmark.data.images import Fit, as_size, check_fit
from fieldmark.data.manifest import Manifest
from fieldmark.data.readers import ImageRecord, is_image_name
from fieldmark.data.sources import Source, open_source
from fieldmark.data.splits import class_split
from fieldmark.data.store import ImageStore, OnError, refuse_unreadable
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.registry import Registry

DATASETS: Registry[ImageStore] = Registry("data set")

Root = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SplitKind = Literal["class", "image"]

_LISTED = (
    "classes", "images", "size", "splits", "statistics_of", "layout", "obtain", "licence", "class_list", "crop", "fit",
    "overlap", "version",
)  # fmt: skip

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR_STATISTICS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))

CLASS_SPLITS: dict[str, SplitKind] = {"train": "class", "val": "class", "test": "class", "trainval": "class"}
TRAIN_TEST: dict[str, SplitKind] = {"train": "image", "test": "image"}
TRAIN_VAL_TEST: dict[str, SplitKind] = {"train": "image", "val": "image", "test": "image", "trainval": "image"}


@dataclass(frozen=True)
class DataSet:
    """A data set's facts and how its files are read.

    Attributes:
        name: Registered name.
        summary: One line for listings.
        read: From the files to records.
        source: The paper.
        classes: Number of classes (0: any).
        images: Number of images (0: any).
        size: Side that images are stored with unless asked otherwise.
        statistics: Mean and standard deviation per channel, and `statistics_of` says of what.
        splits: Name of each split and its kind: "class" (classes are disjoint: few-shot) or "image" (same classes,
            other images); "all" is always there.
        layout: What the folder must look like, for messages.
        obtain: Under which name to look for it.
        licence: Terms, in short.
        class_list: Name of the class split (`fieldmark.data.splits`).
        crop: "box" cuts images to their annotated boxes.
        fit: How images are brought to size.
        overlap: Known overlap with other data.
        part_by_split: Decode only the classes of the split that is asked for (very large data sets).
        class_key: From a class name in the files to its name in the class list.
        opener: Opens the path; default: folder or zip.
        version: Raise it when reader or facts change.
        episodes: Array fields of `EpisodeIndex` for a whole store, where the data set comes with its own episodes.
    """

    name: str
    summary: str
    read: Callable[[Source], list[ImageRecord]]
    source: str
    classes: int
    images: int
    size: int
    splits: dict[str, SplitKind] = field(default_factory=dict)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET_STATISTICS
    statistics_of: str = "ImageNet"
    layout: str = "one folder of images for each class"
    obtain: str = ""
    licence: str = "research use"
    class_list: str = ""
    crop: Literal["raw", "box"] = "raw"
    fit: Fit = "crop"
    overlap: str = ""
    part_by_split: bool = False
    class_key: Callable[[str], str] = str
    opener: Callable[[Root], Source] = open_source
    version: str = "1"
    episodes: Callable[[ImageStore], dict[str, np.ndarray]] | None = None

    def register(self) -> None:
        """Add to `DATASETS`, with the facts of listings."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in _LISTED}
        facts["splits"] = {**self.splits, "all": "all"}
        facts["mean"], facts["std"] = self.statistics
        facts["needs_root"] = True
        facts["episodes"] = self.episodes
        DATASETS.add(self.name, self.summary, source=self.source, **facts)(self.load)

    def load(
        self,
        root: Root | None = None,
        split: str | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        fit: Fit | None = None,
        progress: bool = True,
        on_error: OnError = "raise",
        cache: str | os.PathLike[str] | None = None,
    ) -> ImageStore:
        """The images of a split; see `fieldmark.data.load`."""
        split = split or "all"
        if self.splits and split not in (*self.splits, "all"):
            raise unknown_name(f"split of data set {self.name!r}", split, (*self.splits, "all"))
        if root is None:
            hint = f"; get it as: {self.obtain}" if self.obtain else ""
            raise FieldmarkError(
                f"data set {self.name!r} needs a root, the folder or zip file with {self.layout}{hint}"
            )
        height, width = as_size(self.size if size is None else size)
        fit = fit or self.fit
        check_fit(fit)
        stored = self._stored(root, split, (height, width), fit, progress, _cache.cache_folder(cache))
        mean, std = self.statistics
        manifest = Manifest(self.name, self.version, "all", crop=self.crop, mean=mean, std=std)
        return self.select(ImageStore.from_stored(stored, manifest, fit, "bicubic", on_error), split, root)

    def select(self, store: ImageStore, split: str, root: Root) -> ImageStore:
        """The part of a whole store that a split names."""
        if split == "all":
            return store
        kind = self.splits.get(split) or _kind_found(store, split)
        if kind == "image":
            return _select_images(store, split, root)
        if not self.class_list:
            part = _select_images(store, split, root)
            present = np.flatnonzero(part.class_counts())
            return part.select_classes([part.class_names[i] for i in present])
        return store.select_classes(self._listed(store.class_names, split, root), split)

    def _listed(self, class_names: Sequence[str], split: str, root: Root) -> list[str]:
        key = self.class_key
        wanted = set(class_split(self.class_list, split, class_names))
        chosen = [name for name in class_names if key(name) in wanted]
        missing = sorted(wanted - {key(name) for name in chosen})
        if missing:
            raise FieldmarkError(
                f"{root} lacks {len(missing)} of the {len(wanted)} classes of split {split!r} of {self.name!r}, first "
                f"{missing[0]!r} (it has {len(class_names)} others, such as {class_names[0]!r}); expected {self.layout}"
            )
        return chosen

    def _stored(
        self, root: Root, split: str, size: tuple[int, int], fit: Fit, progress: bool, folder: Path
    ) -> _cache.Stored:
        source = self.opener(root)
        part = split if self.part_by_split and split != "all" else ""
        reader = f"{self.read.__module__}.{self.read.__qualname__}"
        # The list's name counts only where it decides what is decoded: cub-feat and cub-frn share one store.
        asked = [_cache.FORMAT, reader, self.version, part, part and self.class_list, self.crop, size, fit]
        request = hashlib.sha256(json.dumps([*asked, source.fingerprint()]).encode()).hexdigest()[:32]
        stored = _cache.recall(folder, request)
        if stored is None:
            records = self._records(source, part, root)
            stored = _cache.open_or_build(
                source, records, size=size, fit=fit, interpolation="bicubic", folder=folder, progress=progress
            )
            _cache.remember(folder, request, stored)
        return stored

    def _records(self, source: Source, part: str, root: Root) -> list[ImageRecord]:
        records = self.read(source)
        if part:
            chosen = set(self._listed(list(dict.fromkeys(record.class_name for record in records)), part, root))
            records = [record for record in records if record.class_name in chosen]
        if not records:
            raise FieldmarkError(f"{root} holds no image of data set {self.name!r}; expected {self.layout}")
        if self.crop == "raw":
            return [ImageRecord(r.name, r.class_name, None, r.split) for r in records]
        unboxed = [record.name for record in records if record.box is None]
        if unboxed:
            raise FieldmarkError(
                f"{root} has no box for {len(unboxed)} of {len(records)} images, first {unboxed[0]!r}; "
                f"{self.name!r} is cut to its boxes: expected {self.layout}"
            )
        return records


def locate(source: Source, name: str) -> str | None:
    """The prefix ("CUB_200_2011/" or "") of the shallowest folder that holds ``name``; None if there is none."""
    hits = [n for n in (*source.names(), *source.folders()) if n == name or n.endswith("/" + name)]
    return min(hits, key=lambda hit: (hit.count("/"), hit))[: -len(name)] if hits else None


def table(source: Source, name: str, columns: int = 2) -> list[list[str]]:
    """Rows of a text file of columns separated by blanks; the last column may hold blanks.

    Raises:
        FieldmarkError: A row with fewer columns (its line is named).
    """
    rows = []
    for number, line in enumerate(source.text(name).splitlines(), 1):
        row = line.split(maxsplit=columns - 1)
        if row and len(row) < columns:
            raise FieldmarkError(f"{source.where(name)} line {number} has {len(row)} columns; expected {columns}")
        if row:
            rows.append([cell.strip() for cell in row])
    return rows


def require_files(source: Source, records: Sequence[ImageRecord]) -> None:
    """Refuse records whose files are not there, naming the first and the count."""
    names = set(source.names())
    missing = [record.name for record in records if record.name not in names]
    if missing:
        raise FieldmarkError(
            f"{source.path} lacks {len(missing)} of {len(records)} listed images; the first is {missing[0]!r}"
        )


def images_below(source: Source, prefix: str) -> list[str]:
    """Image files below a folder, without the prefix."""
    return [n[len(prefix) :] for n in source.names() if n.startswith(prefix) and is_image_name(n)]


def by_class(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Records sorted by class, then name: labels follow the order of class names."""
    return sorted(records, key=lambda record: (record.class_name, record.name))


def _kind_found(store: ImageStore, split: str) -> SplitKind:
    """Of a user's own train/val/test folders: "class" when no class of this split lies in another one."""
    here = store.splits == split
    if not here.any():
        raise unknown_name(f"split of data set {store.manifest.name!r}", split, {*store.splits.tolist(), "all"} - {""})
    shared = np.intersect1d(store.labels[here], store.labels[~here])
    return "image" if len(shared) else "class"


def _select_images(store: ImageStore, split: str, root: Root) -> ImageStore:
    chosen = np.isin(store.splits, {"trainval": ["train", "val"]}.get(split, [split]))
    if not chosen.any():
        found = ", ".join(sorted({*store.splits.tolist()} - {""})) or "none"
        raise FieldmarkError(
            f"{root} does not say which images of {store.manifest.name!r} are in {split!r} (splits found: {found})"
        )
    return store.subset(chosen, split)


__all__ = ["DATASETS", "DataSet", "by_class", "locate", "refuse_unreadable", "require_files", "table"]
