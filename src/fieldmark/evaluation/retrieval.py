"""Image retrieval: every image asks all others of the split; the pooled embedding ranks, local descriptors re-rank."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from fieldmark import functional
from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.data import ImageStore
from fieldmark.descriptors import Extractor, Kind, as_extractor
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.evaluation.features import encode, facts_of
from fieldmark.evaluation.leakage import require_new_classes
from fieldmark.evaluation.ranking import Similarity, pooled_ranking, rerank
from fieldmark.evaluation.retrieval_measures import RetrievalMeasures, retrieval_measures
from fieldmark.evaluation.statistics import (
    Estimate,
    Interval,
    estimate,
    hits_for_file,
    paired_difference,
    shares_for_file,
)
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.progress import track
from fieldmark.registry import check_types
from fieldmark.shapes import Int, Tensor

Metric = Literal["pooled", "emd"]
MEASURES = {"precision_at_1": "P@1", "r_precision": "R-Precision", "map_at_r": "MAP@R"}
PROTOCOL = "every image of the split against all others of it (Musgrave et al. 2020)"

# Metrics on local descriptors, and the similarity in `fieldmark.functional` that each is.
_SIMILARITIES = {"emd": "emd_similarity"}
_NOT_OPTIONS = ("real", "weight_gradient")  # of padding and of training
_KEPT = 10  # nearest images that a result holds
_BYTES_AT_ONCE = 256 * 2**20


@dataclass(frozen=True)
class RetrievalResult:
    """Outcome of one metric on one gallery.

    Attributes:
        values: For ``"precision_at_1"``, ``"r_precision"`` and ``"map_at_r"`` the ``(Q,)`` values of all queries.
        queries: ``(Q,)`` numbers of the images that asked; those without another image of their class do not.
        nearest: ``(Q, 10)`` numbers of the nearest images of each (fewer in a small gallery).
        class_precision: P@1 for each class name, over the queries of that class.
        gallery: Images in the gallery, the query among them.
        left_out: Images that did not ask because no other image is of their class.
        beyond_shortlist: Queries with more relevant images than the shortlist is long: their R-Precision and MAP@R
            rest in part on the pooled ranking.
        metric: ``"pooled"`` or ``"emd"``.
        metric_options: Its options.
        shortlist: How many of the pooled ranking were re-ranked; None for the pooled metric itself.
        descriptors: Name and options of the extractor that made the sets; "pooled" for the pooled metric.
        leaked_classes: Test classes that the model was trained on; empty unless that was allowed.
        manifest: What the images were.
        seconds: Time for encoding and for ranking.
    """

    values: dict[str, np.ndarray] = field(repr=False)
    queries: np.ndarray = field(repr=False)
    nearest: np.ndarray = field(repr=False)
    class_precision: dict[str, float] = field(repr=False)
    gallery: int
    left_out: int
    beyond_shortlist: int
    metric: str
    metric_options: dict[str, Any]
    shortlist: int | None
    descriptors: dict[str, Any]
    leaked_classes: list[str] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    query_hash: str = field(repr=False)
    seconds: dict[str, float]
    interval: Interval = "normal"

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and interval of each measure over the queries."""
        return {name: estimate(values, "queries", self.interval) for name, values in self.values.items()}

    @property
    def precision_at_1(self) -> float:
        """Mean P@1, 0 to 1."""
        return float(self.values["precision_at_1"].mean())

    @property
    def r_precision(self) -> float:
        """Mean R-Precision, 0 to 1."""
        return float(self.values["r_precision"].mean())

    @property
    def map_at_r(self) -> float:
        """Mean MAP@R, 0 to 1."""
        return float(self.values["map_at_r"].mean())

    @property
    def notes(self) -> list[str]:
        """What a reader has to know before comparing, one sentence each."""
        notes = []
        if self.left_out:
            notes.append(f"{self.left_out} images have no other image of their class and did not ask.")
        if self.beyond_shortlist:
            notes.append(
                f"{self.beyond_shortlist} of {len(self.queries)} queries have more relevant images than the shortlist "
                f"of {self.shortlist}: their R-Precision and MAP@R rest in part on the pooled ranking."
            )
        if self.leaked_classes:
            notes.append(f"{len(self.leaked_classes)} of the test classes were trained on (allowed).")
        return notes

    def difference(self, other: RetrievalResult, measure: str = "precision_at_1") -> Estimate:
        """Paired difference to another result on the same queries.

        Raises:
            FieldmarkError: If queries or gallery differ, or the measure is unknown.
        """
        if measure not in self.values:
            raise unknown_name("retrieval measure", measure, self.values)
        if self.query_hash != other.query_hash:
            raise FieldmarkError("a paired difference needs the same queries; these results used different ones")
        return paired_difference(self.values[measure], other.values[measure], self.interval)

    def to_dict(self) -> dict[str, Any]:
        """Everything that belongs in a results file, as JSON values.

        The fields are those of a few-shot result, with a query as an episode of one: ``mean`` is that of P@1, and the
        metric stands as ``head``.
        """
        estimates = self.estimates
        return {
            "task": "retrieval",
            **estimates["precision_at_1"].to_dict(),
            "measures": {name: one.to_dict() for name, one in estimates.items()},
            "head": self.metric,
            "head_options": self.metric_options,
            "descriptors": self.descriptors,
            "protocol": {
                "source": PROTOCOL,
                "gallery": self.gallery,
                "left_out": self.left_out,
                "shortlist": self.shortlist,
                "beyond_shortlist": self.beyond_shortlist,
            },
            "notes": self.notes,
            "episode_hash": self.query_hash,
            "queries_per_episode": 1,
            "hits_per_episode": hits_for_file(self.values["precision_at_1"]),
            "r_precision_per_query": self.values["r_precision"].round(5).tolist(),
            "map_at_r_per_query": self.values["map_at_r"].round(5).tolist(),
            "class_accuracies": shares_for_file(self.class_precision),
            "leaked_classes": self.leaked_classes,
            "manifest": self.manifest,
            "seconds": self.seconds,
        }


def evaluate_retrieval(
    model: Encoder | Backbone,
    data: ImageStore,
    metric: Metric = "pooled",
    shortlist: int | None = 200,
    metric_options: Mapping[str, Any] | None = None,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
) -> RetrievalResult:
    """P@1, R-Precision and MAP@R of a model: each image of the data is looked for among all others.

    Source: DeepEMD (Zhang et al. 2020), section 5.8 and Table 8; measures and protocol of Musgrave et al. 2020.

    Args:
        model: An encoder, or a backbone that brings its own normalisation (else that of ``data`` is used).
        data: Queries and gallery.
        metric: ``"pooled"``: the cosine of the pooled embeddings (normalised Euclidean distance ranks the same);
            ``"emd"``: :func:`fieldmark.functional.emd_similarity` of the local descriptors re-ranks the first
            ``shortlist`` of the pooled ranking; the rest of the gallery follows in its pooled order.
        shortlist: How many are re-ranked; ``None``: the whole gallery, which is the exact ranking by that metric. Only
            ranks up to the number of relevant images count, so a longer shortlist than that changes little.
        metric_options: Options of the similarity (``variant``, ``weights``, ``solver`` ...).
        descriptors: Name of the extractor of the local descriptors that it compares, or one made by
            :func:`fieldmark.descriptors.create`; the pooled ranking always has the mean of the whole image's map.
        descriptor_options: Options of the named extractor.
        seed: Seed of descriptors that are drawn at random.
        facts: What is known of the model (``training_classes``, ``pretraining``), for the leakage check.
        allow_leakage: Go on although a test class was trained on; the result then names those classes.
        interval: How the confidence interval over queries is computed.
        batch_size: Images encoded at a time; default: by their size.
        progress: Show bars for long work on a terminal.

    Returns:
        The measures with their intervals, by query and by class. Of equal similarities the image that comes first
        in the data (in the pooled ranking, after re-ranking) is the nearer one.

    Raises:
        FieldmarkError: For an unknown metric or option, leakage, or no class with two images.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test")
        >>> result = evaluate_retrieval(backbones.create("pixels"), glyphs)
        >>> 0.5 < result.precision_at_1 < 1, result.map_at_r <= result.r_precision
        (True, True)
    """
    return evaluate_metrics(
        model, data, [metric], shortlist, metric_options, descriptors, descriptor_options, seed=seed, facts=facts,
        allow_leakage=allow_leakage, interval=interval, batch_size=batch_size, progress=progress,
    )[metric]  # fmt: skip


def evaluate_metrics(
    model: Encoder | Backbone,
    data: ImageStore,
    metrics: Sequence[Metric],
    shortlist: int | None = 200,
    metric_options: Mapping[str, Any] | None = None,
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    interval: Interval = "normal",
    batch_size: int | None = None,
    progress: bool = True,
) -> dict[str, RetrievalResult]:
    """Several metrics on the same embeddings and the same queries; see :func:`evaluate_retrieval`.

    Options of the similarity are for all metrics on local descriptors.
    """
    similarities: dict[str, Similarity | None] = {
        name: make_similarity(name, metric_options or {}) for name in dict.fromkeys(metrics)
    }
    extractor = as_extractor(descriptors, descriptor_options)
    if shortlist is not None and shortlist < 1:
        raise FieldmarkError(f"shortlist is {shortlist}; expected at least 1 (None: the whole gallery)")
    leaked = require_new_classes(facts or {}, data, allow=allow_leakage)
    encoder = as_encoder(model, data.manifest.mean, data.manifest.std)
    queries, counts = _queries(data)
    started = time.perf_counter()
    kinds: tuple[Kind, ...] = ("pooled", "local") if any(similarities.values()) else ("pooled",)
    sets = encode(encoder, data, kinds, descriptors=extractor, batch_size=batch_size, seed=seed, progress=progress)
    encoding = time.perf_counter() - started
    length = len(data) - 1 if shortlist is None else min(shortlist, len(data) - 1)
    found = _rank(data, queries, counts, sets, similarities, length, encoder.device, progress)
    beyond = int((counts > length).sum())
    digest = hashlib.sha256(b"retrieval" + queries.numpy().tobytes() + data.labels.astype(np.int64).tobytes())
    results = {}
    for name, (measures, nearest, seconds) in found.items():
        re_ranked = similarities[name] is not None
        results[name] = RetrievalResult(
            values={key: value.numpy() for key, value in measures._asdict().items()},
            queries=queries.numpy(), nearest=nearest.numpy(),
            class_precision=_by_class(measures.precision_at_1.numpy(), queries.numpy(), data),
            gallery=len(data), left_out=len(data) - len(queries), beyond_shortlist=beyond if re_ranked else 0,
            metric=name, metric_options=dict(metric_options or {}) if re_ranked else {},
            shortlist=length if re_ranked else None,
            descriptors=facts_of(extractor, "local" if re_ranked else "pooled"),
            leaked_classes=leaked, manifest=data.manifest.to_dict(), query_hash=digest.hexdigest(),
            seconds={"encoding": encoding, "scoring": seconds}, interval=interval,
        )  # fmt: skip
    return results


def make_similarity(metric: str, options: Mapping[str, Any]) -> Similarity | None:
    """The similarity behind a metric's name; None for the pooled metric, which needs no re-ranking.

    Raises:
        FieldmarkError: For an unknown metric, or an option or value that its similarity does not take.

    Example:
        >>> make_similarity("pooled", {}) is None
        True
        >>> make_similarity("end", {})
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown retrieval metric 'end'; did you mean 'emd'? Known: emd, pooled
    """
    if metric == "pooled":
        return None
    if metric not in _SIMILARITIES:
        raise unknown_name("retrieval metric", metric, ["pooled", *_SIMILARITIES])
    similarity = getattr(functional, _SIMILARITIES[metric])
    taken = inspect.signature(similarity).parameters
    known = [name for name, one in taken.items() if one.kind is one.KEYWORD_ONLY and name not in _NOT_OPTIONS]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of retrieval metric {metric!r}", option, known)
    check_types(f"retrieval metric {metric}", similarity, options)
    chosen = partial(similarity, **options)
    chosen(torch.eye(2).unsqueeze(0), torch.eye(2).unsqueeze(0))  # a wrong value is refused before the long work
    return chosen


def _queries(data: ImageStore) -> tuple[Int[Tensor, "Q"], Int[Tensor, "Q"]]:
    """Numbers of the images that ask, and how many others are of the class of each."""
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
    others = torch.bincount(labels, minlength=len(data.class_names))[labels] - 1
    queries = (others > 0).nonzero().flatten()
    if not len(queries):
        raise FieldmarkError(
            f"no class of the {len(data)} images has two of them; retrieval looks for the other images of a class"
        )
    return queries, others[queries]


@torch.inference_mode()
def _rank(
    data: ImageStore,
    queries: Int[Tensor, "Q"],
    counts: Int[Tensor, "Q"],
    sets: dict[str, Tensor],
    similarities: Mapping[str, Similarity | None],
    shortlist: int,
    device: torch.device,
    progress: bool,
) -> dict[str, tuple[RetrievalMeasures, Tensor, float]]:
    """Measures, nearest images and seconds of every metric; a part of the queries at a time."""
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
    gallery = l2_normalise(sets["pooled"].flatten(1)).to(device)
    depth = max(int(counts.max()), shortlist if any(similarities.values()) else 1, min(_KEPT, len(data) - 1))
    # A re-ranked query takes long, so the bar moves in small steps.
    step = max(1, min(_BYTES_AT_ONCE // (24 * len(data)), 64 if any(similarities.values()) else len(queries)))
    parts: dict[str, list] = {name: [] for name in similarities}
    seconds = dict.fromkeys(similarities, 0.0)
    for start in track(range(0, len(queries), step), "ranking images", step, len(queries), show=progress):
        part = slice(start, start + step)
        started = time.perf_counter()
        pooled = pooled_ranking(gallery, queries[part], depth).cpu()
        shared = time.perf_counter() - started
        for name, similarity in similarities.items():
            started = time.perf_counter()
            ranking = pooled
            if similarity is not None:
                ranking = rerank(similarity, sets["local"], queries[part], pooled, shortlist, device)
            relevant = labels[ranking] == labels[queries[part]].unsqueeze(1)
            parts[name].append((*retrieval_measures(relevant, counts[part]), ranking[:, :_KEPT]))
            seconds[name] += shared + time.perf_counter() - started
    whole = {name: [torch.cat(columns) for columns in zip(*rows, strict=True)] for name, rows in parts.items()}
    return {name: (RetrievalMeasures(*one[:3]), one[3], seconds[name]) for name, one in whole.items()}


def _by_class(values: np.ndarray, queries: np.ndarray, data: ImageStore) -> dict[str, float]:
    labels, count = np.asarray(data.labels)[queries], len(data.class_names)
    sums, asked = np.bincount(labels, values, count), np.bincount(labels, minlength=count)
    return {data.class_names[c]: float(sums[c] / asked[c]) for c in range(count) if asked[c]}
