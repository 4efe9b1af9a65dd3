"""The few-shot protocol: encode once, draw seeded episodes, score them in batches, report mean and interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.data import EpisodeIndex, ImageStore, draw_episodes
from fieldmark.descriptors import Extractor, as_extractor
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.cost import encoder_milliseconds, head_cost
from fieldmark.evaluation.features import encode, facts_of
from fieldmark.evaluation.leakage import require_new_classes
from fieldmark.evaluation.statistics import Estimate, Interval, estimate, paired_difference, shares_for_file
from fieldmark.heads import Head, create_for
from fieldmark.progress import track
from fieldmark.shapes import Float, Tensor

# Gathered descriptors held at a time: what stays in the processor's cache (docs/decisions/0004).
_BYTES_AT_ONCE = 8 * 2**20


@dataclass(frozen=True)
class FewShotResult:
    """Outcome of one head on one set of episodes.

    Attributes:
        accuracy: Mean accuracy over episodes, 0 to 1.
        ci95: Half width of its 95% confidence interval, over episodes; infinite for a single one.
        episode_accuracies: ``(E,)`` accuracy of every episode, 0 to 1.
        class_accuracies: Accuracy for each class name over all queries of that class.
        confusion: ``(classes, classes)`` counts, true class by row, predicted class by column.
        predicted: ``(E, Q)`` predicted label, 0 to way - 1, of every query.
        episodes: The episodes, to be saved or scored by another method.
        head: Name of the head.
        head_options: Its options: those that were given; of a head that was trained with the model, all.
        support_copies: Augmented copies of every support image (0: the image itself).
        leaked_classes: Test classes that the model was trained on; empty unless that was allowed.
        manifest: What the images were.
        seconds: Time for encoding and for scoring.
        descriptors: Name and options of the extractor that made the head's sets; "pooled" for heads that take one
            vector an image, the mean of the map, and "spatial" for those that take SCL's global and spatial features.
        cost: What a query costs, where that was measured: :class:`fieldmark.evaluation.cost.HeadCost` as plain values,
            with ``encoder_milliseconds_per_image``.
    """

    accuracy: float
    ci95: float
    episode_accuracies: np.ndarray = field(repr=False)
    class_accuracies: dict[str, float] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    episodes: EpisodeIndex = field(repr=False)
    head: str
    head_options: dict[str, Any]
    support_copies: int
    leaked_classes: list[str]
    manifest: dict[str, Any]
    seconds: dict[str, float]
    interval: Interval = "normal"
    descriptors: dict[str, Any] = field(default_factory=lambda: {"name": "dense", "options": {}})
    cost: dict[str, Any] | None = None

    @property
    def estimate(self) -> Estimate:
        """Mean and interval over the episodes."""
        return estimate(self.episode_accuracies, "episodes", self.interval)

    def difference(self, other: FewShotResult) -> Estimate:
        """Paired difference to another result on the same episodes.

        Raises:
            FieldmarkError: If the episodes differ.
        """
        if self.episodes.hash != other.episodes.hash:
            raise FieldmarkError("a paired difference needs the same episodes; these results used different ones")
        return paired_difference(self.episode_accuracies, other.episode_accuracies, self.interval)

    def to_dict(self) -> dict[str, Any]:
        """Everything that belongs in a results file, as JSON values."""
        queries = self.episodes.query.shape[1]
        return {
            "task": "few-shot",
            **self.estimate.to_dict(),
            "head": self.head,
            "head_options": self.head_options,
            "descriptors": self.descriptors,
            "support_copies": self.support_copies,
            "protocol": self.episodes.facts,
            "episode_hash": self.episodes.hash,
            "queries_per_episode": queries,
            "hits_per_episode": np.rint(self.episode_accuracies * queries).astype(int).tolist(),
            "class_accuracies": shares_for_file(self.class_accuracies),
            "leaked_classes": self.leaked_classes,
            "manifest": self.manifest,
            "seconds": self.seconds,
            **({"cost": self.cost} if self.cost else {}),
        }


@torch.inference_mode()
def score_episodes(
    head: Head,
    episodes: EpisodeIndex,
    query: Float[Tensor, "M N C"],
    support: Float[Tensor, "copies L N C"] | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> np.ndarray:
    """Predicted label ``(E, Q)`` of every query of every episode.

    Args:
        head: Scores many episodes at once.
        episodes: Which descriptors are support and query.
        query: Descriptors that the query numbers point into.
        support: Descriptors that the support numbers point into, one set for each augmented copy; default: ``query``.
        device: Where the head runs.
        progress: Show a bar for long work on a terminal.
    """
    copies = 1 if support is None else support.shape[0]
    source = query.unsqueeze(0) if support is None else support
    sets, channels = query.shape[1], query.shape[2]
    images = copies * episodes.support.shape[1] + episodes.query.shape[1]
    step = max(head.together, _BYTES_AT_ONCE // (images * sets * channels * query.element_size()))
    support_index = torch.from_numpy(episodes.support)
    query_index = torch.from_numpy(episodes.query)
    labels = torch.from_numpy(episodes.support_labels)
    predicted = np.empty(episodes.query.shape, dtype=np.int64)
    for start in track(range(0, len(episodes), step), "scoring episodes", step, len(episodes), show=progress):
        part = slice(start, start + step)
        flat = support_index[part].flatten()
        rows = len(labels[part])
        chosen = [
            one.index_select(0, flat).view(rows, -1, sets, channels).to(device, non_blocking=True) for one in source
        ]
        scores = head(
            chosen[0] if copies == 1 else torch.cat(chosen, dim=1),
            labels[part].repeat(1, copies).to(device),
            query.index_select(0, query_index[part].flatten()).view(rows, -1, sets, channels).to(device),
            episodes.way,
        )
        predicted[part] = scores.argmax(-1).cpu().numpy()
    return predicted


def evaluate_few_shot(
    model: Encoder | Backbone,
    data: ImageStore,
    way: int | None = 5,
    shot: int = 1,
    queries: int | None = 15,
    episodes: int | EpisodeIndex = 600,
    seed: int = 0,
    head: str | Head = "prototype",
    head_options: Mapping[str, Any] | None = None,
    *,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    support_data: ImageStore | None = None,
    support_copies: int = 0,
    support_augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    base_data: ImageStore | None = None,
    facts: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
) -> FewShotResult:
    """Accuracy of a model on few-shot episodes.

    Args:
        model: An encoder, or a backbone that brings its own normalisation (else that of ``data`` is used).
        data: The images of classes to recognise; queries come from it.
        way: Classes an episode; ``None``: all.
        shot: Labelled images a class.
        queries: Images to recognise a class; ``None``: every image (with ``support_data``).
        episodes: How many, or the episodes themselves.
        seed: Seed of the episodes (and of support augmentation and of extractors that draw at random); they do not
            depend on the model.
        head: Name of a head, or one made by :func:`fieldmark.heads.create`. A name that the model brings a trained head
            of (``model.head``) is that head, see :func:`fieldmark.heads.create_for`.
        head_options: Options of the named head; of a trained one, what differs from its training.
        descriptors: Name of an extractor, or one made by :func:`fieldmark.descriptors.create`: what heads on local
            descriptors are given. Heads on pooled vectors take the mean of the whole image's map all the same.
        descriptor_options: Options of the named extractor.
        support_data: Draw the support images from here, for example a training split; its classes must be the same.
        support_copies: Replace every support image by so many augmented copies (SCL: 5).
        support_augment: The augmentation for these; default: :func:`fieldmark.data.augment.scl_first`.
        base_data: Training images, for heads that use them (the mean of the centred prototype).
        facts: What is known of the model (``training_classes``, ``pretraining``), for the leakage check.
        allow_leakage: Go on although a test class was trained on; the result then names those classes.
        interval: How the confidence interval is computed, see :func:`fieldmark.evaluation.statistics.estimate`.
        batch_size: Images encoded at a time; default: by their size.
        progress: Show bars for long work on a terminal.

    Returns:
        The accuracy with its interval, per-episode and per-class accuracies, and the episodes.

    Raises:
        FieldmarkError: For too few classes or images, leakage, or an unknown head or extractor.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test")
        >>> model = backbones.create("conv4")
        >>> result = evaluate_few_shot(model, glyphs, way=5, shot=1, queries=5, episodes=10)
        >>> 0.0 <= result.accuracy <= 1.0, result.episode_accuracies.shape
        (True, (10,))
    """
    return evaluate_heads(
        model, data, {"": head}, way, shot, queries, episodes, seed, head_options={"": dict(head_options or {})},
        descriptors=descriptors, descriptor_options=descriptor_options, support_data=support_data,
        support_copies=support_copies, support_augment=support_augment, base_data=base_data, facts=facts,
        allow_leakage=allow_leakage, interval=interval, batch_size=batch_size, progress=progress,
    )[""]  # fmt: skip


def evaluate_heads(
    model: Encoder | Backbone,
    data: ImageStore,
    heads: Mapping[str, str | Head],
    way: int | None = 5,
    shot: int = 1,
    queries: int | None = 15,
    episodes: int | EpisodeIndex = 600,
    seed: int = 0,
    *,
    head_options: Mapping[str, Mapping[str, Any]] | None = None,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    support_data: ImageStore | None = None,
    support_copies: int = 0,
    support_augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    base_data: ImageStore | None = None,
    facts: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
    described: dict[str, dict[str, Tensor]] | None = None,
    cost_episodes: int = 0,
) -> dict[str, FewShotResult]:
    """Several heads on the same features and the same episodes; see :func:`evaluate_few_shot` for the arguments.

    ``described`` keeps the descriptors of the plain images by role (``"query"``, ``"support"``, ``"base"``) from one
    call to the next with the same model, data and heads. What is drawn at random is the first call's then; augmented
    copies are made anew. On ``cost_episodes`` episodes the cost of each head is measured too, after it was scored.
    """
    encoder = as_encoder(model, data.manifest.mean, data.manifest.std)
    leaked = require_new_classes(facts or {}, data, allow=allow_leakage)
    made, options = _make(encoder, heads, head_options or {})
    extractor = as_extractor(descriptors, descriptor_options)
    source = data if support_data is None else support_data
    _check_data(made, heads, source, data, base_data)
    if isinstance(episodes, EpisodeIndex):
        index = episodes
    else:
        index = draw_episodes(
            source.labels, way, shot, queries, episodes, seed,
            query_labels=None if support_data is None else data.labels, class_names=data.class_names,
        )  # fmt: skip
    index.require_fits(len(source), len(data))

    started = time.perf_counter()
    kinds = sorted({head.descriptors for head in made.values()})
    describe = partial(
        encode, encoder, kinds=kinds, descriptors=extractor, batch_size=batch_size, seed=seed, progress=progress
    )
    described = {} if described is None else described
    for role, images in (("query", data), ("base", base_data), ("support", None if support_copies else support_data)):
        if images is not None and role not in described:
            described[role] = describe(images)
    query, base = described["query"], described.get("base")
    support, scored = _augmented(describe, source, support_copies, support_augment, seed, index)
    if support is None and support_data is not None:
        support = [described["support"]]
    encoding = time.perf_counter() - started
    image = {}
    if cost_episodes:
        image["encoder_milliseconds_per_image"] = encoder_milliseconds(encoder, data, kinds, extractor)

    results = {}
    for key, name in heads.items():
        head = made[key].to(encoder.device)
        if base is not None:
            head.fit_base(base[head.descriptors])
        started = time.perf_counter()
        copies = None if support is None else torch.stack([one[head.descriptors] for one in support])
        predicted = score_episodes(
            head, scored, query[head.descriptors], copies, device=encoder.device, progress=progress
        )
        seconds = {"encoding": encoding, "scoring": time.perf_counter() - started}
        result = _summarise(
            predicted, index, data, name if isinstance(name, str) else type(name).__name__, options[key],
            support_copies, leaked, seconds, interval, facts_of(extractor, head.descriptors),
        )  # fmt: skip
        if cost_episodes:
            cost = head_cost(head, scored, query[head.descriptors], copies, cost_episodes)
            result = replace(result, cost={**cost.to_dict(), **image})
        results[key] = result
    return results


def _make(
    encoder: Encoder, heads: Mapping[str, str | Head], given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Head], dict[str, dict[str, Any]]]:
    """The heads by key, and the options that a result says of each."""
    options = {key: dict(given.get(key, {})) for key in heads}
    made = {
        key: create_for(encoder, head, **options[key]) if isinstance(head, str) else head for key, head in heads.items()
    }
    for key, head in made.items():
        if encoder.head is not None and head.made_as is not None and heads[key] == encoder.head.name:
            options[key] = dict(head.made_as[1])  # the options it was trained with count, not only those that are given
    return made, options


def _check_data(
    made: Mapping[str, Head],
    heads: Mapping[str, str | Head],
    support_data: ImageStore,
    data: ImageStore,
    base_data: ImageStore | None,
) -> None:
    for key, head in made.items():
        if head.needs_base and base_data is None:
            raise FieldmarkError(f"head {key or heads[key]!r} needs base images; give base_data (--base-split train)")
    if support_data.class_names != data.class_names:
        raise FieldmarkError(
            f"the support data has other classes than the query data "
            f"({len(support_data.class_names)} and {len(data.class_names)}); expected the same names in the same order"
        )


def _augmented(
    describe: Callable[..., dict[str, Tensor]],
    source: ImageStore,
    copies: int,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None,
    seed: int,
    index: EpisodeIndex,
) -> tuple[list[dict[str, Tensor]] | None, EpisodeIndex]:
    """Descriptors for each augmented copy (None: the images serve as they are), and episodes that point into them."""
    if copies < 0:
        raise FieldmarkError(f"support_copies is {copies}; expected 0 (the images themselves) or more")
    if copies == 0:
        return None, index
    if augment is None:
        from fieldmark.data.augment import scl_first

        augment = scl_first(source.size[0])
    # A copy is drawn once an image, not anew each episode: the same features serve every episode. Only images that are
    # support somewhere are encoded: at 1 shot, a quarter of CIFAR-FS.
    used, places = np.unique(index.support, return_inverse=True)
    made = [describe(source, augment=augment, seed=seed * 1009 + copy, wanted=used) for copy in range(copies)]
    return made, replace(index, support=places.reshape(index.support.shape))


def _summarise(
    predicted: np.ndarray,
    index: EpisodeIndex,
    data: ImageStore,
    head: str,
    options: dict[str, Any],
    copies: int,
    leaked: list[str],
    seconds: dict[str, float],
    interval: Interval,
    descriptors: dict[str, Any],
) -> FewShotResult:
    hits = predicted == index.query_labels
    accuracies = hits.mean(axis=1)
    count = len(data.class_names)
    true = np.take_along_axis(index.classes, index.query_labels, axis=1)
    guessed = np.take_along_axis(index.classes, predicted, axis=1)
    confusion = np.bincount((true * count + guessed).ravel(), minlength=count * count).reshape(count, count)
    asked = confusion.sum(axis=1)
    per_class = {data.class_names[c]: float(confusion[c, c] / asked[c]) for c in range(count) if asked[c]}
    whole = estimate(accuracies, "episodes", interval)
    return FewShotResult(
        accuracy=whole.mean, ci95=whole.ci95, episode_accuracies=accuracies, class_accuracies=per_class,
        confusion=confusion, predicted=predicted, episodes=index, head=head, head_options=options,
        support_copies=copies, leaked_classes=leaked, manifest=data.manifest.to_dict(), seconds=seconds,
        interval=interval, descriptors=descriptors,
    )  # fmt: skip
