"""From the bytes of any image file to 8-bit RGB, and from there to a fixed size."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from fieldmark.errors import FieldmarkError, unknown_name

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused before they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX")
"""What is decoded, where Pillow has it. It knows more; for EPS, among them, it would start another program."""

Fit = Literal["squash", "crop", "pad"]
Interpolation = Literal["bicubic", "bilinear"]
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode a file's bytes to an upright 8-bit RGB image.

    EXIF rotation is applied; transparency is laid on white; 16-bit and floating-point values are scaled (never
    clipped); CMYK, palette, grey and 1-bit images are converted; of an animation the first frame is taken.

    Args:
        data: The whole file.
        name: What to call it in messages.

    Returns:
        An image of mode RGB.

    Raises:
        FieldmarkError: The file is empty, no image, truncated, corrupt or has more than ``MAX_PIXELS`` pixels.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (4, 2), 128).save(buffer, "png")
        >>> decode_image(buffer.getvalue(), "grey.png").getpixel((0, 0))
        (128, 128, 128)
    """
    if not data:
        raise FieldmarkError(f"{name} is empty (0 bytes); expected an image file")
    try:
        image = Image.open(io.BytesIO(data), formats=known_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FieldmarkError(f"{name} is too large ({error}); at most {MAX_PIXELS:,} pixels are read") from None
    except Exception as error:
        raise FieldmarkError(f"{name} is not an image that can be read ({_reason(error)})") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise FieldmarkError(
            f"{name} is too large ({width} x {height} pixels); at most {MAX_PIXELS:,} pixels are read: scale it down"
        )
    return as_rgb(image, name)


def as_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """An image that Pillow has opened, upright and as 8-bit RGB, by the same rules as :func:`decode_image`.

    Args:
        image: Of any mode; it may not be loaded yet.
        name: What to call it in messages.

    Raises:
        FieldmarkError: It is truncated or corrupt, or has no pixel or more than ``MAX_PIXELS``.

    Example:
        >>> as_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0))
        (255, 255, 255)
    """
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise FieldmarkError(f"{name} has {width} x {height} pixels; expected 1 to {MAX_PIXELS:,} in all")
    try:
        image.load()
        return _to_rgb(_upright(image))
    except Exception as error:
        raise FieldmarkError(f"{name} is truncated or corrupt ({_reason(error)})") from None


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that Pillow, as it is installed with its plugins, can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def fit_image(
    image: Image.Image,
    size: int | tuple[int, int],
    fit: Fit = "crop",
    box: tuple[float, float, float, float] | None = None,
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Bring an RGB image to one size, with antialiasing.

    Args:
        image: An RGB image.
        size: Side of a square, or (height, width).
        fit: ``crop`` scales until the image covers the size and cuts out the centre (for a square: the short side to
            the size, as torchvision's ``Resize`` + ``CenterCrop``); ``squash`` ignores the aspect ratio; ``pad``
            scales until the image fits inside and fills up with white.
        box: Cut this out first: (left, top, right, bottom) in pixels; parts outside the image are dropped.
        interpolation: ``bicubic`` or ``bilinear``.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        FieldmarkError: Unknown fit or interpolation, or a box without a pixel of the image.

    Example:
        >>> fit_image(Image.new("RGB", (60, 30)), 16).shape
        (16, 16, 3)
    """
    check_fit(fit, interpolation)
    height, width = as_size(size)
    if box is not None:
        image = _cut(image, box)
    if fit == "squash":
        return np.asarray(_resize(image, width, height, interpolation))
    pick = max if fit == "crop" else min
    scale = pick(width / image.width, height / image.height)
    # int(), not round(), as torchvision computes the long side; the epsilon keeps 3 * (1 / 3) a whole number.
    new_width = max(1, int(image.width * scale + 1e-6))
    new_height = max(1, int(image.height * scale + 1e-6))
    image = _resize(image, new_width, new_height, interpolation)
    if fit == "crop":
        left, top = round((new_width - width) / 2), round((new_height - height) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))
    canvas = np.full((height, width, 3), 255, np.uint8)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    canvas[top : top + new_height, left : left + new_width] = np.asarray(image)
    return canvas


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from a side or a pair.

    Raises:
        FieldmarkError: Not one or two whole numbers from 1 to 4096.

    Example:
        >>> as_size(84)
        (84, 84)
    """
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and 1 <= side <= 4096 for side in pair):
        raise FieldmarkError(f"size is {size!r}; expected a side or (height, width), each from 1 to 4096")
    return pair[0], pair[1]


def check_fit(fit: str, interpolation: str = "bicubic") -> None:
    """Refuse an unknown way to fit an image to a size, with the nearest known one."""
    if fit not in get_args(Fit):
        raise unknown_name("fit", fit, get_args(Fit))
    if interpolation not in _FILTERS:
        raise unknown_name("interpolation", interpolation, _FILTERS)


def _resize(image: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), _FILTERS[interpolation])


def _cut(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    left, top = max(0, int(box[0])), max(0, int(box[1]))
    right, bottom = min(image.width, round(box[2])), min(image.height, round(box[3]))
    if right <= left or bottom <= top:
        raise FieldmarkError(f"box {box} holds no pixel of an image of {image.width} x {image.height}")
    return image.crop((left, top, right, bottom))


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # broken EXIF data must not lose an intact image
        if image.getexif().get(0x0112, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit whole numbers by their range, floats in [0, 1] by 255, anything else by its own extremes."""
    values = values.astype(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    whole = bool(np.all(values == np.floor(values)))
    if low >= 0 and high <= 65535 and whole and high > 1:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (values - low) / (high - low or 1.0)
    return np.rint(np.nan_to_num(scaled) * 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "cannot identify" in text:
        return "unknown format"
    return text[:120] or type(error).__name__


# Pillow warns from 89 million pixels on; the bound here is our own and is checked right after opening.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
