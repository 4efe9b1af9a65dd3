"""How far the middles of part boxes are from annotated key points (CUB), as a fitted image has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Encoder
from fieldmark.classifiers.part_features import PartClassifier
from fieldmark.classifiers.trained import classifier_of
from fieldmark.data import load
from fieldmark.data.images import Fit, as_size, check_fit
from fieldmark.data.layouts.base import Root, locate, table
from fieldmark.data.sources import open_source
from fieldmark.errors import FieldmarkError
from fieldmark.progress import track


@dataclass(frozen=True)
class PointDistance:
    """Mean distances, in pixels of the images as the model sees them.

    Attributes:
        proposed: Of the middle of each part (K, in the order of the navigator) to the nearest key point.
        aligned: The same after the alignment of scales; None for a model that aligns none.
        images: How many images count: those with a visible key point.
        size: Height and width of the images.
    """

    proposed: list[float]
    aligned: list[float] | None
    images: int
    size: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with the means over the parts."""
        means = {"proposed": float(np.mean(self.proposed))}
        if self.aligned is not None:
            means["aligned"] = float(np.mean(self.aligned))
        return {
            "proposed": self.proposed, "aligned": self.aligned, "mean": means, "images": self.images,
            "size": list(self.size),
        }  # fmt: skip


def read_key_points(root: Root) -> dict[str, np.ndarray]:
    """The visible key points of the images of CUB-200-2011.

    Args:
        root: The folder or archive with ``images.txt`` and ``parts/part_locs.txt``.

    Returns:
        For each image, by its path below ``images/`` ("001.Black_footed_Albatross/..."), ``(P, 2)`` x and y in pixels
        of the image file; no rows where no part is visible.

    Raises:
        FieldmarkError: If a file is missing or damaged.
    """
    source = open_source(root)
    prefix = locate(source, "images.txt")
    name = f"{prefix}parts/part_locs.txt"
    if prefix is None or name not in set(source.names()):
        raise FieldmarkError(
            f"{source.path} has no images.txt with parts/part_locs.txt; expected the unpacked archive of CUB-200-2011"
        )
    paths = dict(table(source, f"{prefix}images.txt"))
    points: dict[str, list[tuple[float, float]]] = {path: [] for path in paths.values()}
    for number, _, x, y, visible in table(source, name, columns=5):
        if number not in paths:
            raise FieldmarkError(f"{source.where(name)} has key points of image {number}, which images.txt lacks")
        if visible == "1":
            points[paths[number]].append((float(x), float(y)))
    return {path: np.array(places, np.float64).reshape(-1, 2) for path, places in points.items()}


def fitted_points(
    points: np.ndarray, image: tuple[int, int], size: int | tuple[int, int], fit: Fit = "crop", crop: int | None = None
) -> np.ndarray:
    """Where points of an image are once it is fitted to a size (:func:`fieldmark.data.images.fit_image`).

    Args:
        points: ``(P, 2)`` x and y.
        image: Height and width of the image file.
        size: Side, or (height, width), it is fitted to.
        fit: ``"crop"``, ``"squash"`` or ``"pad"``.
        crop: Side of the centre that the model cuts out of it afterwards.

    Returns:
        ``(P, 2)``; those that were cut away lie outside the image.

    Example:
        >>> fitted_points(np.array([[100.0, 50.0]]), (100, 200), 50).tolist()  # the middle stays the middle
        [[25.0, 25.0]]
    """
    check_fit(fit)
    height, width = as_size(size)
    scale = np.array([width / image[1], height / image[0]])
    shift = np.zeros(2)
    if fit != "squash":
        one = float(scale.max() if fit == "crop" else scale.min())
        new = np.array([max(1, int(image[1] * one + 1e-6)), max(1, int(image[0] * one + 1e-6))])
        spare = np.array([width, height]) - new
        shift = -np.round(-spare / 2) if fit == "crop" else spare // 2
        scale = new / np.array([image[1], image[0]])
    placed = points * scale + shift
    if crop is not None and min(height, width) > crop:
        placed = placed - np.array([(width - crop) // 2, (height - crop) // 2])
    return placed


def point_distance(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances from the middles of boxes to the nearest of some points.

    Source: SSANET, section 4.2 and Fig. 4.

    Args:
        boxes: ``(K, 4)`` left, top, right, bottom.
        points: ``(P, 2)`` x and y, at least one.

    Example:
        >>> point_distance(np.array([[0.0, 0.0, 8.0, 6.0]]), np.array([[4.0, 5.0], [4.0, 30.0]])).tolist()
        [2.0]
    """
    if not len(points):
        raise FieldmarkError("there is no key point to measure a distance to; leave images without visible ones out")
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.linalg.norm(middles[:, None] - points[None], axis=-1).min(1)


def check_parts(model: Any, name: str = "this model") -> PartClassifier:
    """The classifier by parts that a model brings.

    Args:
        model: An encoder.
        name: What to call it.

    Raises:
        FieldmarkError: If it brings none.
    """
    try:
        classifier = classifier_of(model)
    except FieldmarkError as error:
        raise FieldmarkError(f"{name}: {error}") from None
    if not isinstance(classifier, PartClassifier):
        raise FieldmarkError(
            f"{name}: its classifier {model.classifier.name!r} looks at no parts; expected nts or ssanet"
        )
    return classifier


@torch.inference_mode()
def evaluate_point_distance(
    model: Encoder,
    root: Root,
    split: str = "test",
    size: int | None = None,
    fit: Fit | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> PointDistance:
    """Mean distance of a model's parts to the key points of CUB-200-2011 (Fig. 4 of SSANET).

    Args:
        model: With a classifier by parts (``nts`` or ``ssanet``).
        root: The data set.
        split: Split of it.
        size: Of the stored images; default: the data set's own.
        fit: How they are brought to it; default: the data set's own.
        batch_size: Images at a time.
        progress: Show a bar.

    Raises:
        FieldmarkError: If the model has no such classifier, or the data set no key points.
    """
    classifier = check_parts(model)
    known, store, source = read_key_points(root), load("cub", root, split, size=size, fit=fit), open_source(root)
    found: list[list[np.ndarray]] = [[], []]
    for start in track(range(0, len(store), batch_size), "looking at parts", batch_size, len(store), show=progress):
        numbers = range(start, min(start + batch_size, len(store)))
        images = model.cut(store.gather(numbers)).to(model.device).float() / 255
        looked = classifier.part_boxes(model, images)
        for row, number in enumerate(numbers):
            name = store.names[number]
            shape = source.image(name).size[::-1]
            points = fitted_points(_points_of(known, name), shape, store.size, store.manifest.fit, model.crop)  # type: ignore[arg-type]
            for side, boxes in zip(found, (looked.proposed, looked.aligned), strict=True):
                if boxes is not None and len(points):
                    side.append(point_distance(boxes[row].float().cpu().numpy(), points))
    if not found[0]:
        raise FieldmarkError(f"no image of split {split!r} has a visible key point")
    proposed, aligned = (_means(side) for side in found)
    crop = model.crop if model.crop is not None and min(store.size) > model.crop else None
    return PointDistance(proposed, aligned or None, len(found[0]), (crop, crop) if crop else store.size)


def _means(rows: Sequence[np.ndarray]) -> list[float]:
    return np.mean(rows, axis=0).tolist() if rows else []


def _points_of(known: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """By the file's name as a store has it, which begins with folders of the archive."""
    path = name.split("images/", 1)[-1]
    return known[path] if path in known else np.empty((0, 2))
