"""What a model loses when images are rotated or show their object smaller, without having been trained for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from fieldmark.backbones import Backbone, Encoder
from fieldmark.data import ImageStore
from fieldmark.descriptors import Extractor
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.evaluation.statistics import Estimate, Interval, hits_for_file
from fieldmark.evaluation.top1 import Change, evaluate_top1
from fieldmark.evaluation.top1_result import Top1Result
from fieldmark.heads import Head
from fieldmark.shapes import Tensor

PLAIN = "plain"
CHANGES = {
    "rotated": "rotated by 90, 180 or 270 degrees",
    "any_angle": "rotated by any angle",
    "reduced": "reduced, zero-padded",
}
RATIO = 300 / 448


@dataclass(frozen=True)
class RobustnessResult:
    """Outcome of one classifier, or one fitted head, on the same images in several conditions.

    Attributes:
        columns: The result for each condition, ``"plain"`` first.
        ratio: Side of reduced images as a share of the image's.
        seed: Of the angles.
    """

    columns: dict[str, Top1Result] = field(repr=False)
    ratio: float
    seed: int

    @property
    def plain(self) -> Top1Result:
        """The images as they are."""
        return self.columns[PLAIN]

    def lost(self, column: str) -> Estimate:
        """Paired difference of a condition to the plain images; below 0 where the change does harm."""
        return self.columns[column].difference(self.plain)

    def difference(self, other: RobustnessResult, column: str = PLAIN) -> Estimate:
        """Paired difference to another model in one condition.

        Raises:
            FieldmarkError: If the images, or how they were changed, differ.
        """
        if (self.ratio, self.seed) != (other.ratio, other.seed):
            raise FieldmarkError("a paired difference needs images that were changed alike; ratio or seed differ")
        return self.columns[column].difference(other.columns[column])

    def to_dict(self) -> dict[str, Any]:
        """Everything that belongs in a results file: the fields of the plain images' result, and ``columns``.

        The hits on the plain images are the result's ``hits_per_episode`` and do not stand a second time.
        """
        plain = self.plain.to_dict()
        return {
            **plain,
            "task": "robustness",
            "columns": {
                name: {
                    **one.estimate.to_dict(),
                    "top5": one.estimate5.to_dict(),
                    "lost": self.lost(name).to_dict(),
                    **({} if name == PLAIN else {"hits_per_image": hits_for_file(one.hits)}),
                    "confused_pairs": [list(pair) for pair in one.confused()],
                }
                for name, one in self.columns.items()
            },
            "protocol": {**plain["protocol"], "ratio": self.ratio, "seed": self.seed},
        }


def evaluate_robustness(
    model: Encoder | Backbone,
    data: ImageStore,
    head: str | Head | None = None,
    head_options: Mapping[str, Any] | None = None,
    *,
    changes: Sequence[str] = tuple(CHANGES),
    ratio: float = RATIO,
    seed: int = 0,
    support_data: ImageStore | None = None,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
) -> RobustnessResult:
    """Top-1 accuracy on a test set as it is, rotated, and reduced.

    Source: SSANET, Tables 1 and 2, for any model with any classifier or head. The paper leaves the angle open: here
    ``"rotated"`` turns each image by 90, 180 or 270 degrees, ``"any_angle"`` by an angle uniform in 0 to 360; both are
    drawn once an image by the seed, and so are the same for every model.

    Args:
        model: See :func:`fieldmark.evaluation.evaluate_top1`, also for the arguments that are not named here.
        data: The images to be named.
        head: The model's own classifier, or a head that is fitted on ``support_data``, whose images are not changed.
        head_options: Options of the named head.
        changes: Some of ``"rotated"``, ``"any_angle"`` and ``"reduced"``.
        ratio: Side of a reduced image as a share of the image's; the paper's 300 of 448.
        seed: Of the angles.
        support_data: The training images of a head.
        descriptors: Extractor of local descriptors, for heads that take them.
        descriptor_options: Options of the named extractor.
        facts: What is known of the model, for the notes.
        interval: How the confidence interval over images is computed.
        batch_size: Images at a time; default: by their size.
        progress: Show bars for long work on a terminal.

    Raises:
        FieldmarkError: For an unknown change, a ratio that is no share, or what ``evaluate_top1`` refuses.

    Example:
        >>> from fieldmark import backbones, data
        >>> kept, held = data.hold_out(data.load("glyphs", split="test"), 0.2)
        >>> result = evaluate_robustness(backbones.create("pixels"), held, "prototype", support_data=kept)
        >>> list(result.columns), result.lost("rotated").mean < 0
        (['plain', 'rotated', 'any_angle', 'reduced'], True)
    """
    made = {name: make_change(name, len(data), ratio, seed) for name in dict.fromkeys(changes)}
    described: dict[tuple[str, str], Tensor] = {}  # the support is the same in every column
    columns = {
        name: evaluate_top1(
            model, data, head, head_options, support_data=support_data, descriptors=descriptors,
            descriptor_options=descriptor_options, facts=facts, change=change, seed=seed, interval=interval,
            batch_size=batch_size, progress=progress, described=described,
        )
        for name, change in ((PLAIN, None), *made.items())
    }  # fmt: skip
    return RobustnessResult(columns, ratio, seed)


def make_change(name: str, images: int, ratio: float = RATIO, seed: int = 0) -> Change:
    """One of the changes, for a data set of so many images.

    Raises:
        FieldmarkError: For an unknown name or a ratio that is no share.

    Example:
        >>> image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        >>> image[..., 0, 0] = 255
        >>> make_change("rotated", 1)(image, np.array([0]))[0, 0].nonzero().tolist() != [[0, 0]]
        True
    """
    if name not in CHANGES:
        raise unknown_name("change of images", name, CHANGES)
    if not 0 < ratio <= 1:
        raise FieldmarkError(f"ratio is {ratio}; expected a share of the image's side, above 0 and at most 1")
    if name == "reduced":
        return lambda batch, numbers: reduce_images(batch, ratio)
    rng = np.random.default_rng([seed, list(CHANGES).index(name)])
    if name == "rotated":
        turns = rng.integers(1, 4, images)
        return lambda batch, numbers: torch.stack(
            [torch.rot90(image, int(turns[number]), (-2, -1)) for image, number in zip(batch, numbers, strict=True)]
        )
    angles = rng.uniform(0, 360, images)
    return lambda batch, numbers: torch.stack(
        [
            transforms.rotate(image, float(angles[number]), InterpolationMode.BILINEAR)
            for image, number in zip(batch, numbers, strict=True)
        ]
    )


def reduce_images(images: Tensor, ratio: float) -> Tensor:
    """Images ``(B, 3, H, W)`` made smaller, in the middle of black ones of the size they had.

    Example:
        >>> small = reduce_images(torch.full((1, 3, 8, 8), 200, dtype=torch.uint8), 0.5)
        >>> small.shape[-2:], int((small > 0).sum())
        (torch.Size([8, 8]), 48)
    """
    height, width = images.shape[-2:]
    size = [max(1, round(side * ratio)) for side in (height, width)]
    small = transforms.resize(images, size, InterpolationMode.BILINEAR, antialias=True)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return F.pad(small, [left, width - size[1] - left, top, height - size[0] - top])
