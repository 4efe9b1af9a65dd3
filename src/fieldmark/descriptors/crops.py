"""Nodes from windows of the image: cut, resize, encode each as an image of its own, pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fieldmark.data.augment import resize_windows
from fieldmark.descriptors.base import Encode, Extractor, is_count
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


@dataclass(frozen=True)
class Windows:
    """Where images are cut: N windows for each of B images, whole pixels.

    Attributes:
        top: ``(B, N)`` first row, at least 0.
        left: ``(B, N)`` first column, at least 0.
        height: ``(B, N)`` rows, at least 1.
        width: ``(B, N)`` columns, at least 1.
        mirrored: ``(B, N)`` whether the window is mirrored left to right; default: none is.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor | None = None


class CropExtractor(Extractor):
    """Base class of extractors that cut windows, encode each as an image of its own and pool its map: one node each.

    Every window is resized (bilinear, antialiased) to ``size``. Windows are drawn on the CPU (or on the generator's
    device), so that the same seed gives the same windows on every device.

    Args:
        size: Side at which a window is encoded; None: the images' own, which then have to be square.
    """

    from_maps = False

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        if size is not None and not is_count(size):
            raise FieldmarkError(f"size of extractor {self.name} is {size!r}; expected a whole number of at least 1")
        self.size = size
        self.options["size"] = size

    def windows(self, images: int, rows: int, columns: int, generator: torch.Generator | None) -> Windows:
        """Where to cut ``images`` images of ``rows`` x ``columns`` pixels."""
        raise NotImplementedError

    def forward(
        self, encode: Encode, images: Tensor, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B N C"]:
        """Descriptors of a batch of images: ``B * N`` windows are encoded in one call."""
        count = len(images)
        crops = self.cut(images, generator)
        return encode(crops.flatten(0, 1)).mean((-2, -1)).unflatten(0, (count, -1))

    def cut(self, images: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "B N 3 size size"]:
        """The windows themselves, as images in 0 to 1.

        Raises:
            FieldmarkError: If the images are not square and no size is given.
        """
        rows, columns = images.shape[-2:]
        if self.size is None and rows != columns:
            raise FieldmarkError(
                f"extractor {self.name} got images of {rows} x {columns} pixels; expected square ones, or the option "
                "size (side at which the windows are encoded)"
            )
        if not images.is_floating_point():
            images = images.float() / 255
        places = self.windows(len(images), rows, columns, generator)
        sides = (places.top, places.left, places.height, places.width)
        # One batched resize for each window number; in half precision it would blur the pixels.
        with torch.autocast(images.device.type, enabled=False):
            crops = [
                resize_windows(images, top, left, height, width, self.size or rows)
                for top, left, height, width in zip(*(side.to(images.device).T for side in sides), strict=True)
            ]
        out = torch.stack(crops, dim=1)
        if places.mirrored is None:
            return out
        return torch.where(places.mirrored.to(out.device)[:, :, None, None, None], out.flip(-1), out)
