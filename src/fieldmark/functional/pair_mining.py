"""Pairs and triplets of a batch by class and distance, for losses that look at two images together."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Bool, Float, Int, Tensor

Kind = Literal["similar", "dissimilar", "none"]
Variant = Literal["paper", "code"]


class Pairs(NamedTuple):
    """Pairs of images by their places in the batch.

    Attributes:
        first: ``(P,)`` the image that was looked at.
        second: ``(P,)`` its partner.
    """

    first: Int[Tensor, " P"]
    second: Int[Tensor, " P"]


class Triplets(NamedTuple):
    """Triplets of images by their places in the batch.

    Attributes:
        anchor: ``(T,)``.
        positive: ``(T,)`` another image of the anchor's class.
        negative: ``(T,)`` an image of another class.
    """

    anchor: Int[Tensor, " T"]
    positive: Int[Tensor, " T"]
    negative: Int[Tensor, " T"]


def mine_pairs(
    features: Float[Tensor, "B D"],
    labels: Int[Tensor, " B"],
    intra: Kind = "similar",
    inter: Kind = "similar",
    *,
    variant: Variant = "paper",
    generator: torch.Generator | None = None,
) -> Pairs:
    """Two partners for every image of a batch: an intra pair within its class, an inter pair with another class.

    Source: API-Net (Zhuang et al. 2020), section 3, "Pair construction", and Table 4, whose nine rows are the nine
    combinations of ``intra`` and ``inter``. Similar is the nearest image by Euclidean distance, dissimilar the
    farthest; of equally far ones the first in the batch. With one kind of pair an image takes the two most
    (dis)similar ones of that kind, so that the number of pairs stays; with none of both, ``2 B`` pairs are drawn at
    random.

    An image is never its own partner. One without another image of its class forms no intra pair, one whose batch has
    no other class no inter pair; there are then fewer pairs. No gradient flows.

    Args:
        features: Of the images.
        labels: Their classes.
        intra: The partner of the own class: ``"similar"``, ``"dissimilar"`` or ``"none"``.
        inter: The partner of another class.
        variant: ``"code"``: an image without another of its class forms an intra pair with image 0, whatever that is
            (itself, for image 0), as in the official code.
        generator: For random pairs; on the features' device.

    Returns:
        All images' intra pairs in order, then all inter pairs; with one kind, all first choices, then all second ones.

    Raises:
        FieldmarkError: For an unknown kind or variant, or labels that do not fit the features.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
        >>> pairs = mine_pairs(features, torch.tensor([0, 0, 1, 1]))
        >>> list(zip(pairs.first.tolist(), pairs.second.tolist()))
        [(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (1, 2), (2, 1), (3, 1)]
    """
    _check(features, labels, intra, inter)
    if variant not in get_args(Variant):
        raise unknown_name("variant of mine_pairs", variant, get_args(Variant))
    if intra == inter == "none":
        return _random_pairs(len(labels), labels.device, generator)
    distances, strangers, fellows = _compared(features, labels)
    choices = [
        _chosen(distances, barred, kind, 1 if "none" not in (intra, inter) else 2)
        for barred, kind in ((strangers, intra), (fellows, inter))
        if kind != "none"
    ]
    second, valid = (torch.cat(part) for part in zip(*choices, strict=True))
    if variant == "code" and intra != "none":
        # Without an allowed partner all distances are infinite, and the first of them is the official code's choice.
        first_choices = torch.arange(len(second), device=second.device) < len(labels)
        valid = valid | first_choices
    first = torch.arange(len(labels), device=labels.device).repeat(len(second) // max(len(labels), 1))
    return Pairs(first, second) if bool(valid.all()) else Pairs(first[valid], second[valid])


def mine_triplets(
    features: Float[Tensor, "B D"], labels: Int[Tensor, " B"], intra: Kind = "similar", inter: Kind = "similar"
) -> Triplets:
    """Every image with its partner of the own class and its partner of another class, as :func:`mine_pairs` has them.

    Images that lack one of the two are left out. ``intra="dissimilar"`` with ``inter="similar"`` are the hardest
    triplets of a batch (Hermans et al. 2017).

    Args:
        features: Of the images.
        labels: Their classes.
        intra: ``"similar"`` or ``"dissimilar"``.
        inter: Likewise.

    Raises:
        FieldmarkError: For another kind, or labels that do not fit the features.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [5.0]])
        >>> mine_triplets(features, torch.tensor([0, 0, 1]))
        Triplets(anchor=tensor([0, 1]), positive=tensor([1, 0]), negative=tensor([2, 2]))
    """
    _check(features, labels, intra, inter)
    for name, kind in (("intra", intra), ("inter", inter)):
        if kind == "none":
            raise FieldmarkError(f"{name} of mine_triplets is 'none'; expected similar or dissimilar")
    distances, strangers, fellows = _compared(features, labels)
    positive, has_positive = _chosen(distances, strangers, intra, 1)
    negative, has_negative = _chosen(distances, fellows, inter, 1)
    valid = has_positive & has_negative
    return Triplets(torch.arange(len(labels), device=labels.device)[valid], positive[valid], negative[valid])


def _compared(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What orders partners as squared distances do, and who cannot be whose intra and inter partner."""
    values = features.detach()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    fellows = labels.unsqueeze(0) == labels.unsqueeze(1)
    strangers = (~fellows).fill_diagonal_(fill_value=True)
    with torch.autocast(values.device.type, enabled=False):
        # Around their mean the features are shorter, and the difference below loses less. The squared length of the
        # row's own image is left out: it is the same for all its partners.
        values = values - values.mean(0)
        distances = torch.addmm(values.square().sum(1).unsqueeze(0), values, values.T, alpha=-2)
    return distances, strangers, fellows


def _chosen(distances: Tensor, barred: Bool[Tensor, "B B"], kind: str, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` nearest or farthest images of each but the barred ones, one after the other; which there are."""
    if not distances.numel():
        empty = torch.zeros(0, dtype=torch.long, device=distances.device)
        return empty, empty.bool()
    values = (distances if kind == "similar" else -distances).masked_fill(barred, torch.inf)
    places, found = [], []
    for number in range(count):
        least, place = values.min(1)
        places.append(place)
        found.append(least < torch.inf)
        if number + 1 < count:
            values = values.scatter(1, place.unsqueeze(1), torch.inf)
    return torch.cat(places), torch.cat(found)


def _random_pairs(images: int, device: torch.device, generator: torch.Generator | None) -> Pairs:
    if images < 2:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return Pairs(empty, empty)
    first = torch.randint(images, (2 * images,), device=device, generator=generator)
    step = torch.randint(1, images, (2 * images,), device=device, generator=generator)
    return Pairs(first, (first + step) % images)


def _check(features: Tensor, labels: Tensor, intra: str, inter: str) -> None:
    for name, kind in (("intra", intra), ("inter", inter)):
        if kind not in get_args(Kind):
            raise unknown_name(f"{name} of pair mining", kind, get_args(Kind))
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise FieldmarkError(
            f"features of shape {tuple(features.shape)} with labels of shape {tuple(labels.shape)}; expected (B, D) "
            "and one label for each of the B images"
        )
