"""A classifier as a file that runs without fieldmark: ONNX, or a program of ``torch.export``.

The gallery is an input of the model and lies in a file of its own, so classes are added and removed without exporting
again: the model also gives each photo's descriptors, and these, with their labels, *are* the gallery.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import nn

from fieldmark._version import __version__
from fieldmark.backbones import Encoder
from fieldmark.descriptors import Extractor, describe
from fieldmark.descriptors.base import MapExtractor
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.files import write_beside, write_json
from fieldmark.gallery.classifier import FewShotClassifier
from fieldmark.gallery.pictures import open_picture
from fieldmark.gallery.portable_heads import FittedHead, Portable, portable_head
from fieldmark.shapes import Float, Int, Tensor, UInt8

FORMAT = 1
"""Version of the description beside the model."""

TOLERANCE = 1e-4
"""Largest difference of scores to those of the classifier, in units of the largest score where that is above 1."""

Kind = Literal["onnx", "torch"]
_KINDS: dict[str, Kind] = {".onnx": "onnx", ".pt2": "torch"}
_OPSET = 20
_QUERIES, _PHOTOS, _CLASSES = 2, 5, 3  # of the example that is traced; the exported graph takes any


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
    plan = _Plan.of(classifier)
    tensors = plan.tensors()
    with _quietly():
        program = _trace(*plan.example())
        fit = _trace(*plan.fit_example()) if plan.fits else None
        data = {"model": _converted(program, kind, plan.model.inputs, ("scores", "descriptors"))}
        if fit is not None:
            data["fit"] = _converted(fit, kind, ("support", "labels", "classes"), plan.head.gallery)
        difference = _compare(plan, {name: _runner(one, kind) for name, one in data.items()}, tensors)
    files = {name: path.with_suffix({"model": "", "fit": ".fit"}[name] + path.suffix) for name in data}
    facts = _facts(plan, path, files, tensors, difference)
    text = json.dumps(facts, ensure_ascii=False)
    for name, one in data.items():
        write_beside(files[name], lambda file, one=one: _save(one, kind, text, file))  # type: ignore[misc]
    gallery = write_beside(path.with_suffix(".npz"), lambda file: np.savez(file, **tensors))  # type: ignore[arg-type]
    description = write_json(path.with_suffix(".json"), facts)
    return Exported(files["model"], files.get("fit"), gallery, description, facts, difference)


def check_path(path: str | os.PathLike[str]) -> Kind:
    """What the ending of a file asks for, and whether it can be written here.

    Raises:
        FieldmarkError: For another ending.
        MissingExtraError: For ONNX, its packages are not installed.

    Example:
        >>> check_path("birds.pt2")
        'torch'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _KINDS:
        raise FieldmarkError(f"{path} ends in {suffix or 'nothing'}; expected a file .onnx, or .pt2 for torch.export")
    if _KINDS[suffix] == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, "export", "writing ONNX")
    return _KINDS[suffix]


class _Model(nn.Module):
    """Images and the gallery in, scores and descriptors out."""

    def __init__(self, encoder: Encoder, extractor: Extractor, head: Portable) -> None:
        super().__init__()
        self.encoder, self.extractor, self.head = encoder, extractor, head
        self.kind = head.head.descriptors
        self.inputs = ("images", *head.gallery)

    def forward(self, images: UInt8[Tensor, "Q H W 3"], *gallery: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2)
        found = self.head.digest(describe(self.encoder, pixels, [self.kind], self.extractor)[self.kind])
        if isinstance(self.head, FittedHead):
            return self.head.score_fitted(found, *gallery), found
        support, labels, classes = gallery
        index, members = membership(labels, classes)
        return self.head.score(found, support, index, members), found


class _Fit(nn.Module):
    """The gallery in, the fitted model out."""

    def __init__(self, head: FittedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, support: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        return self.head.fit(support, membership(labels, classes)[1])


def membership(
    labels: Int[Tensor, " S"], classes: Int[Tensor, " way"]
) -> tuple[Int[Tensor, " S"], Float[Tensor, "S way"]]:
    """Place of each label among the classes, which may be any whole numbers, and the same as rows of the identity.

    Example:
        >>> membership(torch.tensor([7, 3, 7]), torch.tensor([3, 7]))[0]
        tensor([1, 0, 1])
    """
    members = (labels.unsqueeze(1) == classes).float()
    return members.argmax(1), members


@dataclass(frozen=True)
class _Plan:
    """The parts of a classifier as they are exported."""

    classifier: FewShotClassifier
    head: Portable
    model: _Model

    @classmethod
    def of(cls, classifier: FewShotClassifier) -> _Plan:
        embedder = classifier.embedder_
        if classifier.head_.descriptors == "local" and not isinstance(embedder.extractor, MapExtractor):
            raise FieldmarkError(
                f"descriptors {embedder.extractor.name!r} cut many windows out of each image and cannot be exported; "
                "take dense or feature_pyramid, or a head on pooled vectors (prototype)"
            )
        head = portable_head(classifier.head_, classifier.head)
        encoder = embedder.encoder if embedder.encoder.device.type == "cpu" else _on_cpu(embedder.encoder)
        return cls(classifier, head, _Model(encoder, embedder.extractor, head).eval())

    @property
    def fits(self) -> bool:
        """Whether there is a second graph."""
        return self.head.fitted

    @property
    def size(self) -> tuple[int, int]:
        return self.classifier.embedder_.size

    @torch.no_grad()
    def row(self) -> torch.Size:
        """Shape of what is kept of one photo."""
        return self.head.digest(self.classifier.descriptors_[self.model.kind][:1]).shape[1:]

    @torch.no_grad()
    def support(self) -> dict[str, Tensor]:
        """The gallery as photos: support, labels, classes."""
        one = self.classifier
        return {
            "support": torch.cat([self.head.digest(part) for part in one.descriptors_[self.model.kind].split(64)]),
            "labels": one.targets_.clone(),
            "classes": torch.arange(len(one.classes_)),
        }

    @torch.no_grad()
    def tensors(self) -> dict[str, np.ndarray]:
        """What lies in the file of the gallery."""
        found = self.support()
        if isinstance(self.head, FittedHead):
            fitted = self.head.fit_eagerly(found["support"], found["labels"], len(found["classes"]))
            found |= dict(zip(self.head.gallery, fitted, strict=True))
        return {name: np.ascontiguousarray(one.numpy()) for name, one in found.items()}

    def example(self) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
        """Model, inputs and their free sizes."""
        queries, photos, classes = (torch.export.Dim(name) for name in ("queries", "photos", "way"))
        images = torch.zeros(_QUERIES, *self.size, 3, dtype=torch.uint8)
        shape, way = self.row(), classes
        if self.fits:
            # A linear model: weight, bias, centre.
            inputs = torch.zeros(_CLASSES, shape[-1]), torch.zeros(_CLASSES), torch.zeros(shape[-1])
            return self.model, (images, *inputs), ({0: queries}, ({0: way}, {0: way}, {}))
        photos_in = torch.zeros(_PHOTOS, *shape), torch.arange(_PHOTOS) % _CLASSES, torch.arange(_CLASSES)
        return self.model, (images, *photos_in), ({0: queries}, ({0: photos}, {0: photos}, {0: way}))

    def fit_example(self) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
        """Likewise, of the fit."""
        assert isinstance(self.head, FittedHead)
        photos, way = (torch.export.Dim(name) for name in ("photos", "way"))
        inputs = torch.zeros(_PHOTOS, *self.row()), torch.arange(_PHOTOS) % _CLASSES, torch.arange(_CLASSES)
        return _Fit(self.head).eval(), inputs, ({0: photos}, {0: photos}, {0: way})


def _trace(model: nn.Module, inputs: tuple[Tensor, ...], sizes: Any) -> Any:
    try:
        with torch.no_grad():
            return torch.export.export(model, inputs, dynamic_shapes=sizes, strict=False)
    except FieldmarkError:
        raise
    except Exception as error:
        name = type(model).__name__ if not isinstance(model, _Model) else model.encoder.backbone.name
        raise FieldmarkError(
            f"{name} cannot be exported by torch {torch.__version__} ({_first_line(error)}); conv4, resnet12 and "
            "efficientnet_lite0 can"
        ) from None


def _converted(program: Any, kind: Kind, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    """The program, or the ONNX model made from it."""
    if kind == "torch":
        return program
    try:
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=_OPSET,
            input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
    except Exception as error:
        raise FieldmarkError(
            f"the model cannot be written as ONNX ({_first_line(error)}); write a .pt2 file instead"
        ) from None
    assert found is not None
    return found.model_proto


def _runner(data: Any, kind: Kind) -> Any:
    """A function from inputs by name to outputs, that runs what will be written."""
    if kind == "torch":
        module = data.module()

        def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            with torch.no_grad():
                return [one.numpy() for one in module(*(torch.from_numpy(one) for one in inputs.values()))]

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        data.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )  # fmt: skip
    return lambda inputs: session.run(None, inputs)


def _compare(plan: _Plan, run: dict[str, Any], tensors: dict[str, np.ndarray]) -> float:
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
    plan: _Plan, path: Path, files: dict[str, Path], tensors: dict[str, np.ndarray], difference: float
) -> dict[str, Any]:
    """The description: everything that is needed to use the model, as plain JSON types."""
    classifier, identity = plan.classifier, plan.classifier.embedder_.identity
    calibration, made_as = classifier.calibration_, classifier.head_.made_as
    return {
        "format": FORMAT,
        "fieldmark": __version__,
        "classes": [label.item() if isinstance(label, np.generic) else label for label in classifier.classes_],
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


def _save(data: Any, kind: Kind, text: str, file: IO[bytes]) -> None:
    if kind == "torch":
        buffer = io.BytesIO()
        with _quietly():
            torch.export.save(data, buffer, extra_files={"fieldmark.json": text})
        file.write(buffer.getvalue())
        return
    for key, value in (("fieldmark", text), ("source", f"fieldmark {__version__}")):
        entry = next((one for one in data.metadata_props if one.key == key), None) or data.metadata_props.add()
        entry.key, entry.value = key, value
    file.write(data.SerializeToString())


def _on_cpu(encoder: Encoder) -> Encoder:
    return copy.deepcopy(encoder).cpu()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter's notes for developers are no messages of ours."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]
