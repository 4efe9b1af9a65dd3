"""Random windows of the image, each encoded as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fieldmark.data.augment import RandomResizedCrop
from fieldmark.descriptors.base import DESCRIPTORS, bounds, counts, is_number
from fieldmark.descriptors.crops import CropExtractor, Windows
from fieldmark.errors import FieldmarkError


@DESCRIPTORS.add(
    "sampling", "random windows of the image, encoded one by one", source="DeepEMD, Zhang et al. 2022, section 4.1"
)
class Sampling(CropExtractor):
    """One node a random window: ``N = patches``.

    Windows have a random area, shape and place (those of the augmentation ``random_resized_crop``, torchvision's
    rule), are resized and mirrored with probability ``flip``; each is encoded and its map averaged.

    Source: DeepEMD (Zhang et al. 2022), section 4.1, with 9, 16 or 25 windows. As in its code windows are random, and
    mirrored, **in evaluation mode too**, so pass a seeded generator for results that can be repeated. Windows are drawn
    image after image, hence a data set that is read in order gets the same ones whatever the batch size.

    Args:
        patches: Windows an image.
        scale: Least and greatest share of the image's area.
        aspect: Least and greatest width over height.
        flip: Probability that a window is mirrored left to right.
        size: Side at which a window is encoded; default: that of the image.

    Raises:
        FieldmarkError: For an option out of its range.

    Example:
        >>> sampling, images = Sampling(patches=9), torch.rand(2, 3, 16, 16)
        >>> first, again = (sampling(lambda x: x, images, torch.Generator().manual_seed(0)) for _ in range(2))
        >>> first.shape, bool((first == again).all())
        (torch.Size([2, 9, 3]), True)
    """

    def __init__(
        self,
        patches: int = 25,
        scale: Sequence[float] = (0.08, 1.0),
        aspect: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        size: int | None = None,
    ) -> None:
        super().__init__(size)
        (self.crops,) = counts("sampling", "patches", [patches])
        scale, aspect = bounds("sampling", "scale", scale, most=1.0), bounds("sampling", "aspect", aspect)
        if not is_number(flip) or not 0 <= flip <= 1:
            raise FieldmarkError(f"flip of extractor sampling is {flip!r}; expected a probability, 0 to 1")
        self.flip = float(flip)
        self._crop = RandomResizedCrop(1, scale, aspect)  # only where it cuts is used
        self.options |= {"patches": patches, "scale": list(scale), "aspect": list(aspect), "flip": self.flip}

    def windows(self, images: int, rows: int, columns: int, generator: torch.Generator | None) -> Windows:
        """Random windows inside the image, drawn for one image after the other."""
        generator = torch.default_generator if generator is None else generator
        # Stands for the image, whose shape alone matters. Drawing takes far less time than encoding the windows.
        frame = torch.empty(1, 1, 1, 1, device=generator.device).expand(self.crops, 3, rows, columns)
        drawn = []
        for _ in range(images):
            place = self._crop.window(frame, generator)
            mirrored = torch.rand(self.crops, generator=generator, device=generator.device) < self.flip
            drawn.append((*place, mirrored))
        return Windows(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))
