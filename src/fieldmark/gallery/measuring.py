"""How good the classifier of own photos is: accuracy, honesty of its confidence, and rejection, over drawn supports."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.data import EpisodeIndex, ImageStore
from fieldmark.descriptors import Extractor, as_extractor
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.features import encode, facts_of
from fieldmark.evaluation.leakage import require_new_classes
from fieldmark.evaluation.statistics import Estimate, estimate, paired_difference
from fieldmark.gallery.calibration import FALSE_REJECT, negative_log_likelihood
from fieldmark.gallery.classifier import FewShotClassifier, kinds_of
from fieldmark.gallery.confidence_measures import expected_calibration_error, reliability, risk_coverage
from fieldmark.gallery.embedder import Embedder
from fieldmark.gallery.kept import KeptDescriptors
from fieldmark.gallery.supports import draw_supports
from fieldmark.heads import create_for
from fieldmark.progress import track
from fieldmark.shapes import Tensor

TASK = "own-photos"

COVERAGES = tuple(round(0.1 * step, 1) for step in range(1, 11))
"""Shares of answered questions at which the risk is written down."""

_LEAVING_OUT = 1  # tells the generator of left-out classes from that of supports


@dataclass(frozen=True)
class Rejection:
    """Photos of classes that were left out, among those of the others, in one draw.

    Attributes:
        auroc: Chance that a photo of an enrolled class scores higher than one of a class that was left out.
        auroc_of_confidence: Likewise by the calibrated confidence.
        false_reject: Share of the photos of enrolled classes below the line.
        rejected: Share of the others below it.
    """

    auroc: float
    auroc_of_confidence: float
    false_reject: float
    rejected: float


@dataclass(frozen=True)
class OwnPhotosResult:
    """Outcome of one head over the draws.

    Attributes:
        hits: ``(draws, Q)`` whether the answer was right.
        confidence: ``(draws, Q)`` calibrated probability of the answer.
        uncalibrated: ``(draws, Q)`` the head's own.
        log_likelihood: ``(draws,)`` mean negative log-likelihood of the true class, calibrated.
        temperatures: ``(draws,)``.
        rejections: One for each draw; empty with no classes left out.
        episodes: The draws.
        head: Name of the head.
        head_options: Those that were given.
        descriptors: Name and options of the extractor, or ``pooled``.
        left_out: Classes left out for rejection.
        leaked_classes: Classes that the model was trained on; empty unless that was allowed.
        manifest: What the images were.
        seconds: Time for encoding, and for fitting, calibrating and scoring over all draws.
    """

    hits: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)
    uncalibrated: np.ndarray = field(repr=False)
    log_likelihood: np.ndarray = field(repr=False)
    temperatures: np.ndarray = field(repr=False)
    rejections: list[Rejection] = field(repr=False)
    episodes: EpisodeIndex = field(repr=False)
    head: str
    head_options: dict[str, Any]
    descriptors: dict[str, Any]
    left_out: int
    leaked_classes: list[str]
    manifest: dict[str, Any] = field(repr=False)
    seconds: dict[str, float]

    @property
    def estimate(self) -> Estimate:
        """Accuracy with its interval over the draws."""
        return estimate(self.hits.mean(1), "draws", "student")

    def difference(self, other: OwnPhotosResult) -> Estimate:
        """Paired difference in accuracy on the same draws.

        Raises:
            FieldmarkError: If the draws differ.
        """
        if self.episodes.hash != other.episodes.hash:
            raise FieldmarkError("a paired difference needs the same draws; these results used different ones")
        return paired_difference(self.hits.mean(1), other.hits.mean(1), "student")

    @property
    def measures(self) -> dict[str, Estimate]:
        """What else was measured, each with its interval over the draws.

        ``ece`` and ``ece_uncalibrated`` (15 bins), ``log_likelihood`` (negative), ``risk_coverage`` (area under the
        curve), ``coverage_at_5`` (share answered where at most 5% of the answers are wrong); with classes left out
        ``auroc``, ``auroc_of_confidence``, ``false_reject`` and ``rejected``.
        """
        pairs = list(zip(self.confidence, self.hits, strict=True))
        curves = [risk_coverage(*pair) for pair in pairs]
        found: dict[str, Sequence[float] | np.ndarray] = {
            "ece": [expected_calibration_error(*pair) for pair in pairs],
            "ece_uncalibrated": [
                expected_calibration_error(*pair) for pair in zip(self.uncalibrated, self.hits, strict=True)
            ],
            "log_likelihood": self.log_likelihood,
            "risk_coverage": [curve.area for curve in curves],
            "coverage_at_5": [curve.coverage_at(0.05) for curve in curves],
        }
        if self.rejections:
            for name in ("auroc", "auroc_of_confidence", "false_reject", "rejected"):
                found[name] = [getattr(one, name) for one in self.rejections]
        return {name: estimate(values, "draws", "student") for name, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything that belongs in a results file, as JSON values."""
        bins = reliability(self.confidence.ravel(), self.hits.ravel())
        curves = [risk_coverage(*pair) for pair in zip(self.confidence, self.hits, strict=True)]
        risks = [np.interp(COVERAGES, curve.coverage, curve.risk) for curve in curves]
        return {
            "task": TASK,
            **self.estimate.to_dict(),
            "head": self.head,
            "head_options": self.head_options,
            "descriptors": self.descriptors,
            "protocol": {**self.episodes.facts, "left_out": self.left_out, "asked_false_reject": FALSE_REJECT},
            "episode_hash": self.episodes.hash,
            "queries_per_episode": self.hits.shape[1],
            "hits_per_episode": self.hits.sum(1).astype(int).tolist(),
            "measures": {name: one.to_dict() for name, one in self.measures.items()},
            "temperatures": self.temperatures.tolist(),
            "reliability": {
                "edges": bins.edges.tolist(),
                "counts": bins.counts.tolist(),
                "confidence": [None if np.isnan(one) else float(one) for one in bins.confidence],
                "accuracy": [None if np.isnan(one) else float(one) for one in bins.accuracy],
            },
            "risk_at_coverage": dict(zip(map(str, COVERAGES), np.mean(risks, 0).tolist(), strict=True)),
            "leaked_classes": self.leaked_classes,
            "manifest": self.manifest,
            "seconds": self.seconds,
        }


def evaluate_own_photos(
    model: Encoder | Backbone,
    data: ImageStore,
    heads: Sequence[str] | Mapping[str, str],
    shot: int = 5,
    queries: int | None = None,
    draws: int = 5,
    seed: int = 0,
    *,
    head_options: Mapping[str, Mapping[str, Any]] | None = None,
    left_out: int = 0,
    support_data: ImageStore | None = None,
    descriptors: str | Extractor = "dense",
    facts: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    keep: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> dict[str, OwnPhotosResult]:
    """What :class:`~fieldmark.gallery.classifier.FewShotClassifier` makes of a few photos of every class.

    In each draw all classes are enrolled with up to ``shot`` images; the others are asked about. Every head has the
    same draws and descriptors, and is calibrated in the same way, from the support alone.

    Args:
        model: An encoder, or a backbone that brings its own normalisation (else that of ``data`` is used).
        data: The images; queries come from them.
        heads: Names of heads, or those by a name of your own.
        shot: Support images a class.
        queries: Images to ask about, a class; None: all others.
        draws: Of the support (and of the classes left out).
        seed: Of the draws.
        head_options: For each head, by that name, its options.
        left_out: Classes left out for measuring rejection: a second classifier is fitted to the others in each draw.
        support_data: Draw the support from here; its classes must be the same.
        descriptors: Extractor of local descriptors.
        facts: What is known of the model, for the leakage check.
        allow_leakage: Go on although a class was trained on; the result then names those classes.
        keep: Folder that keeps the descriptors from one call to the next, see
            :class:`fieldmark.gallery.kept.KeptDescriptors`.
        batch_size: Images encoded at a time.
        progress: Show bars for long work on a terminal.

    Raises:
        FieldmarkError: For too few classes or images, leakage, or an unknown head.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test").subset(range(60))
        >>> found = evaluate_own_photos(backbones.create("conv4"), glyphs, ["prototype"], shot=1, draws=2)
        >>> found["prototype"].hits.shape[0], sorted(found["prototype"].measures)[:2]
        (2, ['coverage_at_5', 'ece'])
    """
    encoder = as_encoder(model, data.manifest.mean, data.manifest.std)
    leaked = require_new_classes(facts or {}, data, allow=allow_leakage)
    if support_data is not None and support_data.class_names != data.class_names:
        raise FieldmarkError("support and queries have different classes; take both from one data set")
    named = heads if isinstance(heads, Mapping) else {name: name for name in heads}
    source, options = support_data or data, {key: dict((head_options or {}).get(key, {})) for key in named}
    made = {key: create_for(encoder, name, **options[key]) for key, name in named.items()}
    episodes = draw_supports(source.labels, shot, queries, draws, seed, None if support_data is None else data.labels)
    if left_out and not 0 < left_out <= episodes.way - 2:
        raise FieldmarkError(f"left_out is {left_out} of {episodes.way} classes; expected to leave at least 2")
    extractor, kinds = as_extractor(descriptors), list(dict.fromkeys(k for h in made.values() for k in kinds_of(h)[:1]))
    started = time.perf_counter()

    def described(store: ImageStore, numbers: np.ndarray) -> dict[str, Tensor]:
        if keep is not None:
            kept = KeptDescriptors(keep, encoder, extractor, seed)
            return kept.describe(store, numbers, kinds, batch_size, progress)
        return {**encode(
            encoder, store.subset(numbers), kinds, descriptors=extractor, batch_size=batch_size, seed=seed,
            progress=progress,
        )}  # fmt: skip

    used = [np.unique(one) for one in (episodes.support, episodes.query)]
    sets = described(source, used[0]), described(data, used[1])
    encoding = time.perf_counter() - started
    embedder = Embedder(encoder, data.size, descriptors=extractor)
    rows: dict[str, list[_Draw]] = {key: [] for key in named}
    seconds = dict.fromkeys(named, 0.0)
    for draw in track(range(draws), "draws", show=progress):
        indices = episodes.support[draw], episodes.query[draw]
        support, query = (
            {kind: one[torch.from_numpy(np.searchsorted(known, index))] for kind, one in each.items()}
            for each, known, index in zip(sets, used, indices, strict=True)
        )
        labels = episodes.support_labels[draw], episodes.query_labels[draw]
        for key, name in named.items():
            started = time.perf_counter()
            fit = _Fit(embedder, name, options[key], seed)
            rows[key].append(fit.draw(support, query, *labels, _left(episodes.way, left_out, seed, draw)))
            seconds[key] += time.perf_counter() - started
    return {
        key: OwnPhotosResult(
            **{one: np.stack([getattr(draw, one) for draw in rows[key]]) for one in _Draw.ARRAYS},
            rejections=[one.rejection for one in rows[key] if one.rejection is not None],
            episodes=episodes,
            head=name,
            head_options=options[key],
            descriptors=facts_of(extractor, made[key].descriptors),
            left_out=left_out,
            leaked_classes=leaked,
            manifest=data.manifest.to_dict(),
            seconds={"encoding": encoding, "scoring": seconds[key]},
        )
        for key, name in named.items()
    }


def _left(way: int, count: int, seed: int, draw: int) -> np.ndarray:
    return np.sort(np.random.default_rng([seed, draw, _LEAVING_OUT]).permutation(way)[:count])


@dataclass(frozen=True)
class _Draw:
    """What one draw gives."""

    hits: np.ndarray
    confidence: np.ndarray
    uncalibrated: np.ndarray
    log_likelihood: np.ndarray
    temperatures: np.ndarray
    rejection: Rejection | None

    ARRAYS = ("hits", "confidence", "uncalibrated", "log_likelihood", "temperatures")


@dataclass(frozen=True)
class _Fit:
    """A way of making classifiers."""

    embedder: Embedder
    head: str
    options: dict[str, Any]
    seed: int

    def draw(
        self,
        support: dict[str, Tensor],
        query: dict[str, Tensor],
        labels: np.ndarray,
        asked: np.ndarray,
        left: np.ndarray,
    ) -> _Draw:
        classifier = self.fitted(support, labels)
        scores = classifier.score_descriptors(query)
        best = classifier.probabilities(scores).max(-1)
        return _Draw(
            hits=best.indices.numpy() == asked,
            confidence=best.values.numpy(),
            uncalibrated=torch.softmax(scores.double(), -1).amax(-1).numpy(),
            log_likelihood=np.array(negative_log_likelihood(scores, torch.from_numpy(asked), classifier.temperature)),
            temperatures=np.array(classifier.temperature),
            rejection=self.rejection(support, query, labels, asked, left) if len(left) else None,
        )

    def rejection(
        self,
        support: dict[str, Tensor],
        query: dict[str, Tensor],
        labels: np.ndarray,
        asked: np.ndarray,
        left: np.ndarray,
    ) -> Rejection:
        from sklearn.metrics import roc_auc_score

        stay, known = torch.from_numpy(~np.isin(labels, left)), ~np.isin(asked, left)
        classifier = self.fitted({kind: one[stay] for kind, one in support.items()}, labels[stay.numpy()])
        scores = classifier.score_descriptors(query)
        best, sure = scores.amax(-1).numpy(), classifier.probabilities(scores).amax(-1).numpy()
        below = classifier.rejected(scores)
        return Rejection(
            auroc=float(roc_auc_score(known, best)),
            auroc_of_confidence=float(roc_auc_score(known, sure)),
            false_reject=float(below[known].mean()),
            rejected=float(below[~known].mean()),
        )

    def fitted(self, support: dict[str, Tensor], labels: np.ndarray) -> FewShotClassifier:
        return FewShotClassifier.from_descriptors(
            self.embedder, support, labels, head=self.head, head_options=self.options, random_state=self.seed
        )
