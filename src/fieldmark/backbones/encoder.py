"""Images in, feature maps out: the backbone with the normalisation and size that belong to its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.backbones.base import Backbone
from fieldmark.backbones.trained_parts import TrainedClassifier, TrainedHead
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor

CHANNELS = 3


class Encoder(nn.Module):
    """A backbone that takes plain images.

    Args:
        backbone: Gives maps ``(B, C, h, w)`` for normalised images.
        mean: Mean of each colour channel that is subtracted, in the range 0 to 1; default: the backbone's own.
        std: Standard deviation that is divided by.
        size: Height and width at which the backbone runs; images of another size are resized (bicubic, antialiased).
            Default: as they come.
        crop: Height and width of the centre that is cut out of larger images first (as the papers evaluate: images of
            92 pixels, a crop of 84). Default: the whole image.
        head: A head that was trained with the backbone (:func:`fieldmark.heads.create_for` makes it); no part of what
            the encoder computes.
        classifier: The classifier of the classes that it was trained on
            (:func:`fieldmark.classifiers.classifier_of` makes it); likewise.

    Example:
        >>> from fieldmark import backbones
        >>> encoder = Encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> maps = encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        >>> maps.ndim, maps.shape[:2] == (2, encoder.channels)
        (4, True)
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        crop: int | None = None,
        head: TrainedHead | None = None,
        classifier: TrainedClassifier | None = None,
    ) -> None:
        super().__init__()
        # Convolutions run up to four times faster in this layout on a CPU (and with mixed precision on a GPU).
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.size = size
        self.crop = crop
        self.head = head
        self.classifier = classifier
        mean = mean if mean is not None else backbone.mean
        std = std if std is not None else backbone.std
        if mean is None or std is None:
            raise FieldmarkError(f"backbone {backbone.name!r} has no normalisation of its own; give mean and std")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != CHANNELS:
                raise FieldmarkError(f"{name} has {len(values)} values; expected one for each of {CHANNELS} channels")
            self.register_buffer(name, torch.tensor(values).view(1, CHANNELS, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """Channels C of the maps."""
        return self.backbone.channels

    @property
    def device(self) -> torch.device:
        """Where the normalisation, and so the backbone, lives."""
        return self.mean.device

    def cut(self, images: Tensor) -> Tensor:
        """The centre of larger images ``(B, 3, H, W)`` that the model sees; the whole of others."""
        if self.crop is None or min(images.shape[-2:]) <= self.crop:
            return images
        top, left = ((side - self.crop) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.crop, left : left + self.crop]

    def prepare(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)``, uint8 or float in 0 to 1, as the backbone wants them."""
        if images.ndim != 4 or images.shape[1] != CHANNELS:
            raise FieldmarkError(f"images have shape {tuple(images.shape)}; expected (B, {CHANNELS}, H, W)")
        if not images.is_floating_point():
            images = images.to(self.mean.dtype) / 255
        images = self.cut(images)
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Float[Tensor, "B C h w"]:
        """Maps ``(B, C, h, w)`` of images ``(B, 3, H, W)``, uint8 or float in 0 to 1."""
        return self.backbone(self.prepare(images))


def as_encoder(model: Encoder | Backbone, mean: Sequence[float] | None, std: Sequence[float] | None) -> Encoder:
    """The encoder itself; or a backbone with its own normalisation, or else with the given one.

    Args:
        model: Either.
        mean: As of :class:`Encoder`, where the backbone brings none.
        std: Likewise.

    Example:
        >>> from fieldmark import backbones
        >>> as_encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3).mean.flatten().tolist()
        [0.5, 0.5, 0.5]
    """
    if isinstance(model, Encoder):
        return model
    return Encoder(model, mean if model.mean is None else model.mean, std if model.std is None else model.std)
