"""Accuracy on the classes a model was trained on, or that a head was fitted on: every image of a split is named."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.classifiers import classifier_of
from fieldmark.data import ImageStore
from fieldmark.descriptors import Extractor, as_extractor
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.features import encode, facts_of, images_at_once, in_parts
from fieldmark.evaluation.leakage import family_of, related
from fieldmark.evaluation.statistics import Interval
from fieldmark.evaluation.top1_result import Top1Result
from fieldmark.heads import Head, create_for
from fieldmark.progress import track
from fieldmark.shapes import Float, Int, Tensor

CLASSIFIER = "classifier"
"""How a result calls the model's own classifier, where another one names its head."""

Change = Callable[[Tensor, np.ndarray], Tensor]
"""A change of images ``(B, 3, H, W)`` with these numbers in the data, the same for an image in whatever batch."""

_QUERIES_AT_ONCE = 64  # of heads on local descriptors, whose comparisons with all images would not fit into memory


def evaluate_top1(
    model: Encoder | Backbone,
    data: ImageStore,
    head: str | Head | None = None,
    head_options: Mapping[str, Any] | None = None,
    *,
    support_data: ImageStore | None = None,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    change: Change | None = None,
    seed: int = 0,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
    described: dict[tuple[str, str], Tensor] | None = None,
) -> Top1Result:
    """Name every image of a split: by the model's own classifier, or by a head fitted on training images.

    Args:
        model: An encoder; with a head also a backbone that brings its own normalisation (else that of ``data``).
        data: The images to be named.
        head: None or ``"classifier"``: the classifier that the model was trained with. Else a few-shot head by name, or
            made already: it is given all of ``support_data`` as one episode of all classes.
        head_options: Options of the named head.
        support_data: The training images of a head.
        descriptors: Extractor of local descriptors, for heads that take them.
        descriptor_options: Options of the named extractor.
        facts: What is known of the model (``manifest``, ``pretraining``), for the notes of the result.
        change: Done to the images that are to be named (not to the support), after the model's own centre crop.
        seed: Of extractors that draw at random.
        interval: How the confidence interval over images is computed.
        batch_size: Images at a time; default: by their size. Results do not depend on it beyond rounding.
        progress: Show bars for long work on a terminal.
        described: Keeps the descriptors of unchanged images by role and kind, from one call to the next with the same
            model, data, support and extractor.

    Returns:
        Top-1 and top-5 accuracy, by class and by image, and the confusion of classes.

    Raises:
        FieldmarkError: If the model has no classifier and no head is named, a head has no support images, or the
            classes of the model and of the data differ.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test")
        >>> kept, held = data.hold_out(glyphs, 0.2)
        >>> result = evaluate_top1(backbones.create("pixels"), held, "prototype", support_data=kept)
        >>> result.accuracy > 1 / 60, result.top5 >= result.accuracy, len(result.hits) == len(held)
        (True, True, True)
    """
    encoder = as_encoder(model, data.manifest.mean, data.manifest.std)
    if not len(data):
        raise FieldmarkError("there are no images to be named; choose another split")
    seen = _Seen(data, encoder, change)
    own = head is None or head == CLASSIFIER
    if own:
        if head_options:
            raise FieldmarkError(f"options {dict(head_options)} are given without a head; name one (--head logistic)")
        scores, scorer, seconds = _classify(encoder, seen, data, batch_size, progress)
    else:
        assert head is not None
        extractor = as_extractor(descriptors, descriptor_options)
        scores, scorer, seconds = _fit(
            encoder, seen, data, head, head_options or {}, support_data, extractor, batch_size, seed, progress,
            {} if described is None else described,
        )  # fmt: skip
    support, notes = None if own else support_data, _notes(facts or {}, data, None if own else support_data)
    return _summarise(scores, data, scorer, support, notes, seconds, interval)


def check_classes(known: Sequence[str], data: ImageStore, whose: str = "the model") -> np.ndarray:
    """For each class of the data its place among the known ones, which may be in another order.

    Raises:
        FieldmarkError: If a class is on one side only; some are named.

    Example:
        >>> from fieldmark import data
        >>> check_classes(["apple", "pear"], data.load("glyphs", split="test"))
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: the model has 2 classes and the data 60, not the same: only the model has ...
    """
    wanted = list(data.class_names)
    only = [name for name in known if name not in set(wanted)], [name for name in wanted if name not in set(known)]
    if only[0] or only[1]:
        sides = [
            f"only {who} has {', '.join(map(repr, names[:3]))}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for who, names in zip((whose, "the data"), only, strict=True)
            if names
        ]
        raise FieldmarkError(
            f"{whose} has {len(known)} classes and the data {len(wanted)}, not the same: {'; '.join(sides)}; use a "
            "split of the data set that was trained on, or fit a head (--head logistic)"
        )
    place = {name: number for number, name in enumerate(known)}
    return np.array([place[name] for name in wanted])


class _Seen:
    """The images as the model is to see them: its centre crop, changed."""

    def __init__(self, data: ImageStore, encoder: Encoder, change: Change | None) -> None:
        self.data, self.encoder, self.change = data, encoder, change

    @property
    def size(self) -> tuple[int, int]:
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def gather(self, indices: range) -> Tensor:
        images = self.encoder.cut(self.data.gather(indices))
        return images if self.change is None else self.change(images, np.asarray(indices))


@torch.inference_mode()
def _classify(
    encoder: Encoder, seen: _Seen, data: ImageStore, batch_size: int | None, progress: bool
) -> tuple[Float[Tensor, "N K"], dict[str, Any], dict[str, float]]:
    """Scores by the model's own classifier, its classes in the order of the data."""
    classifier = classifier_of(encoder)
    assert encoder.classifier is not None
    order = torch.from_numpy(check_classes(encoder.classifier.class_names, data))
    started, was_training = time.perf_counter(), encoder.training
    step = batch_size or images_at_once(encoder.device, seen.size)
    encoder.eval()
    parts = []
    try:
        for start in track(range(0, len(seen), step), "naming images", step, len(seen), show=progress):
            images = seen.gather(range(start, min(start + step, len(seen)))).to(encoder.device)
            images = images if images.is_floating_point() else images.float() / 255
            parts.append(classifier(in_parts(encoder, step), images).float().cpu())
    finally:
        encoder.train(was_training)
    described = {
        "head": CLASSIFIER,
        "head_options": {"name": encoder.classifier.name, **encoder.classifier.options},
        "descriptors": {"name": "classifier", "options": {}},
    }
    return torch.cat(parts)[:, order], described, {"encoding": 0.0, "scoring": time.perf_counter() - started}


@torch.inference_mode()
def _fit(
    encoder: Encoder,
    seen: _Seen,
    data: ImageStore,
    head: str | Head,
    options: Mapping[str, Any],
    support: ImageStore | None,
    extractor: Extractor,
    batch_size: int | None,
    seed: int,
    progress: bool,
    described: dict[tuple[str, str], Tensor],
) -> tuple[Float[Tensor, "N K"], dict[str, Any], dict[str, float]]:
    """Scores by a head that was fitted on all support images: one episode of all classes."""
    made = create_for(encoder, head, **options) if isinstance(head, str) else head
    if support is None:
        raise FieldmarkError("a head is fitted on labelled images; give support_data (--support-split train)")
    order = torch.from_numpy(check_classes(support.class_names, data, "the support"))
    started = time.perf_counter()
    kind = made.descriptors
    describe = partial(
        encode, encoder, kinds=(kind,), descriptors=extractor, batch_size=batch_size, seed=seed, progress=progress
    )
    if ("support", kind) not in described:
        described["support", kind] = describe(support)[kind]
    if seen.change is None and ("query", kind) not in described:
        described["query", kind] = describe(seen)[kind]
    known = described["support", kind]
    asked = described["query", kind] if seen.change is None else describe(seen)[kind]
    encoding, started = time.perf_counter() - started, time.perf_counter()
    made = made.to(encoder.device)
    if made.needs_base:
        made.fit_base(known)
    sets, labels = (one.unsqueeze(0).to(encoder.device) for one in (known, torch.from_numpy(support.labels)))
    # All queries together: heads that learn fit once. Local descriptors of all pairs of images are too many for that.
    step = len(asked) if asked.shape[1] == 1 else _QUERIES_AT_ONCE
    scores = torch.cat(
        [
            made(sets, labels, asked[start : start + step].unsqueeze(0).to(encoder.device), len(support.class_names))[0]
            for start in track(range(0, len(asked), step), "scoring images", step, len(asked), show=progress)
        ]
    )
    facts = {
        "head": head if isinstance(head, str) else type(head).__name__,
        "head_options": dict(options),
        "descriptors": facts_of(extractor, kind),
    }
    return scores.float().cpu()[:, order], facts, {"encoding": encoding, "scoring": time.perf_counter() - started}


def _summarise(
    scores: Float[Tensor, "N K"],
    data: ImageStore,
    described: dict[str, Any],
    support: ImageStore | None,
    notes: list[str],
    seconds: dict[str, float],
    interval: Interval,
) -> Top1Result:
    if not torch.isfinite(scores).all():
        first = int((~torch.isfinite(scores)).any(1).nonzero()[0])
        raise FieldmarkError(
            f"the scores of image {first} are not finite; the model's weights are damaged or its training diverged"
        )
    labels, count = np.asarray(data.labels, np.int64), len(data.class_names)
    ranked = in_order(scores, 5).numpy()
    predicted = ranked[:, 0]
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    asked = confusion.sum(1)
    manifest = data.manifest.to_dict()
    digest = hashlib.sha256(json.dumps([manifest["checksum"], list(data.names)]).encode() + labels.tobytes())
    return Top1Result(
        hits=predicted == labels, hits5=(ranked == labels[:, None]).any(1), predicted=predicted,
        class_accuracies={data.class_names[c]: float(confusion[c, c] / asked[c]) for c in range(count) if asked[c]},
        confusion=confusion, class_names=list(data.class_names), **described,
        support=None if support is None else support.manifest.to_dict(), notes=notes, manifest=manifest,
        image_hash=digest.hexdigest(), seconds=seconds, interval=interval,
    )  # fmt: skip


def in_order(scores: Float[Tensor, "N K"], count: int) -> Int[Tensor, "N T"]:
    """The ``count`` likeliest classes of each image (all, of fewer); of equal ones the class that comes first.

    Example:
        >>> in_order(torch.tensor([[0.1, 0.7, 0.7]]), 2)
        tensor([[1, 2]])
    """
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :count]


def _notes(facts: Mapping[str, Any], data: ImageStore, support: ImageStore | None) -> list[str]:
    notes = []
    known, here = dict(facts.get("manifest") or {}), data.manifest
    fitted = {} if support is None else support.manifest.to_dict()
    for what, used in (("model was trained", known), ("head was fitted", fitted)):
        if used.get("name") == here.name and used.get("split") and here.split in (used["split"], "all"):
            notes.append(f"The {what} on images of split {used['split']!r}, which are among these.")
    if here.split.startswith(f"{known.get('split')} held out") and _chosen_by(facts, "held-out"):
        notes.append("These held-out images decided which epoch of the model was kept; test images are harder.")
    if "imagenet" in str(facts.get("pretraining") or "").lower() and related(family_of(here.name), "imagenet"):
        notes.append("The images, test images too, are part of ImageNet, on which the backbone was pretrained.")
    if facts.get("model_selection"):
        notes.append(
            f"The model's epoch was chosen by its accuracy on test images ({facts['model_selection']}): its figures "
            "are too good."
        )
    return notes


def _chosen_by(facts: Mapping[str, Any], selection: str) -> bool:
    return any(stage.get("selected_by") == selection for stage in facts.get("stages") or ())
