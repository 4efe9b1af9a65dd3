"""Whatever a user hands over as images (paths, PIL images, arrays), as 8-bit RGB at the size a model sees."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from fieldmark.data.images import Fit, Interpolation, as_rgb, as_size, check_fit, decode_image, fit_image
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.images import read_image
from fieldmark.progress import track

Input = str | os.PathLike[str] | Image.Image | np.ndarray | bytes
"""A path, a PIL image of any mode, a uint8 array ``(H, W, 3)``, or the bytes of an image file."""

OnError = Literal["raise", "skip"]

_EXPECTED = "a path, a PIL image, a uint8 array (H, W, 3) or the bytes of an image file"
_AT_ONCE = 4  # images decoded side by side; each may hold MAX_PIXELS


@dataclass(frozen=True)
class Pictures:
    """Images at one size, and which of the inputs they are.

    Attributes:
        images: uint8 ``(M, H, W, 3)``.
        names: A name for each: the path as it was given, else "image 3" (its place, counted from 0).
        positions: ``(M,)`` place of each among the inputs.
        problems: Place and one line for each input that could not be read; empty unless they were to be skipped.
    """

    images: np.ndarray = field(repr=False)
    names: list[str]
    positions: np.ndarray = field(repr=False)
    problems: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.images)


def read_pictures(
    inputs: Iterable[Input],
    size: int | tuple[int, int],
    fit: Fit = "crop",
    interpolation: Interpolation = "bicubic",
    *,
    on_error: OnError = "raise",
    progress: bool = True,
) -> Pictures:
    """Decode images and bring them to one size.

    Args:
        inputs: Paths, PIL images of any mode, uint8 arrays ``(H, W, 3)`` or bytes of image files, in any mixture; an
            array of paths or a uint8 array ``(M, H, W, 3)`` will do.
        size: Side, or (height, width).
        fit: ``crop``, ``squash`` or ``pad``, see :func:`fieldmark.data.images.fit_image`.
        interpolation: ``bicubic`` or ``bilinear``.
        on_error: ``"raise"`` looks at all of them, then names the first that is bad and how many more there are;
            ``"skip"`` leaves bad ones out and lists them in ``problems``.
        progress: Show a bar for long work on a terminal.

    Raises:
        FieldmarkError: For what is no list of images, or for bad ones, in one line.

    Example:
        >>> found = read_pictures([Image.new("L", (8, 6), 255), b"no image"], 4, on_error="skip")
        >>> found.images.shape, found.positions.tolist(), found.problems
        ((1, 4, 4, 3), [0], [(1, 'image 1 is not an image that can be read (unknown format)')])
    """
    if on_error not in get_args(OnError):
        raise unknown_name("on_error", on_error, get_args(OnError))
    check_fit(fit, interpolation)
    height, width = as_size(size)
    items = as_inputs(inputs)

    def read(position: int) -> np.ndarray | FieldmarkError:
        try:
            image = open_picture(items[position], f"image {position}")
            return fit_image(image, (height, width), fit, interpolation=interpolation)
        except FieldmarkError as error:
            return error

    found: list[np.ndarray | FieldmarkError] = []
    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        results = pool.map(read, range(len(items)))
        found.extend(track(results, "reading images", total=len(items), show=progress))
    problems = [(i, str(one)) for i, one in enumerate(found) if isinstance(one, FieldmarkError)]
    if problems and on_error == "raise":
        more = f" (and {len(problems) - 1} more that cannot be used)" if len(problems) > 1 else ""
        raise FieldmarkError(problems[0][1] + more)
    images = [one for one in found if not isinstance(one, FieldmarkError)]
    positions = np.array([i for i, one in enumerate(found) if not isinstance(one, FieldmarkError)], np.int64)
    return Pictures(
        np.stack(images) if images else np.empty((0, height, width, 3), np.uint8),
        [name_of(items[i], i) for i in positions],
        positions,
        problems,
    )


def open_picture(item: Input, name: str = "image") -> Image.Image:
    """One image as upright 8-bit RGB, at its own size.

    Args:
        item: A path, a PIL image, a uint8 array ``(H, W, 3)`` or the bytes of an image file.
        name: What to call it in messages, where it has no path.

    Raises:
        FieldmarkError: It is none of these, or cannot be read.

    Example:
        >>> open_picture(np.zeros((3, 5, 3), np.uint8)).size
        (5, 3)
    """
    if isinstance(item, Image.Image):
        return as_rgb(item, name)
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise FieldmarkError(f"{name} is {item.dtype} of shape {item.shape}; expected uint8 of shape (H, W, 3)")
        return as_rgb(Image.fromarray(np.ascontiguousarray(item)) if item.size else Image.new("RGB", (0, 0)), name)
    if isinstance(item, bytes):
        return decode_image(item, name)
    if isinstance(item, str | os.PathLike):
        return _read_path(item)
    raise FieldmarkError(f"{name} is {_kind(item)}; expected {_EXPECTED}")


def as_inputs(inputs: Iterable[Any]) -> Sequence[Any]:
    """The inputs as a sequence.

    Raises:
        FieldmarkError: For a single image where several are expected, or for what cannot be gone through.

    Example:
        >>> as_inputs("photo.jpg")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: images is the single image 'photo.jpg'; expected a list of images: put it ...
    """
    if isinstance(inputs, str | bytes | os.PathLike | Image.Image):
        what = repr(inputs) if isinstance(inputs, str | os.PathLike) else "of type " + type(inputs).__name__
        raise FieldmarkError(f"images is the single image {what}; expected a list of images: put it into one, [image]")
    if isinstance(inputs, np.ndarray):
        pixels = inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[-1] == 3
        if not pixels and (inputs.dtype.kind not in "OUT" or inputs.ndim != 1):
            raise FieldmarkError(
                f"images is an array of {inputs.dtype} of shape {inputs.shape}; expected uint8 of shape (M, H, W, 3), "
                "or a list of paths, PIL images or uint8 arrays (H, W, 3)"
            )
    if isinstance(inputs, Sequence):
        return inputs
    try:
        items = list(inputs)
    except TypeError:
        raise FieldmarkError(f"images is {_kind(inputs)}; expected a list of images: each {_EXPECTED}") from None
    return [item.item() if isinstance(item, np.generic) else item for item in items]


def name_of(item: Input, position: int) -> str:
    """What to call an input: its path, or its place.

    Example:
        >>> name_of("a/b.jpg", 3), name_of(np.zeros((1, 1, 3), np.uint8), 3)
        ('a/b.jpg', 'image 3')
    """
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"image {position}"


def _read_path(path: str | os.PathLike[str]) -> Image.Image:
    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        if isinstance(error, FieldmarkError):
            raise
        # A null character, a name that is too long, a folder that may not be entered.
        reason = getattr(error, "strerror", None) or error
        raise FieldmarkError(f"{Path(path)!s:.200} cannot be read ({reason})") from None


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
