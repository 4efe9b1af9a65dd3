"""Two images as a model is to see them: any file, PIL image or array, at the model's size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fieldmark.backbones import Encoder
from fieldmark.data.images import Fit, fit_image
from fieldmark.data.sources import FolderSource
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor

Picture = str | os.PathLike[str] | Image.Image | np.ndarray

# For backbones that bring no normalisation of their own; that of ImageNet suits photographs.


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as upright 8-bit RGB, whatever its kind; see :func:`fieldmark.data.images.decode_image`.

    Raises:
        FieldmarkError: No such file, not a file, too large, or not a readable image.
    """
    path = Path(path)
    if not path.exists():
        raise FieldmarkError(f"no image at {path}; expected an image file")
    if not path.is_file():  # a folder; or a device or pipe, which might never end
        raise FieldmarkError(f"{path} is not a file; expected an image file")
    return FolderSource(path.parent, only=[path.name]).image(path.name)


def fitted_pair(
    encoder: Encoder, query: Picture, support: Picture, size: int | tuple[int, int] | None, fit: Fit
) -> list[np.ndarray]:
    """Both images as uint8 ``(H, W, 3)`` at a size; default: the model's own.

    Raises:
        FieldmarkError: For what is no readable image, or a size that the model does not run at.
    """
    side = side_of(encoder, size)
    return [fit_image(load_picture(image), side, fit) for image in (query, support)]


def names_of(query: Picture, support: Picture) -> tuple[str, str]:
    """What to call the two in pictures: the files' names, else query and support."""
    return name_of(query, "query"), name_of(support, "support")


def check_finite(features: Tensor) -> None:
    """Refuse features that are not finite."""
    if not torch.isfinite(features).all():
        raise FieldmarkError(
            "the model gives features that are not finite; its weights are damaged or its training diverged"
        )


def load_picture(image: Picture) -> Image.Image:
    """An image that was given in any of the ways, as upright 8-bit RGB.

    Raises:
        FieldmarkError: For what is no readable image.
    """
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise FieldmarkError(f"image has mode {image.mode}; expected RGB (the file's name would be converted)")
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise FieldmarkError(f"image is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)")
        return Image.fromarray(image)
    return read_image(image)


def name_of(image: Picture, otherwise: str) -> str:
    """The file's name; ``otherwise`` for an image that is none."""
    return otherwise if isinstance(image, Image.Image | np.ndarray) else Path(image).name


def side_of(encoder: Encoder, size: int | tuple[int, int] | None) -> int | tuple[int, int]:
    """The size at which an encoder sees images; default: its own.

    Raises:
        FieldmarkError: For another than the one it always runs at.
    """
    own = encoder.size
    if size is None:
        return own or encoder.backbone.default_size
    if own is not None and size not in (own, (own, own)):
        raise FieldmarkError(f"size is {size}, but this model always runs at {own} pixels; leave the size out")
    return size
