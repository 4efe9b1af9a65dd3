"""Photos from strangers: bounded in bytes and pixels before they are decoded, held in memory, never in a file."""

from __future__ import annotations

import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fieldmark.data.images import MAX_PIXELS, decode_image, known_formats
from fieldmark.errors import FieldmarkError

_HELD_PHOTOS = 64
_HELD_BYTES = 256 * 2**20


class RefusedError(FieldmarkError):
    """What a request asked for and cannot have.

    Attributes:
        status: The HTTP status that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How large an upload may be.

    Attributes:
        bytes: Of the file.
        pixels: Of the picture.

    Raises:
        FieldmarkError: A bound that leaves nothing, or more pixels than are ever decoded.

    Example:
        >>> Limits(bytes=0)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: at most 0 bytes an upload; expected at least 1,000
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if self.bytes < 1000:
            raise FieldmarkError(f"at most {self.bytes:,} bytes an upload; expected at least 1,000")
        if not 1 <= self.pixels <= MAX_PIXELS:
            raise FieldmarkError(f"at most {self.pixels:,} pixels a photo; expected 1 to {MAX_PIXELS:,}")


def check_upload(data: bytes, limits: Limits, name: str = "the photo") -> None:
    """Refuse what is too large or no photo by its head alone, without decoding it.

    Args:
        data: The whole file.
        limits: How large it may be.
        name: What to call it in messages; an upload's own name is never looked at.

    Raises:
        RefusedError: Status 413, 415 or 422 with one line.

    Example:
        >>> check_upload(b"#!/bin/sh", Limits())
        Traceback (most recent call last):
        fieldmark.app.uploads.RefusedError: the photo is no image of a format that is taken (JPEG, PNG, WEBP, ...)
    """
    if len(data) > limits.bytes:
        raise RefusedError(413, f"{name} has {len(data):,} bytes; at most {limits.bytes:,} are taken: make it smaller")
    if not data:
        raise RefusedError(422, f"{name} is empty (0 bytes); expected an image file")
    try:
        with Image.open(io.BytesIO(data), formats=known_formats()) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedError(413, f"{name} has far too many pixels; at most {limits.pixels:,} are taken") from None
    except Exception:
        # Broken files make Pillow's readers raise almost anything.
        raise RefusedError(
            415, f"{name} is no image of a format that is taken (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM)"
        ) from None
    if width * height > limits.pixels:
        raise RefusedError(
            413, f"{name} has {width} x {height} pixels; at most {limits.pixels:,} are taken: scale it down"
        )


def decode_upload(data: bytes, limits: Limits, name: str = "the photo") -> Image.Image:
    """The picture of an upload, upright 8-bit RGB.

    Raises:
        RefusedError: As :func:`check_upload`, or 422 if it is truncated or corrupt.
    """
    check_upload(data, limits, name)
    try:
        return decode_image(data, name)
    except FieldmarkError as error:
        raise RefusedError(422, str(error)) from None
    except MemoryError:
        raise RefusedError(413, f"{name} does not fit into memory; scale it down") from None


@dataclass
class Held:
    """A photo that was asked about.

    Attributes:
        key: By which it is asked for again; cannot be guessed.
        data: The file as it came.
        answers: What was found out about it, by version of the gallery.
    """

    key: str
    data: bytes = field(repr=False)
    answers: dict[Any, Any] = field(default_factory=dict, repr=False)


class Shelf:
    """The photos that were asked about last; they are in memory alone and make room for newer ones.

    Args:
        photos: How many are kept.
        bytes_: How many bytes they may have in all; one photo is always kept.

    Example:
        >>> shelf = Shelf(photos=1)
        >>> first, second = shelf.put(b"1"), shelf.put(b"2")
        >>> shelf.get(second.key).data, shelf.get(first.key)
        (b'2', None)
    """

    def __init__(self, photos: int = _HELD_PHOTOS, bytes_: int = _HELD_BYTES) -> None:
        self._photos, self._bytes = photos, bytes_
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Held:
        """Keep a photo."""
        held = Held(secrets.token_urlsafe(16), data)
        with self._lock:
            self._held[held.key] = held
            while len(self._held) > 1 and (
                len(self._held) > self._photos or sum(len(one.data) for one in self._held.values()) > self._bytes
            ):
                self._held.popitem(last=False)
        return held

    def get(self, key: str) -> Held | None:
        """The photo, or None if it is not held (any more)."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)
