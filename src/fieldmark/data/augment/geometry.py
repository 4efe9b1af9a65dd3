"""Where the pixels are: crops, flips, quarter turns, sizes."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from fieldmark.data.augment.base import AUGMENTATIONS, Augmentation, chance, check_probability, uniform
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor


@AUGMENTATIONS.add("random_crop", "pad with black and cut a window at random")
class RandomCrop(Augmentation):
    """Pad every side and cut a window of ``size`` at a place of its own for each image.

    Args:
        size: Side of the window.
        padding: Black pixels added on every side first.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        if size < 1 or padding < 0:
            raise FieldmarkError(f"random_crop has size {size} and padding {padding}; expected at least 1 and 0")
        self.size, self.padding = size, padding

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Windows ``(B, 3, size, size)``."""
        padded = F.pad(images, [self.padding] * 4)
        height, width = padded.shape[-2:]
        if height < self.size or width < self.size:
            raise FieldmarkError(
                f"random_crop of {self.size} cannot be cut from images of {height} x {width} after padding"
            )
        count = len(images)
        top, left = (
            torch.randint(0, room - self.size + 1, (count,), generator=generator, device=images.device)
            for room in (height, width)
        )
        window = torch.arange(self.size, device=images.device)
        return _gather(padded, top[:, None] + window, left[:, None] + window)


@AUGMENTATIONS.add("flip", "mirror left and right with probability p")
class Flip(Augmentation):
    """Mirror an image left to right.

    Args:
        p: Probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("flip", p)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        flipped = chance(self.p, images, generator)[:, None, None, None]
        return torch.where(flipped, images.flip(-1), images)


@AUGMENTATIONS.add("random_resized_crop", "cut a window of random area and shape, resize it")
class RandomResizedCrop(Augmentation):
    """Cut a window of random area and aspect, and resize it (bilinear, antialiased) to ``size``.

    Args:
        size: Side of the result.
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width over height.
    """

    def __init__(
        self, size: int, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        for name, (low, high) in (("scale", scale), ("ratio", ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                raise FieldmarkError(f"{name} of random_resized_crop is {low} to {high}; expected 0 < low <= high")
        self.size, self.scale, self.ratio = size, tuple(scale), tuple(ratio)

    def window(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Top, left, height and width ``(B,)`` of each image's window, whole pixels."""
        rows, columns = images.shape[-2:]
        count, tries = len(images), 10  # as torchvision: the first of ten draws that fits, else the whole image
        area = rows * columns * uniform(self.scale[0], self.scale[1], count * tries, images, generator)
        shape = uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), count * tries, images, generator).exp()
        width = (area * shape).sqrt().round().view(count, tries)
        height = (area / shape).sqrt().round().view(count, tries)
        fits = (width >= 1) & (width <= columns) & (height >= 1) & (height <= rows)
        first = fits.int().argmax(1, keepdim=True)
        found = fits.any(1)
        height = torch.where(found, height.gather(1, first)[:, 0], torch.full_like(area[:count], rows))
        width = torch.where(found, width.gather(1, first)[:, 0], torch.full_like(area[:count], columns))
        top = (uniform(0, 1, count, images, generator) * (rows - height + 1)).floor().clamp(max=rows - 1)
        left = (uniform(0, 1, count, images, generator) * (columns - width + 1)).floor().clamp(max=columns - 1)
        return top, left, height, width

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Windows ``(B, 3, size, size)``."""
        top, left, height, width = self.window(images, generator)
        return resize_windows(images, top, left, height, width, self.size)


@AUGMENTATIONS.add("resize", "resize the whole image")
class Resize(Augmentation):
    """Resize to a square (bicubic, antialiased), whatever the aspect.

    Args:
        size: Side of the result.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images ``(B, 3, size, size)``."""
        return F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)


@AUGMENTATIONS.add("center_crop", "cut the middle")
class CenterCrop(Augmentation):
    """Cut a window from the middle.

    Args:
        size: Side of the window.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Windows ``(B, 3, size, size)``."""
        height, width = images.shape[-2:]
        if min(height, width) < self.size:
            raise FieldmarkError(f"center_crop of {self.size} cannot be cut from images of {height} x {width}")
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return images[..., top : top + self.size, left : left + self.size]


@AUGMENTATIONS.add("rotate90", "turn by a random number of quarter turns")
class Rotate90(Augmentation):
    """Turn each square image by 0, 90, 180 or 270 degrees."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        turns = torch.randint(0, 4, (len(images),), generator=generator, device=images.device)
        return rotate90(images, turns)


def rotate90(images: Tensor, quarter_turns: Tensor) -> Tensor:
    """Turn each image anticlockwise by its number of quarter turns.

    Args:
        images: ``(B, C, H, H)``.
        quarter_turns: ``(B,)`` whole numbers; 4 is 0.

    Raises:
        FieldmarkError: If the images are not square.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> rotate90(image, torch.tensor([1]))[0, 0].tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    if images.shape[-1] != images.shape[-2]:
        raise FieldmarkError(f"quarter turns need square images; got {images.shape[-2]} x {images.shape[-1]}")
    turns = (quarter_turns % 4).view(-1, 1, 1, 1)
    once = torch.where(turns % 2 == 1, images.rot90(1, (-2, -1)), images)
    return torch.where(turns >= 2, once.flip(-1, -2), once)


def resize_windows(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Cut a window from each image and resize it, bilinear and antialiased.

    Each image's resize is two matrices of interpolation weights, one a side, so that a batch with a different window
    for every image is two batched matrix products.

    Args:
        images: ``(B, C, H, W)``.
        top: ``(B,)`` first row of each window, and likewise ``left``, ``height`` and ``width``, whole pixels.
        left: First column.
        height: Rows.
        width: Columns.
        size: Side of the result.
    """
    rows = _weights(top, height, images.shape[-2], size).to(images.dtype)
    columns = _weights(left, width, images.shape[-1], size).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)


def _weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Triangle-filter weights ``(B, size, pixels)`` of each source pixel for each result pixel."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / size
    centre = (torch.arange(size, device=start.device)[None, :, None] + 0.5) * scale + start
    pixel = torch.arange(pixels, device=start.device)[None, None] + 0.5
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(-1, keepdim=True)


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``images[b, :, rows[b, i], columns[b, j]]`` as ``(B, C, i, j)``."""
    last = images.permute(0, 2, 3, 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return last[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
