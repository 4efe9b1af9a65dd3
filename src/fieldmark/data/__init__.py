"""Data sets by name, the image store, class splits, augmentation and episodes."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from fieldmark.data.layouts import DATASETS
from fieldmark.data.manifest import Manifest, require_comparable
from fieldmark.data.readers import ImageRecord
from fieldmark.data.splits import class_split
from fieldmark.data.store import ImageStore

if TYPE_CHECKING:
    from fieldmark.data.check import check_folder
    from fieldmark.data.episodes import EpisodeIndex, draw_episodes
    from fieldmark.data.held_out import hold_out
    from fieldmark.data.images import Fit
    from fieldmark.data.layouts.base import Root
    from fieldmark.data.store import OnError

__all__ = [
    "DATASETS",
    "EpisodeIndex",
    "ImageRecord",
    "ImageStore",
    "Manifest",
    "check_folder",
    "class_split",
    "draw_episodes",
    "hold_out",
    "load",
    "names",
    "own_episodes",
    "require_comparable",
]

_LAZY = {
    "check_folder": "check",
    "EpisodeIndex": "episodes",
    "draw_episodes": "episodes",
    "hold_out": "held_out",
}


def load(
    name: str,
    root: Root | None = None,
    split: str | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit | None = None,
    progress: bool = True,
    on_error: OnError = "raise",
    cache: str | os.PathLike[str] | None = None,
) -> ImageStore:
    """A data set by name, decoded once and then re-opened from the cache.

    Args:
        name: Registered name (`names`); "folder" is any folder of class folders, zip of these, or list file.
        root: Folder or zip with its files (several: a list, or joined by ":"); none for "glyphs".
        split: One of the data set's splits: of classes (few-shot: "train", "val", "test", "trainval") or of images
            (official "train", "test"); default "all".
        size: Side, or (height, width), of the stored images; default: the data set's own.
        fit: "crop", "squash" or "pad"; default: the data set's own.
        progress: Show a bar while decoding (on a terminal, over two seconds).
        on_error: "raise" refuses unreadable files, "skip" leaves them out and lists them in the manifest.
        cache: Where decoded images are kept; default: the environment's FIELDMARK_CACHE, else ~/.cache/fieldmark.

    Returns:
        The images, with labels 0 to classes - 1.

    Raises:
        FieldmarkError: Unknown name or split, missing or wrong files; one line that says what was expected.

    Example:
        >>> load("cub-feats", "CUB_200_2011")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown data set 'cub-feats'; did you mean 'cub-feat'? Known: ...
    """
    entry = DATASETS.get(name)
    options: dict[str, Any] = {"size": size, "fit": fit, "progress": progress}
    if entry.facts["needs_root"]:
        options |= {"on_error": on_error, "cache": cache}
    return entry.make(root, split, **options)


def own_episodes(name: str, store: ImageStore) -> EpisodeIndex | None:
    """The episodes that a data set brings with it (Omniglot's twenty runs); None where they are to be drawn.

    Args:
        name: Registered name.
        store: The whole of that data set.

    Example:
        >>> own_episodes("glyphs", load("glyphs", split="val")) is None
        True
    """
    find = DATASETS.get(name).facts.get("episodes")
    if find is None:
        return None
    from fieldmark.data.episodes import EpisodeIndex

    return EpisodeIndex.given(name, **find(store))


def names() -> list[str]:
    """Names of all data sets.

    Example:
        >>> "cifar_fs" in names()
        True
    """
    return DATASETS.names()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"fieldmark.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'fieldmark.data' has no attribute {name!r}")
