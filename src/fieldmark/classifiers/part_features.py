"""What classifiers by parts have in common: proposals of parts, and the maps of what lies in boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch.nn import functional as F

from fieldmark.classifiers.base import Classifier, Encode
from fieldmark.classifiers.navigator import Navigator, anchors_of
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.boxes import clip_boxes, top_boxes
from fieldmark.functional.regions import region_maps
from fieldmark.shapes import Float, Tensor

PartSource = Literal["shared", "reextract"]
_AT_ONCE = 64  # crops that are encoded together where nothing is learned


@dataclass(frozen=True)
class Proposals:
    """The best boxes of each image.

    Attributes:
        images: ``(B, 3, H, W)`` as the encoder saw them; the boxes are in their pixels.
        maps: ``(B, C, h, w)`` of the whole images.
        boxes: ``(B, M, 4)``, best first, clipped to the image.
        scores: ``(B, M)`` of the navigator.
    """

    images: Tensor
    maps: Tensor
    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class PartBoxes:
    """Where a classifier by parts looks, for pictures and measures.

    Attributes:
        proposed: ``(B, K, 4)`` parts in the order of the navigator's scores, in pixels of the encoded image.
        aligned: ``(B, K, 4)`` the same with aligned scale; None for a classifier that aligns none.
        maps: ``(B, K, C, roi, roi)`` of the aligned boxes, else of the proposed ones.
        logits: ``(B, L)`` the decision.
    """

    proposed: Tensor
    aligned: Tensor | None
    maps: Tensor
    logits: Tensor


class PartClassifier(Classifier):
    """Base class of classifiers that look at parts of the image which a navigator proposes.

    Anchors go by the stride that the backbone's map has in the image: at stride 32 the smallest boxes have 60 pixels
    (60, 76; 121, 152; 192, 242, 305), whatever the image's side. ``anchor_size`` scales them all.

    Args:
        parts: K: parts that the classifier looks at.
        proposals: M: the best boxes whose order the navigator learns, at least K.
        features: Of a box: ``"shared"``: RoI align from the map of the whole image; ``"reextract"``: the box is cut
            out, resized and encoded by itself.
        part_size: Side in pixels of a part that is encoded by itself.
        roi_size: Rows and columns of a part's map.
        overlap: Boxes that overlap a better one by more than this are dropped (non-maximum suppression).
        anchor_size: Side of the anchors of scale 1, in strides of the map.

    Raises:
        FieldmarkError: For an unknown value or one out of range.
    """

    kind: ClassVar[str] = "by parts"
    navigator: Navigator

    def __init__(
        self,
        parts: int = 4,
        proposals: int = 6,
        features: PartSource = "shared",
        part_size: int = 224,
        roi_size: int = 7,
        overlap: float = 0.25,
        anchor_size: float = 1.5,
    ) -> None:
        super().__init__()
        check_choice(self.kind, "features", features, get_args(PartSource))
        for option, value, least in (
            ("parts", parts, 1), ("proposals", proposals, parts), ("part_size", part_size, 1),
            ("roi_size", roi_size, 1),
        ):  # fmt: skip
            if value < least:
                raise FieldmarkError(f"{option} of classifier {self.kind} is {value}; expected at least {least}")
        if not 0 <= overlap <= 1 or not anchor_size > 0:
            raise FieldmarkError(
                f"overlap of classifier {self.kind} is {overlap} and anchor_size {anchor_size}; expected 0 to 1 and a "
                "number above 0"
            )
        self.parts, self.proposals, self.features = parts, proposals, features
        self.part_size, self.roi_size, self.overlap, self.anchor_size = part_size, roi_size, overlap, anchor_size

    def setup(self, channels: int, classes: int) -> None:
        """Build the navigator; classes that follow build the rest."""
        self.navigator = Navigator(channels)

    def propose(self, encode: Encode, images: Float[Tensor, "B 3 H W"], count: int) -> Proposals:
        """The best ``count`` boxes of each image; no gradient comes back through the boxes, but through the scores."""
        images = as_encoded(encode, images)
        maps = encode(images)
        scores = self.navigator(maps)
        size = sides(images)
        anchors = anchors_of(size, sides(maps), self.anchor_size).to(maps.device)
        chosen = top_boxes(anchors, scores.float(), count, self.overlap)
        return Proposals(images, maps, clip_boxes(anchors[chosen], size), scores.gather(1, chosen))

    def part_boxes(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> PartBoxes:
        """Where it looks, and what it decides."""
        raise NotImplementedError

    def part_maps(
        self, encode: Encode, found: Proposals, boxes: Float[Tensor, "B N 4"]
    ) -> Float[Tensor, "B N C roi roi"]:
        """The map of what lies in each box."""
        if self.features == "shared":
            return region_maps(found.maps, boxes, sides(found.images), self.roi_size)
        crop = getattr(encode, "crop", None)
        side = self.part_size if crop is None else min(self.part_size, crop)  # larger ones would be cut
        maps = encode_parts(encode, cut_boxes(found.images, boxes, side))
        if maps.shape[-2:] != (self.roi_size, self.roi_size):
            maps = F.adaptive_avg_pool2d(maps, self.roi_size)
        return maps.unflatten(0, boxes.shape[:2])


def sides(images: Tensor) -> tuple[int, int]:
    """Height and width.

    Example:
        >>> sides(torch.zeros(1, 3, 4, 5))
        (4, 5)
    """
    return images.shape[-2], images.shape[-1]


def as_encoded(encode: Encode, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
    """The part of the images that the encoder looks at: the middle, where it has a crop. Boxes are in its pixels."""
    crop: Any = getattr(encode, "crop", None)
    if crop is None or min(images.shape[-2:]) <= crop:
        return images
    top, left = ((side - crop) // 2 for side in images.shape[-2:])
    return images[..., top : top + crop, left : left + crop]


def cut_boxes(
    images: Float[Tensor, "B 3 H W"], boxes: Float[Tensor, "B N 4"], side: int
) -> Float[Tensor, "P 3 side side"]:
    """The boxes as images of their own, ``P = B * N``, resized (bilinear, antialiased); edges at whole pixels."""
    from fieldmark.data.augment import resize_windows

    limits = boxes.new_tensor(images.shape[-2:]).flip(0)
    low = boxes[..., :2].round().clamp_min(0).minimum(limits - 1)
    high = boxes[..., 2:].round().minimum(limits).maximum(low + 1)
    left, top, width, height = torch.cat([low, high - low], dim=-1).long().permute(2, 1, 0)
    with torch.autocast(images.device.type, enabled=False):
        parts = [
            resize_windows(images, *one, side) for one in zip(top, left, height, width, strict=True)
        ]  # fmt: skip
    return torch.stack(parts, dim=1).flatten(0, 1).clamp(0, 1)


def encode_parts(encode: Encode, parts: Float[Tensor, "P 3 side side"]) -> Float[Tensor, "P C h w"]:
    """Encode crops; a part at a time where no gradient is wanted, so that many crops fit into memory."""
    if torch.is_grad_enabled():
        return encode(parts)
    return torch.cat([encode(some) for some in parts.split(_AT_ONCE)])


def check_choice(owner: str, option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that an option does not take.

    Example:
        >>> check_choice("ssanet", "features", "share", ("shared", "reextract"))
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown features of classifier ssanet 'share'; did you mean 'shared'? ...
    """
    if value not in known:
        raise unknown_name(f"{option} of classifier {owner}", value, known)
