"""Writing a classifier as model, gallery and description, after what was exported has been compared with it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark._version import __version__
from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside, write_json
from fieldmark.gallery.classifier import FewShotClassifier
from fieldmark.gallery.labels import plain
from fieldmark.gallery.pictures import open_picture
from fieldmark.gallery.portable.formats import check_path, converted, quietly, runner, save, trace
from fieldmark.gallery.portable.graphs import Plan
from fieldmark.gallery.portable.heads import Portable

FORMAT = 1
"""Version of the description beside the model."""

TOLERANCE = 1e-4
"""Largest difference of scores to those of the classifier, in units of the largest score where that is above 1."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        model: The file of the model.
        fit: The file of the fit, for heads that are fitted to the gallery; else None.
        gallery: The file of the enrolled photos' descriptors and labels.
        description: The JSON file beside.
        facts: What is in it, and in the model as metadata.
        difference: Largest difference of a score to the classifier's that was found, see :data:`TOLERANCE`.
    """

    model: Path
    fit: Path | None
    gallery: Path
    description: Path
    facts: dict[str, Any] = field(repr=False)
    difference: float

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [one for one in (self.model, self.fit, self.gallery, self.description) if one is not None]


def export_classifier(classifier: FewShotClassifier, path: str | os.PathLike[str]) -> Exported:
    """Write a fitted classifier as ``NAME.onnx`` or ``NAME.pt2``, with ``NAME.npz`` and ``NAME.json`` beside it.

    The model takes uint8 images ``(Q, H, W, 3)`` at its size and the arrays of ``NAME.npz``, and gives ``scores``
    ``(Q, way)`` and the photos' ``descriptors``; any number of images, enrolled photos and classes. Of heads that fit a
    linear model (``whitened``, ``logistic``) that model is the input, and ``NAME.fit.onnx`` makes it from support
    descriptors and labels. Before anything is written the exported programs are run and compared with the classifier.

    Args:
        classifier: A fitted one.
        path: File to write; ``.onnx`` or ``.pt2``.

    Raises:
        FieldmarkError: The classifier is not fitted, its head or descriptors cannot be exported, another ending, the
            exported model gives other scores, or a file cannot be written.
        MissingExtraError: For ONNX, its packages are not installed.

    Example:
        >>> import tempfile
        >>> from fieldmark import backbones
        >>> images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
        >>> classifier = FewShotClassifier(backbones.create("pixels"), "prototype", size=32, device="cpu")
        >>> done = export_classifier(classifier.fit(images, ["a", "a", "b", "b"]), tempfile.mkdtemp() + "/two.pt2")
        >>> [one.name for one in done.files], done.difference < 1e-4
        (['two.pt2', 'two.npz', 'two.json'], True)
    """
    path = Path(path)
    kind = check_path(path)
    if not hasattr(classifier, "classes_"):
        raise FieldmarkError("the classifier is not fitted; call fit, or take a gallery's classifier")
    plan = Plan.of(classifier)
    tensors = plan.tensors()
    with quietly():
        program = trace(plan.model.encoder.backbone.name, *plan.example())
        fit = trace(classifier.head, *plan.fit_example()) if plan.fits else None
        data = {"model": converted(program, kind, plan.model.inputs, ("scores", "descriptors"))}
        if fit is not None:
            data["fit"] = converted(fit, kind, ("support", "labels", "classes"), plan.head.gallery)
        difference = _compare(plan, {name: runner(one, kind) for name, one in data.items()}, tensors)
    files = {name: path.with_suffix({"model": "", "fit": ".fit"}[name] + path.suffix) for name in data}
    facts = _facts(plan, path, files, tensors, difference)
    text = json.dumps(facts, ensure_ascii=False)
    for name, one in data.items():
        write_beside(files[name], lambda file, one=one: save(one, kind, text, file))  # type: ignore[misc]
    gallery = write_beside(path.with_suffix(".npz"), lambda file: np.savez(file, **tensors))  # type: ignore[arg-type]
    description = write_json(path.with_suffix(".json"), facts)
    return Exported(files["model"], files.get("fit"), gallery, description, facts, difference)


def _compare(plan: Plan, run: dict[str, Any], tensors: dict[str, np.ndarray]) -> float:
    """Largest difference of scores, relative to the largest where that is above 1; refuses more than is allowed."""
    given = {name: tensors[name] for name in plan.model.inputs[1:]}
    worst = 0.0
    for images in _trials(plan.classifier):
        expected = plan.classifier.score_descriptors(
            plan.classifier.embedder_.embed(images, [plan.model.kind], progress=False)
        ).numpy()
        scores = run["model"]({"images": images, **given})[0]
        worst = max(worst, float(np.abs(scores - expected).max() / max(1.0, np.abs(expected).max())))
    if not worst <= TOLERANCE:
        raise FieldmarkError(
            f"the exported model's scores differ by {worst:.2g} from the classifier's; expected at most {TOLERANCE:g}: "
            "nothing was written; take another head, or report it"
        )
    if "fit" in run:
        _compare_fit(run["fit"], tensors, plan.head)
    return worst


def _compare_fit(run: Any, tensors: dict[str, np.ndarray], head: Portable) -> None:
    """The fit goes further than the eager solver does, which stops within some 1e-4 of the optimum."""
    found = run({name: tensors[name] for name in ("support", "labels", "classes")})
    for name, one in zip(head.gallery, found, strict=True):
        scale = max(1.0, float(np.abs(tensors[name]).max()))
        if not float(np.abs(one - tensors[name]).max()) <= 1e-2 * scale:
            raise FieldmarkError(
                f"the exported fit gives another {name} than the classifier's; nothing was written; report it"
            )


def _trials(classifier: FewShotClassifier) -> Iterator[np.ndarray]:
    """Batches of one and of several images: enrolled photos where they are still to be had, and noise."""
    embedder = classifier.embedder_
    noise = np.random.default_rng(0).integers(0, 256, (2, *embedder.size, 3), np.uint8)
    kept = []
    for photo in classifier.photos_[:2]:
        with contextlib.suppress(FieldmarkError):
            kept.append(open_picture(photo) if photo is not None else None)
    photos = [one for one in kept if one is not None]
    images = np.concatenate([embedder.read(photos, progress=False).images, noise]) if photos else noise
    yield images
    yield images[:1]


def _facts(
    plan: Plan, path: Path, files: dict[str, Path], tensors: dict[str, np.ndarray], difference: float
) -> dict[str, Any]:
    """The description: everything that is needed to use the model, as plain JSON types."""
    classifier, identity = plan.classifier, plan.classifier.embedder_.identity
    calibration, made_as = classifier.calibration_, classifier.head_.made_as
    return {
        "format": FORMAT,
        "fieldmark": __version__,
        "classes": [plain(label) for label in classifier.classes_],
        "temperature": 1.0 if calibration is None else calibration.temperature,
        "line": None if calibration is None else calibration.threshold,
        "preprocessing": {
            "size": list(identity.size), "fit": identity.fit, "interpolation": "bicubic", "antialias": True,
            "colour": "RGB", "type": "uint8", "range": [0, 255], "layout": "NHWC",
            "mean": list(identity.mean), "std": list(identity.std), "normalised_inside": True,
        },
        "head": {"name": classifier.head, "options": {} if made_as is None else made_as[1]},
        "files": {**{name: one.name for name, one in files.items()}, "gallery": path.with_suffix(".npz").name},
        "inputs": list(plan.model.inputs),
        "outputs": ["scores", "descriptors"],
        "fit": {"inputs": ["support", "labels", "classes"], "outputs": list(plan.head.gallery)} if plan.fits else None,
        "shapes": {name: list(one.shape) for name, one in tensors.items()},
        "identity": identity.to_dict(),
        "difference": difference,
    }  # fmt: skip
