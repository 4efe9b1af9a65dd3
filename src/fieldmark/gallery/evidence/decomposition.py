"""A head's score as a sum over support photos and places: what added how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import one_hot

from fieldmark import functional
from fieldmark.functional.emd_similarity import directions
from fieldmark.heads import EMD, Head, LocalKNN, Logistic, Prototype, Whitened
from fieldmark.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class Parts:
    """The score of one class, in parts.

    Where ``additive``, ``totals`` of all photos and the ``constant`` add up to the score, ``places`` and the constant
    too, and ``pairs`` of a photo add up to its total, all up to the rounding of float64.

    Attributes:
        score: Of the class.
        totals: ``(S,)`` what each support photo adds.
        places: ``(N,)`` what each place of the query adds.
        constant: What no photo and no place adds.
        pairs: Gives, for the number of a photo, ``(N, M)``: what each pair of places of query and photo adds.
        additive: Whether these are parts of the head's own score, or of a similarity that stands beside it.
    """

    score: float
    totals: np.ndarray
    places: np.ndarray
    constant: float
    pairs: Callable[[int], np.ndarray] = field(repr=False)
    additive: bool = True


Decompose = Callable[[int], Parts]
"""From the number of a class to the parts of its score."""

SIMILARITY = "emd"
"""What stands beside scores that do not split."""


def decomposition(
    head: Head,
    support: Float[Tensor, "S M C"],
    labels: Int[Tensor, " S"],
    query: Float[Tensor, "N C"],
    way: int,
    scores: Float[Tensor, " way"] | None = None,
) -> Decompose:
    """What splits a head's scores for one query.

    ``whitened``, ``logistic`` (global features) and ``prototype`` (cosine and squared Euclidean distance) are linear in
    the places of the query and in the support photos; ``emd`` is a sum over matched places, its mean of several shots
    being linear in the photos; ``local_knn`` is a sum over places and their nearest neighbours. Scores of other heads
    do not split: ``Parts.additive`` is then False, and the parts are those of the optimal matching with each photo.

    Args:
        head: As it decides.
        support: Local descriptors of the support photos; heads that take pooled vectors get their means.
        labels: Classes, 0 to way - 1.
        query: Local descriptors of the query.
        way: Number of classes.
        scores: The head's scores, where it takes descriptors that are not here; default: computed.

    Example:
        >>> support, labels = torch.rand(4, 9, 6), torch.tensor([0, 0, 1, 1])
        >>> parts = decomposition(Prototype(metric="cosine"), support, labels, torch.rand(9, 6), 2)(1)
        >>> bool(abs(parts.totals.sum() + parts.constant - parts.score) < 1e-9), parts.totals[:2]
        (True, array([0., 0.]))
    """
    support, query = support.double(), query.double()
    if isinstance(head, Whitened):
        return _whitened(head, support, labels, query, way)
    if isinstance(head, Logistic) and head.features == "global":
        return _logistic(head, support, labels, query, way)
    if isinstance(head, Prototype) and head.metric != "euclidean":
        return _prototype(head, support, labels, query, way)
    if isinstance(head, EMD) and head.weights in ("cross_reference", "equal"):
        return _emd(head, support, labels, query)
    if isinstance(head, LocalKNN):
        return _local_knn(head, support, labels, query)
    if scores is None:
        sets = (support, query) if head.descriptors == "local" else (support.mean(1, keepdim=True), query.mean(0)[None])
        scores = head(sets[0][None], labels[None], sets[1][None, None], way)[0, 0]
    return _beside(support, labels, query, scores)


def _linear(
    mine: Float[Tensor, "N C"],
    theirs: Callable[[int], Tensor],
    vectors: Float[Tensor, "S C"],
    factors: Float[Tensor, "S way"],
    scores: Float[Tensor, " way"],
) -> Decompose:
    """Scores ``sum over s of factors[s] * <vectors[s], sum of mine>`` and a constant.

    Args:
        mine: What each place of the query adds to its vector.
        theirs: The same of a support photo, by its number: they sum to its vector.
        vectors: Of the support photos.
        factors: What a photo's product with the query counts for each class.
        scores: Of the head.
    """
    cosines = vectors @ mine.sum(0)

    def parts(label: int) -> Parts:
        totals = factors[:, label] * cosines
        return Parts(
            score=float(scores[label]),
            totals=totals.numpy(),
            places=(mine @ (factors[:, label] @ vectors)).numpy(),
            constant=float(scores[label] - totals.sum()),
            pairs=lambda photo: (factors[photo, label] * mine @ theirs(photo).mT).numpy(),
        )

    return parts


def _whitened(head: Whitened, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Decompose:
    mine, theirs, centre, whitening = head.vectors(support[None], query[None, None])
    units = functional.l2_normalise(theirs - centre)[0]

    def places(sets: Tensor, vector: Tensor) -> Tensor:
        rooted = head.rooted(sets)
        turned = rooted if whitening is None else rooted @ whitening[0].mT
        weights = head.place_weights(len(sets)).to(sets).unsqueeze(1)
        return weights * (turned - centre[0]) / (vector - centre[0, 0]).norm().clamp_min(1e-12)

    vectors = functional.l2_normalise(mine - centre)
    weight, bias = functional.logistic_regression(vectors, labels[None], way, head.C)
    scores = (units @ weight[0].mT)[0] + bias[0]
    return _linear(
        places(query, theirs[0, 0]),
        lambda photo: places(support[photo], mine[0, photo]),
        vectors[0],
        _dual(vectors[0], labels, weight[0], bias[0], head.C),
        scores,
    )


def _logistic(head: Logistic, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Decompose:
    def places(sets: Tensor) -> Tensor:
        length = sets.mean(0).norm().clamp_min(1e-12) if head.normalise else 1.0
        return sets / (len(sets) * length)

    vectors = torch.stack([places(one).sum(0) for one in support])
    weight, bias = functional.logistic_regression(vectors[None], labels[None], way, head.C)
    scores = weight[0] @ places(query).sum(0) + bias[0]
    factors = _dual(vectors, labels, weight[0], bias[0], head.C)
    return _linear(places(query), lambda photo: places(support[photo]), vectors, factors, scores)


def _dual(vectors: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, C: float) -> Float[Tensor, "S way"]:
    """At the optimum the weights are sums of the support vectors, each times C (target - probability)."""
    probability = torch.softmax(vectors @ weight.mT + bias, -1)
    return C * (one_hot(labels, len(bias)) - probability)


def _prototype(head: Prototype, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Decompose:
    centre = head.centre.to(query) if head.transform == "centre_l2" and head.centre is not None else 0.0

    def places(sets: Tensor) -> Tensor:
        moved = (sets - centre) / len(sets)
        return moved if head.transform == "none" else moved / moved.sum(0).norm().clamp_min(1e-12)

    vectors, mine = torch.stack([places(one).sum(0) for one in support]), places(query)
    prototypes = functional.class_prototypes(vectors, labels, way)
    scores = head.scale * functional.similarity(mine.sum(0)[None], prototypes, head.metric)[0]
    share = one_hot(labels, way).to(query) / torch.bincount(labels, minlength=way)
    if head.metric == "cosine":
        lengths = prototypes.norm(dim=-1).clamp_min(1e-12)
        mine, factors = mine / mine.sum(0).norm().clamp_min(1e-12), head.scale * share / lengths
    else:  # -|q - p|^2 = 2 q p - |q|^2 - |p|^2
        factors = 2 * head.scale * share
    return _linear(mine, lambda photo: places(support[photo]), vectors, factors, scores)


def _emd(head: EMD, support: Tensor, labels: Tensor, query: Tensor) -> Decompose:
    options = {**head.options, "weights": head.weights}
    centre = options["variant"] == "code" if options["centre"] is None else options["centre"]

    def parts(label: int) -> Parts:
        members = torch.nonzero(labels == label).flatten()
        sets = support[members]
        if head.shots == "mean":
            mean = sets.mean(0)
            found = functional.emd_matches(query[None], mean[None], **options)
            moved = sets - sets.mean(-1, keepdim=True) if centre else sets
            lengths = moved.mean(0).norm(dim=-1).clamp_min(1e-12)
            # The cosine with the mean of the photos' descriptors is a sum over the photos.
            cosines = directions(query, centre) @ (moved / lengths[:, None] / len(sets)).mT
            each = options["temperature"] / len(query) * cosines * found.flow[0, 0]
        elif head.shots == "merge":
            found = functional.emd_matches(query[None], sets.flatten(0, 1)[None], **options)
            each = found.contributions[0, 0].unflatten(1, (len(sets), -1)).transpose(0, 1)
        else:
            found = functional.emd_matches(query[None], sets, **options)
            count = found.similarity[0].argmax() if head.shots == "nearest" else None
            share = torch.full((len(sets),), 1 / len(sets)) if count is None else one_hot(count, len(sets)).float()
            each = share.to(query)[:, None, None] * found.contributions[0]
        return _of_members(each, members, len(labels), float(each.sum()))

    return parts


def _local_knn(head: LocalKNN, support: Tensor, labels: Tensor, query: Tensor) -> Decompose:
    def parts(label: int) -> Parts:
        members = torch.nonzero(labels == label).flatten()
        cosines = functional.l2_normalise(query) @ functional.l2_normalise(support[members].flatten(0, 1)).mT
        near = cosines.topk(min(head.k, cosines.shape[1]), dim=1)
        each = torch.zeros_like(cosines).scatter(1, near.indices, near.values)
        return _of_members(
            each.unflatten(1, (len(members), -1)).transpose(0, 1), members, len(labels), float(each.sum())
        )

    return parts


def _beside(support: Tensor, labels: Tensor, query: Tensor, scores: Tensor) -> Decompose:
    def parts(label: int) -> Parts:
        members = torch.nonzero(labels == label).flatten()
        each = functional.emd_matches(query[None], support[members]).contributions[0]
        return _of_members(each, members, len(labels), float(scores[label]), additive=False)

    return parts


def _of_members(
    each: Float[Tensor, "members N M"], members: Tensor, photos: int, score: float, additive: bool = True
) -> Parts:
    """Parts to which only the photos of the class add anything."""
    totals = torch.zeros(photos, dtype=each.dtype)
    totals[members] = each.sum((1, 2))
    number = {int(photo): i for i, photo in enumerate(members)}
    nothing = np.zeros(tuple(each.shape[1:]))
    return Parts(
        score=score,
        totals=totals.numpy(),
        places=each.sum((0, 2)).numpy(),
        constant=0.0,
        pairs=lambda photo: each[number[photo]].numpy() if photo in number else nothing,
        additive=additive,
    )
