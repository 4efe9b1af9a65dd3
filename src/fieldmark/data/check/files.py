"""One look at every file: can it be used, and what is unusual about it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fieldmark.data.check.report import Problem
from fieldmark.data.images import MAX_PIXELS, decode_image
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError
from fieldmark.progress import track

THUMB = 16
_MODES = {
    "CMYK": ("cmyk", "CMYK colours, converted to RGB; colours may shift"),
    "L": ("grey", "grey, converted to RGB"),
    "1": ("grey", "black and white, converted to RGB"),
    "P": ("palette", "a palette of colours, converted to RGB"),
    "F": ("deep", "floating-point values, scaled to 8 bits"),
    "I": ("deep", "more than 8 bits a value, scaled to 8"),
}


@dataclass(frozen=True)
class Fact:
    """What is known of a file; ``failure`` is (code, what is wrong) when it cannot be used."""

    failure: tuple[str, str] | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = "RGB"
    alpha: bool = False
    frames: int = 1
    orientation: int = 1
    digest: bytes = b""
    thumb: np.ndarray | None = None


def examine_all(source: Source, names: list[str], progress: bool) -> dict[str, Fact]:
    """Look at all files in parallel; a file that fails is a fact, not an exception."""
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        facts = pool.map(lambda name: _examine(source, name), names)
        try:
            return dict(zip(names, track(facts, "checking images", total=len(names), show=progress), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _examine(source: Source, name: str) -> Fact:
    try:
        data = source.read(name)
    except FieldmarkError as error:
        return Fact(("unreadable", str(error)))
    if not data:
        return Fact(("unreadable", "empty file (0 bytes)"))
    try:
        with Image.open(io.BytesIO(data)) as header:
            size, mode = header.size, header.mode
            alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in header.info
            frames = getattr(header, "n_frames", 1) if size[0] * size[1] <= MAX_PIXELS else 1
            orientation = _orientation(header)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Fact(("huge", f"more than {MAX_PIXELS:,} pixels"))
    except Exception:
        return Fact(_failure(data, name))
    if size[0] * size[1] > MAX_PIXELS:
        return Fact(("huge", f"{size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}"), size, mode)
    try:
        image = decode_image(data, name)
    except FieldmarkError:
        return Fact(("truncated", "the file is truncated or corrupt"), size, mode)
    digest = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()
    thumb = np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX))
    return Fact(None, size, mode, alpha, frames, orientation, digest, thumb)


def _failure(data: bytes, name: str) -> tuple[str, str]:
    """A header that cannot be followed to its end is a truncated file, as long as the format is known."""
    try:
        with Image.open(io.BytesIO(data)):
            return "truncated", "the file is truncated or corrupt"
    except Exception:
        return "unreadable", "not an image in a known format"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1  # broken EXIF data is no reason to refuse an intact image


def file_problems(name: str, fact: Fact, tiny: int) -> Iterable[Problem]:
    """What to say about a file, if anything."""
    if fact.failure is not None:
        code, what = fact.failure
        todo = "scale it down" if code == "huge" else "replace or remove it"
        yield Problem("error", code, name, f"{what}; {todo}")
        return
    if min(fact.size) < tiny:
        text = f"only {fact.size[0]} x {fact.size[1]} pixels (shorter side below {tiny}); use a larger original"
        yield Problem("warning", "tiny", name, text)
    if fact.frames > 1:
        yield Problem("warning", "animated", name, f"{fact.frames} frames, only the first is used; export the best one")
    if fact.orientation not in (0, 1):
        text = f"turned by its EXIF tag ({fact.orientation}); it is read upright, other programs may not"
        yield Problem("note", "exif-rotated", name, text)
    mode = "I" if fact.mode.startswith("I") else fact.mode
    if mode in _MODES:
        code, text = _MODES[mode]
        yield Problem("note", code, name, f"{fact.mode}: {text}")
    elif mode not in ("RGB", "RGBA", "RGBX", "LA", "PA", "RGBa", "La"):
        yield Problem("note", "mode", name, f"{fact.mode} colours, converted to RGB")
    if fact.alpha:
        yield Problem("note", "alpha", name, f"{fact.mode}: transparent parts become white")
