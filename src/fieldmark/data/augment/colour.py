"""What colour the pixels are: jitter and grey."""

from __future__ import annotations

import torch

from fieldmark.data.augment.base import AUGMENTATIONS, Augmentation, chance, check_probability, uniform
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor

_GREY = (0.2989, 0.587, 0.114)


@AUGMENTATIONS.add("colour_jitter", "random brightness, contrast, saturation and hue, in random order")
class ColourJitter(Augmentation):
    """Brightness, contrast, saturation and hue by random amounts, in an order of its own for each image.

    Args:
        brightness: Factor between 1 - b and 1 + b.
        contrast: Likewise, around the image's mean grey.
        saturation: Likewise, around its grey version.
        hue: Shift between -h and h of the colour circle, at most 0.5.
        p: Probability that an image is changed at all.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.0,
        p: float = 1.0,
    ) -> None:
        amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, amount in amounts.items():
            most = 0.5 if name == "hue" else 1.0
            if not 0 <= amount <= most:
                raise FieldmarkError(f"{name} of colour_jitter is {amount}; expected 0 to {most}")
        self.amounts = {name: amount for name, amount in amounts.items() if amount}
        self.p = check_probability("colour_jitter", p)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        count = len(images)
        changed = chance(self.p, images, generator)
        order = torch.rand(count, len(self.amounts), generator=generator, device=images.device).argsort(1)
        drawn = []
        for name, amount in self.amounts.items():
            middle = 0.0 if name == "hue" else 1.0
            factors = uniform(middle - amount, middle + amount, count, images, generator)
            drawn.append(torch.where(changed, factors, middle)[:, None, None, None])
        images = images.clone(memory_format=torch.contiguous_format)
        for place in range(len(self.amounts)):
            for number, name in enumerate(self.amounts):
                mine = (order[:, place] == number).nonzero()[:, 0]
                if len(mine):
                    images[mine] = _CHANGES[name](images[mine], drawn[number][mine])
        return images


@AUGMENTATIONS.add("grayscale", "grey with probability p")
class Grayscale(Augmentation):
    """Replace the colours by grey.

    Args:
        p: Probability.
    """

    def __init__(self, p: float = 0.2) -> None:
        self.p = check_probability("grayscale", p)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        chosen = chance(self.p, images, generator)[:, None, None, None]
        return torch.where(chosen, grey(images), images)


def grey(images: Tensor) -> Tensor:
    """Luminance ``(B, 1, H, W)`` of images ``(B, 3, H, W)``.

    Example:
        >>> float(grey(torch.ones(1, 3, 1, 1)))
        0.9999...
    """
    red, green, blue = images.unbind(1)
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).unsqueeze(1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale towards black (factor 0)."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale around the mean grey of the image."""
    mean = grey(images).mean((-1, -2), keepdim=True)
    return (images * factor + mean * (1 - factor)).clamp(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale around the grey image."""
    return (images * factor + grey(images) * (1 - factor)).clamp(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour circle by ``shift`` turns, by way of hue, saturation and value."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    sixth = 1 / torch.where(spread > 0, 6 * spread, 1.0)
    angle = torch.where(
        value == red,
        (green - blue) * sixth,
        torch.where(value == green, (blue - red) * sixth + 1 / 3, (red - green) * sixth + 2 / 3),
    )
    turned = angle + shift[:, :, 0]
    turned = (turned - turned.floor()) * 6  # the remainder operator is several times slower
    # The six sectors of the circle as one formula a channel.
    out = torch.empty_like(images)
    for channel, offset in enumerate((5, 3, 1)):
        place = turned + offset
        place = torch.where(place >= 6, place - 6, place)
        out[:, channel] = value - spread * torch.minimum(place, 4 - place).clamp(0, 1)
    return out


_CHANGES = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
