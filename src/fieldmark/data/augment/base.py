"""What an augmentation is, and how several make a pipeline.

An augmentation takes a whole batch on its device and draws parameters for each image of it from the generator that
it is given: the same generator state gives the same output, and no two images share their parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.registry import Registry
from fieldmark.shapes import Tensor


class Augmentation:
    """Base class: images ``(B, 3, H, W)``, float in 0 to 1, to the same.

    Options are taken and checked in the constructor. A subclass with a ``size`` option makes images of that size.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch of images.

        Args:
            images: ``(B, 3, H, W)``, float in 0 to 1.
            generator: On the images' device; the only source of chance.
        """
        raise NotImplementedError


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


class Augment:
    """A pipeline of augmentations.

    Args:
        steps: Applied in order.

    Example:
        >>> pipeline = create_pipeline(["flip", {"name": "random_crop", "padding": 4}], size=32)
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> out = pipeline(images, torch.Generator().manual_seed(0))
        >>> out.shape, out.dtype, bool(out.min() >= 0 and out.max() <= 1)
        (torch.Size([8, 3, 32, 32]), torch.float32, True)
    """

    def __init__(self, steps: Sequence[Augmentation]) -> None:
        self.steps = list(steps)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images ``(B, 3, H, W)``, uint8 or float in 0 to 1, to float in 0 to 1, in their own precision always."""
        if not images.is_floating_point():
            images = images.float() / 255
        with torch.autocast(images.device.type, enabled=False):  # 8 bits of a colour want more than half precision
            for step in self.steps:
                images = step(images, generator)
        return images


def create_pipeline(specs: Sequence[str | Mapping[str, Any]], size: int) -> Augment:
    """A pipeline from names, or mappings of ``name`` and options, as they stand in a recipe.

    Args:
        specs: For example ``["flip", {"name": "random_crop", "padding": 4}]``.
        size: Side of the resulting images, for every augmentation that has a size and is not told another.

    Raises:
        FieldmarkError: Unknown name or option (the nearest one is named), or an option out of its range.
    """
    steps = []
    for spec in specs:
        options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
        name = options.pop("name", None)
        if name is None:
            raise FieldmarkError(f"augmentation {dict(options)} has no name; expected for example {{name: flip}}")
        entry = AUGMENTATIONS.get(name)
        if "size" in inspect.signature(entry.make).parameters:
            options.setdefault("size", size)
        steps.append(AUGMENTATIONS.create(name, **options))
    return Augment(steps)


def uniform(low: float, high: float, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """``(count,)`` numbers between ``low`` and ``high`` on the images' device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=like.device)


def chance(p: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """``(B,)`` booleans, true with probability ``p``."""
    return torch.rand(len(like), generator=generator, device=like.device) < p


def check_probability(name: str, p: float) -> float:
    """``p`` itself, if it is a probability."""
    if not 0 <= p <= 1:
        raise FieldmarkError(f"p of augmentation {name!r} is {p}; expected 0 to 1")
    return p
