"""AutoAugment and RandAugment: published lists of operations, applied to groups of images that drew the same one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

import torch

from fieldmark.data.augment.base import AUGMENTATIONS, Augmentation
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Tensor

Policy = Literal["imagenet", "cifar10", "svhn"]


@AUGMENTATIONS.add("auto_augment", "a learned policy of two operations", source="Cubuk et al., AutoAugment, CVPR 2019")
class AutoAugment(Augmentation):
    """One of a policy's 25 pairs of operations for each image, each with its own probability.

    Args:
        policy: On what the policy was learned: imagenet, cifar10 or svhn.
    """

    def __init__(self, policy: Policy = "cifar10") -> None:
        from torchvision.transforms import v2

        known = {one.value: one for one in v2.AutoAugmentPolicy}
        if policy not in known:
            raise unknown_name("policy of augmentation 'auto_augment'", policy, known)
        self._transform = v2.AutoAugment(known[policy])
        self._space = self._transform._AUGMENTATION_SPACE
        self._policies = self._transform._policies

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        count = len(images)
        rows = torch.randint(0, len(self._policies), (count,), generator=generator, device=images.device).tolist()
        drawn = torch.rand(count, 4, generator=generator, device=images.device).tolist()
        for place in (0, 1):
            groups: dict[tuple[str, float | None], list[int]] = defaultdict(list)
            for image, (row, numbers) in enumerate(zip(rows, drawn, strict=True)):
                name, probability, level = self._policies[row][place]
                if numbers[place] <= probability:
                    groups[name, self._magnitude(name, level, numbers[2 + place], images)].append(image)
            images = _apply(self._transform, images, groups)
        return images

    def _magnitude(self, name: str, level: int | None, sign: float, images: Tensor) -> float | None:
        make, signed = self._space[name]
        levels = make(10, *images.shape[-2:])
        if levels is None:
            return None
        value = float(levels[level])
        return -value if signed and sign < 0.5 else value


@AUGMENTATIONS.add(
    "rand_augment", "a number of random operations of one strength", source="Cubuk et al., RandAugment, NeurIPS 2020"
)
class RandAugment(Augmentation):
    """``operations`` random operations in a row, all of the same magnitude.

    Args:
        operations: How many (1: weak; "stacked" in SCL: 2 or more).
        magnitude: Strength, 0 to 30.
    """

    def __init__(self, operations: int = 2, magnitude: int = 9) -> None:
        from torchvision.transforms import v2

        if operations < 1 or not 0 <= magnitude <= 30:
            raise FieldmarkError(
                f"rand_augment has {operations} operations of magnitude {magnitude}; expected at least 1, and 0 to 30"
            )
        self.operations, self.magnitude = operations, magnitude
        self._transform = v2.RandAugment(operations, magnitude)
        self._space = self._transform._AUGMENTATION_SPACE

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of the same size."""
        names = list(self._space)
        shape = (len(images), self.operations)
        chosen = torch.randint(0, len(names), shape, generator=generator, device=images.device).tolist()
        signs = torch.rand(shape, generator=generator, device=images.device).tolist()
        for place in range(self.operations):
            groups: dict[tuple[str, float | None], list[int]] = defaultdict(list)
            for image in range(len(images)):
                name = names[chosen[image][place]]
                make, signed = self._space[name]
                levels = make(31, *images.shape[-2:])
                value = None if levels is None else float(levels[self.magnitude])
                if value is not None and signed and signs[image][place] < 0.5:
                    value = -value
                groups[name, value].append(image)
            images = _apply(self._transform, images, groups)
        return images


def _apply(transform: Any, images: Tensor, groups: dict[tuple[str, float | None], list[int]]) -> Tensor:
    """Each group at once. The operations are defined on 8 bits, so the images are brought there and back."""
    from torchvision.transforms import v2

    eight = (images * 255).round().to(torch.uint8)
    out = eight.clone()
    for (name, magnitude), members in groups.items():
        if name != "Identity":
            out[members] = transform._apply_image_or_video_transform(
                eight[members], name, magnitude or 0.0, v2.InterpolationMode.NEAREST, {}
            )
    return out.to(images.dtype) / 255
