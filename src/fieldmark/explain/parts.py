"""Which parts of images a classifier by parts looks at, before and after their scales are aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Encoder
from fieldmark.classifiers.part_features import PartClassifier, Proposals
from fieldmark.classifiers.ssanet import SSANetClassifier
from fieldmark.classifiers.trained import classifier_of
from fieldmark.data.images import Fit, check_fit, fit_image
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.point_distance import fitted_points, point_distance
from fieldmark.explain.images import Picture, load_picture, name_of, side_of
from fieldmark.functional.orientation import oriented_pool
from fieldmark.shapes import Tensor


@dataclass(frozen=True)
class Look:
    """Where one model looks in one image.

    Attributes:
        proposed: ``(K, 4)`` its parts, in the order of the navigator, in pixels of the image.
        aligned: ``(K, 4)`` with aligned scales; None for a model that aligns none.
        guess: Its class.
        probability: And how sure it is, 0 to 1.
        maps: ``(K, side * side)`` mean over the channels of each part's map, place by place.
        rows: ``(K, E)`` mean over the channels of each part's horizontal pooling; empty without oriented pooling.
        columns: ``(K, E)`` of its vertical pooling.
    """

    proposed: np.ndarray
    aligned: np.ndarray | None
    guess: str
    probability: float
    maps: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        """The parts that decide."""
        return self.proposed if self.aligned is None else self.aligned


@dataclass(frozen=True)
class PartView:
    """One image.

    Attributes:
        image: ``(H, W, 3)`` uint8, as the model sees it.
        name: Of its file.
        look: Of the model.
        beside: Of the model that it is compared with; None without one.
        maps_beside: ``(K, side * side)``: the other model's maps of the first model's boxes, as ``look.maps``.
        points: ``(P, 2)`` key points in pixels; None where they are not known.
    """

    image: np.ndarray
    name: str
    look: Look
    beside: Look | None = None
    maps_beside: np.ndarray | None = None
    points: np.ndarray | None = None


@dataclass(frozen=True)
class PartViews:
    """Images and the parts that are looked at.

    Attributes:
        views: The images.
        facts: Backbone, classifier, sizes; of the other model as well.
    """

    views: tuple[PartView, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without pixels and maps."""
        return {"images": [_view_values(one) for one in self.views], **self.facts}


def parts(
    model: Encoder,
    images: Sequence[Picture],
    *,
    beside: Encoder | None = None,
    key_points: Sequence[np.ndarray | None] | None = None,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
) -> PartViews:
    """Where a model looks.

    Source: SSANET, Figs. 5 to 7.

    Args:
        model: An encoder with a classifier by parts (``nts`` or ``ssanet``).
        images: Files, PIL images of mode RGB, or uint8 arrays (H, W, 3).
        beside: Another such model to be compared with, in the paper NTS-Net.
        key_points: For each image ``(P, 2)`` x and y in pixels of its file, or None.
        size: Side, or (height, width), at which the model sees them; default: the model's own.
        fit: How they are brought to that size.

    Raises:
        FieldmarkError: For unreadable images, a model without such a classifier, or key points of another number of
            images.

    Example:
        >>> from fieldmark import backbones, classifiers
        >>> from fieldmark.classifiers.trained import keep
        >>> encoder = Encoder(backbones.create("conv4", channels=8), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
        >>> made = classifiers.create("ssanet")
        >>> made.setup(encoder.channels, 2)
        >>> encoder.classifier = keep(made, ["apple", "pear"])
        >>> image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        >>> found = parts(encoder, [image], size=64)
        >>> found.views[0].look.aligned.shape, found.views[0].look.maps.shape
        ((4, 4), (4, 49))
    """
    check_fit(fit)
    if not images:
        raise FieldmarkError("there is no image to look at; expected at least one")
    if key_points is not None and len(key_points) != len(images):
        raise FieldmarkError(
            f"key points of {len(key_points)} images for {len(images)}; expected one set (or None) each"
        )
    side = side_of(model, size)
    files = [load_picture(one) for one in images]
    fitted = [fit_image(one, side, fit) for one in files]
    seen = model.cut(torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2)).float() / 255
    own = _look(model, seen)
    other = [None] * len(files) if beside is None else _look(beside, seen)
    theirs = [None] * len(files) if beside is None else _maps_of(beside, seen, [one.boxes for one in own])
    shape = fitted[0].shape[:2]
    views = []
    for number, file in enumerate(files):
        points = None if key_points is None else key_points[number]
        if points is not None:
            points = fitted_points(points, file.size[::-1], (shape[0], shape[1]), fit, model.crop)
        picture = (seen[number] * 255).round().byte().permute(1, 2, 0).numpy()
        name = name_of(images[number], f"image {number + 1}")
        views.append(PartView(np.ascontiguousarray(picture), name, own[number], other[number], theirs[number], points))
    facts = {**_facts_of(model), "size": list(seen.shape[-2:]), "fit": fit}
    facts["beside"] = None if beside is None else _facts_of(beside)
    return PartViews(tuple(views), facts)


def _classifier(model: Encoder) -> PartClassifier:
    classifier = classifier_of(model)
    if not isinstance(classifier, PartClassifier):
        name = model.classifier.name if model.classifier is not None else "none"
        raise FieldmarkError(
            f"the model's classifier is {name!r}, which looks at no parts; expected a model trained with nts or ssanet"
        )
    return classifier


@torch.inference_mode()
def _look(model: Encoder, images: Tensor) -> list[Look]:
    classifier = _classifier(model)
    assert model.classifier is not None
    was_training = model.training
    model.eval()
    try:
        found = classifier.part_boxes(model, images.to(model.device))
    finally:
        model.train(was_training)
    best = found.logits.softmax(-1).max(-1)
    maps = found.maps.float().cpu()
    rows, columns = _pooled(classifier, maps)
    places = maps.mean(2).flatten(2).numpy()
    proposed = found.proposed.cpu().numpy()
    aligned = [None] * len(images) if found.aligned is None else list(found.aligned.cpu().numpy())
    return [
        Look(
            proposed[i], aligned[i], model.classifier.class_names[int(best.indices[i])], float(best.values[i]),
            places[i], rows[i], columns[i],
        )
        for i in range(len(images))
    ]  # fmt: skip


@torch.inference_mode()
def _maps_of(model: Encoder, images: Tensor, boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A model's maps of boxes that another one chose, as means over the channels."""
    classifier = _classifier(model)
    was_training = model.training
    model.eval()
    try:
        given, places = images.to(model.device), torch.from_numpy(np.stack(boxes)).to(model.device)
        found = Proposals(given, model(given), places, places[..., 0])
        maps = classifier.part_maps(model, found, places)
    finally:
        model.train(was_training)
    return list(maps.float().cpu().mean(2).flatten(2).numpy())


def _pooled(classifier: PartClassifier, maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical pooling, as means over the channels: a value for each place of each patch."""
    images, count, channels = maps.shape[:3]
    if not isinstance(classifier, SSANetClassifier) or classifier.pooling != "oriented":
        return (np.empty((images, count, 0)),) * 2
    pooled = oriented_pool(maps.flatten(0, 1), classifier.patch, classifier.patch_stride)
    values = pooled[:, :2].unflatten(2, (-1, channels, classifier.patch**2)).mean(3).flatten(2)
    values = values.unflatten(0, (images, count)).numpy()
    return values[:, :, 0], values[:, :, 1]


def _facts_of(model: Encoder) -> dict[str, Any]:
    assert model.classifier is not None
    options = model.classifier.options
    wanted = ("dsm", "pooling", "features", "parts", "scales", "scale_ratio")
    return {
        "backbone": model.backbone.name,
        "classifier": model.classifier.name,
        "classifier_options": {key: options[key] for key in wanted if key in options},
    }


def _view_values(view: PartView) -> dict[str, Any]:
    values: dict[str, Any] = {"name": view.name, "model": _look_values(view.look, view.points)}
    values["beside"] = None if view.beside is None else _look_values(view.beside, view.points)
    values["key_points"] = None if view.points is None else view.points.tolist()
    return values


def _look_values(look: Look, points: np.ndarray | None) -> dict[str, Any]:
    known = points is not None and len(points) > 0
    out: dict[str, Any] = {"prediction": look.guess, "probability": look.probability}
    for name, boxes in (("proposed", look.proposed), ("aligned", look.aligned)):
        out[name] = None if boxes is None else boxes.tolist()
        if known and boxes is not None:
            out[f"{name}_point_distance"] = point_distance(boxes, points).tolist()  # type: ignore[arg-type]
    return out
