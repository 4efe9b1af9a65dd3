"""Photos that are the same, or nearly: enrolled twice, scaled, cropped a little or compressed anew."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fieldmark.gallery.advice import Duplicate
from fieldmark.gallery.records import Photo
from fieldmark.progress import track
from fieldmark.shapes import Float

if TYPE_CHECKING:
    from fieldmark.gallery.store import Gallery

ALIKE = 0.97
"""Correlation of the grey pictures from which on two photos are nearly the same; series from a tripod lie below it."""

COLOUR = 10.0
"""Largest difference of their mean colours, of 255."""

NEIGHBOURS = 5
"""Nearest photos that are looked at for each."""

NEAR = 0.8
"""Least cosine of the pooled vectors of two photos that are looked at."""

_SIDE = 24
_AT_ONCE = 256
_COSINES_AT_ONCE = 1 << 24


def near_copies(gallery: Gallery, photos: list[Photo], progress: bool = True) -> list[Duplicate]:
    """Pairs of photos that are the same, those in two classes first, then the likest.

    Each photo is compared with its nearest neighbours by the pooled vectors, picture against picture. Time grows with
    the square of the number of photos, memory does not.

    Args:
        gallery: Where they are.
        photos: Those to look at, by id.
        progress: Show bars for long work on a terminal.
    """
    ids = [photo.id for photo in photos]
    pooled = gallery.descriptors(["pooled"], ids)[2]["pooled"][:, 0]
    pairs = _candidates(pooled, progress)
    same: dict[str, list[int]] = {}
    for number, photo in enumerate(photos):
        same.setdefault(photo.sha256, []).append(number)
    pairs |= {(group[0], other) for group in same.values() for other in group[1:]}
    signatures = _signatures(gallery, ids, sorted({one for pair in pairs for one in pair}), progress)
    found = []
    for one, other in sorted(pairs):
        same_file = photos[one].sha256 == photos[other].sha256
        likeness = 1.0 if same_file else compare(signatures[one], signatures[other])
        if likeness >= ALIKE:
            found.append(Duplicate(photos[one], photos[other], same_file, likeness))
    return sorted(found, key=lambda pair: (not pair.across, -pair.likeness, pair.photo.id, pair.copy.id))


def signature(picture: Image.Image) -> Float[np.ndarray, "side side 3"]:
    """A picture as few pixels."""
    return np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def compare(one: Float[np.ndarray, "side side 3"], other: Float[np.ndarray, "side side 3"]) -> float:
    """Correlation of two signatures' grey pictures, or 0 where their colours differ.

    Example:
        >>> ramp = np.tile(np.linspace(0, 255, 24, dtype=np.float32)[:, None, None], (1, 24, 3))
        >>> compare(ramp, ramp + 3), compare(ramp, ramp[::-1].copy()) < 0, compare(ramp, ramp + 30)
        (1.0, True, 0.0)
    """
    if np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() > COLOUR:
        return 0.0
    grey = [side.mean(-1) - side.mean() for side in (one, other)]
    spread = [float(np.sqrt(np.square(side).mean())) for side in grey]
    if max(spread) < 2.0:  # both of one colour, and that is the same
        return 1.0
    return round(float((grey[0] * grey[1]).mean()) / max(spread[0] * spread[1], 1e-6), 4)


def _candidates(pooled: Float[np.ndarray, "M C"], progress: bool) -> set[tuple[int, int]]:
    """Pairs of neighbours, the smaller number first."""
    unit = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
    step, count = max(1, _COSINES_AT_ONCE // max(1, len(unit))), min(NEIGHBOURS, len(unit) - 1)
    pairs: set[tuple[int, int]] = set()
    if count < 1:
        return pairs
    for start in track(range(0, len(unit), step), "looking for copies", step, len(unit), show=progress):
        cosines = unit[start : start + step] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -2.0
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        row, column = np.nonzero(np.take_along_axis(cosines, near, 1) >= NEAR)
        for one, other in zip((row + start).tolist(), near[row, column].tolist(), strict=True):
            pairs.add((min(one, other), max(one, other)))
    return pairs


def _signatures(gallery: Gallery, ids: list[int], numbers: list[int], progress: bool) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    starts = range(0, len(numbers), _AT_ONCE)
    for start in track(starts, "comparing pictures", _AT_ONCE, len(numbers), show=progress):
        part = numbers[start : start + _AT_ONCE]
        stored = gallery.thumbnails([ids[number] for number in part])
        for number in part:
            found[number] = signature(Image.open(io.BytesIO(stored[ids[number]])))
    return found
