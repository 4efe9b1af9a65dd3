"""Glyphs: characters of many scripts, rendered on the spot; no file is needed."""

from __future__ import annotations

from fieldmark.data.images import Fit
from fieldmark.data.layouts.base import CLASS_SPLITS, DATASETS, Root
from fieldmark.data.store import ImageStore
from fieldmark.errors import FieldmarkError, unknown_name

_SPLITS = (*CLASS_SPLITS, "all")


@DATASETS.add(
    "glyphs",
    "characters of many scripts in many fonts, rendered from a seed; classes split by script",
    source="ours; fonts that come with matplotlib",
    classes=237,
    images=9_480,
    size=32,
    fit="crop",
    crop="raw",
    splits={**CLASS_SPLITS, "all": "all"},
    class_list="",
    mean=(0.645, 0.647, 0.643),
    std=(0.281, 0.275, 0.285),
    statistics_of="its own images",
    layout="nothing",
    obtain="built in",
    licence="Apache-2.0; fonts: Bitstream Vera, DejaVu, STIX (free)",
    overlap="",
    version="1",
    needs_root=False,
)
def load_glyphs(
    root: Root | None = None,
    split: str | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit | None = None,
    progress: bool = True,
) -> ImageStore:
    """The embedded data set; it takes no root and only square sizes."""
    from fieldmark.data import glyphs

    if root is not None:
        raise FieldmarkError("data set 'glyphs' is built in; leave out the root")
    if (split or "all") not in _SPLITS:
        raise unknown_name("split of data set 'glyphs'", split or "", _SPLITS)
    side = 32 if size is None else size
    if not isinstance(side, int):
        raise FieldmarkError(f"glyphs are square; size is {side!r}, expected a whole number")
    return glyphs.load_glyphs(split or "all", side)
