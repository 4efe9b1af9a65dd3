"""Heads as they go into an exported graph: the gallery is an input, and no shape or step depends on its values."""

from __future__ import annotations

import copy
from math import isqrt
from typing import ClassVar

import torch
from torch import nn

from fieldmark import functional
from fieldmark.alignment.pairs import length_of
from fieldmark.errors import FieldmarkError
from fieldmark.functional.correspondence import correspondence_keys
from fieldmark.functional.emd_similarity import directions, pair_cosines
from fieldmark.functional.foreground import foreground_mask
from fieldmark.functional.transport.sinkhorn import Sinkhorn
from fieldmark.functional.weights import Weights, equal_weights, normalise_weights, relevance
from fieldmark.gallery.portable.loops import fit_logistic, sinkhorn_value
from fieldmark.heads import (
    EMD,
    DenseConnections,
    Fusion,
    Head,
    LocalKNN,
    Logistic,
    Matching,
    Nearest,
    Prototype,
    SpatialAlignment,
    Whitened,
)
from fieldmark.shapes import Float, Int, Tensor


class Portable(nn.Module):
    """A head that scores by its own code, which only needs every photo's descriptors.

    Attributes:
        gallery: Names of the inputs beside the images.
        fitted: Whether these are made from the enrolled photos by :meth:`fit`, once, rather than the photos themselves.
    """

    gallery: ClassVar[tuple[str, ...]] = ("support", "labels", "classes")
    fitted: ClassVar[bool] = False

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).cpu().eval()

    def digest(self, sets: Float[Tensor, "B N C"]) -> Float[Tensor, "B n c"]:
        """What is kept of each photo, enrolled or asked about."""
        return sets

    def score(
        self,
        query: Float[Tensor, "Q n c"],
        support: Float[Tensor, "S n c"],
        index: Int[Tensor, " S"],
        members: Float[Tensor, "S way"],
    ) -> Float[Tensor, "Q way"]:
        """Scores of what :meth:`digest` gave.

        Args:
            query: Of the photos that are asked about.
            support: Of the enrolled ones.
            index: Their classes, 0 to way - 1.
            members: The same as rows of the identity.
        """
        return self.head.scores(support[None], index[None], query[None], members.shape[1])[0]


class FittedHead(Portable):
    """A linear model that is fitted to the enrolled photos once, and not for every photo that is asked about."""

    gallery = ("weight", "bias", "centre")
    fitted = True

    def __init__(self, head: Whitened | Logistic) -> None:
        super().__init__(head)
        self.C = head.C

    def fit(self, support: Float[Tensor, "S 1 c"], members: Float[Tensor, "S way"]) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (way, c), biases (way) and the centre (c), by code that can be exported."""
        centre = self.centre(support)
        return *fit_logistic(self.vectors(support, centre), members, self.C), centre

    def fit_eagerly(self, support: Float[Tensor, "S 1 c"], index: Int[Tensor, " S"], way: int) -> tuple[Tensor, ...]:
        """The same by the head's own solver, to its own tolerance."""
        centre = self.centre(support)
        vectors, labels = self.vectors(support, centre)[None], index[None]
        weight, bias = (
            self.head.solve(vectors, labels, way)
            if isinstance(self.head, Logistic)
            else functional.logistic_regression(vectors, labels, way, self.C)
        )
        return weight[0].to(support), bias[0].to(support), centre

    def score_fitted(
        self,
        query: Float[Tensor, "Q 1 c"],
        weight: Float[Tensor, "way c"],
        bias: Float[Tensor, " way"],
        centre: Float[Tensor, " c"],
    ) -> Float[Tensor, "Q way"]:
        """Scores by a fitted model."""
        return self.vectors(query, centre) @ weight.mT + bias

    def centre(self, support: Tensor) -> Tensor:
        """What is subtracted first."""
        return support[:, 0].mean(0)

    def vectors(self, digests: Tensor, centre: Tensor) -> Tensor:
        """What the linear model is of."""
        return functional.l2_normalise(digests[:, 0] - centre)


class PortableWhitened(FittedHead):
    """Whitened means; the whitening itself, which needs no labels, is a constant of the graph."""

    def digest(self, sets: Float[Tensor, "B N C"]) -> Float[Tensor, "B 1 C"]:
        """The photo's weighted and whitened mean."""
        head = self.head
        assert isinstance(head, Whitened)
        # As head.rooted, whose copysign has no counterpart in ONNX.
        sizes = sets.abs().sqrt() if head.power == 0.5 else sets.abs().pow(head.power)
        mean = head.place_weights(sets.shape[1]).to(sets) @ (sets.sign() * sizes)
        return (mean if head.whitening is None else mean @ head.whitening.mT.to(sets)).unsqueeze(1)


class PortableLogistic(FittedHead):
    """Pooled vectors."""

    def __init__(self, head: Logistic) -> None:
        super().__init__(head)
        if head.features != "global":
            raise FieldmarkError(
                f"head logistic with features {head.features!r} cannot be exported; take features='global', or the head"
                " whitened"
            )

    def digest(self, sets: Float[Tensor, "B N C"]) -> Float[Tensor, "B 1 C"]:
        """The mean of the photo's descriptors."""
        return sets.mean(1, keepdim=True)

    def centre(self, support: Tensor) -> Tensor:
        """Nothing is subtracted."""
        return torch.zeros_like(support[0, 0])

    def vectors(self, digests: Tensor, centre: Tensor) -> Tensor:
        """Unit vectors, or the means themselves."""
        assert isinstance(self.head, Logistic)
        moved = digests[:, 0] - centre
        return functional.l2_normalise(moved) if self.head.normalise else moved


class PortableLocalKNN(Portable):
    """Best cosines of each photo first, then of each class, so that no pool of a class is built."""

    def score(self, query: Tensor, support: Tensor, index: Tensor, members: Tensor) -> Tensor:
        """Image-to-class similarity."""
        assert isinstance(self.head, LocalKNN)
        k, (places, way) = self.head.k, (support.shape[1], members.shape[1])
        if k > places:
            raise FieldmarkError(
                f"head local_knn with k = {k} cannot be exported, since a photo has {places} descriptors; take a k of"
                " at most that"
            )
        near = functional.l2_normalise(query).flatten(0, 1) @ functional.l2_normalise(support).flatten(0, 1).mT
        near = near.unflatten(1, (-1, places))
        if k == 1:
            best = near.amax(-1)
            start = torch.full_like(best[:, :1], -torch.inf).expand(-1, way)
            found = start.scatter_reduce(-1, index.expand_as(best), best, "amax")
        else:
            top = near.topk(k, dim=-1).values.unsqueeze(1)
            mine = torch.where(members.mT[..., None] > 0, top, -torch.inf)
            found = mine.flatten(2).topk(k, dim=-1).values.sum(-1)
        return found.unflatten(0, (-1, query.shape[1])).sum(1)


class PortableSpatialAlignment(Portable):
    """All pairs at once; the foreground enhancement belongs to the photo alone."""

    def __init__(self, head: SpatialAlignment) -> None:
        super().__init__(head)
        assert isinstance(self.head, SpatialAlignment)
        if self.head.enhance is not None:
            self.head.enhance.implementation = "grid_sample"

    def digest(self, sets: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """The photo's map with its foreground enhanced."""
        head = self.head
        assert isinstance(head, SpatialAlignment)
        if head.foreground == "none":
            return sets
        if head.enhance is None:
            return sets * foreground_mask(sets).unsqueeze(-1)
        return head.enhance(_as_maps(sets)).flatten(2).mT

    def score(self, query: Tensor, support: Tensor, index: Tensor, members: Tensor) -> Tensor:
        """Minus the distance to the mean aligned map of each class."""
        head = self.head
        assert isinstance(head, SpatialAlignment)
        if head.correspondence:
            sides = (query, support) if head.correspond is None else head.correspond.reduced(query, support)
            mine, theirs = correspondence_keys(*sides, head.temperature)
            weights = torch.softmax(pair_cosines(mine, theirs), dim=-1)  # (Q, S, N, M)
            aligned = weights @ support
        else:
            aligned = support.expand(query.shape[0], -1, -1, -1)
        if head.manipulate is not None:
            theirs = query.unsqueeze(1).expand(-1, support.shape[0], -1, -1)
            moved = head.manipulate(_as_maps(aligned.flatten(0, 1)), _as_maps(theirs.flatten(0, 1)))
            aligned = moved.flatten(2).mT.unflatten(0, (-1, support.shape[0]))
        shares = (members / members.sum(0)).mT
        means = (shares @ aligned.flatten(2)).unflatten(-1, query.shape[1:])
        return -head.scale * length_of(means - query.unsqueeze(1), head.distance)


class PortableEMD(Portable):
    """Best matching by the approximate solver ``sinkhorn``."""

    def __init__(self, head: EMD) -> None:
        super().__init__(head)
        if not isinstance(head.options["solver"], Sinkhorn):
            raise FieldmarkError(
                "head emd with an exact solver cannot be exported; take --head-option solver=sinkhorn (its scores are a"
                " little lower), or one of the heads dense_connections and local_knn, which compare places too"
            )
        if head.shots == "merge" or head.weights not in ("cross_reference", "equal"):
            raise FieldmarkError(
                f"head emd with shots {head.shots!r} and weights {head.weights!r} cannot be exported; take shots "
                "'mean', 'nearest' or 'fusion' and weights 'cross_reference' or 'equal'"
            )

    def score(self, query: Tensor, support: Tensor, index: Tensor, members: Tensor) -> Tensor:
        """Similarity to each class."""
        head = self.head
        assert isinstance(head, EMD)
        shares = (members / members.sum(0)).mT
        if head.shots == "mean":
            return self.similarity(query, (shares @ support.flatten(1)).unflatten(-1, support.shape[1:]))
        near = self.similarity(query, support)
        if head.shots == "fusion":
            return near @ shares.mT
        start = torch.full_like(near[:, :1], -torch.inf).expand(-1, members.shape[1])
        return start.scatter_reduce(-1, index.expand_as(near), near, "amax")

    def similarity(self, query: Float[Tensor, "Q N C"], support: Float[Tensor, "S M C"]) -> Float[Tensor, "Q S"]:
        """As :func:`fieldmark.functional.emd_similarity`, all pairs at once."""
        head, nodes = self.head, query.shape[1]
        assert isinstance(head, EMD)
        variant, temperature = head.options["variant"], head.options["temperature"]
        centre = head.options["centre"] if head.options["centre"] is not None else variant == "code"
        made = (
            equal_weights(query, support)
            if head.weights == "equal"
            else relevance(query, support, query.mean(-2), support.mean(-2), variant)
        )
        pair = Weights(*(normalise_weights(one, nodes) for one in made))
        cost = 1 - pair_cosines(directions(query, centre), directions(support, centre))
        costs, supply, demand = (one.flatten(0, 1) for one in (cost, pair.query, pair.support))
        value = sinkhorn_value(costs, supply, demand, head.options["solver"])
        return temperature - (temperature / nodes) * value.unflatten(0, (-1, support.shape[0]))


_FORMS: dict[type[Head], type[Portable]] = {
    DenseConnections: Portable,
    EMD: PortableEMD,
    Fusion: Portable,
    LocalKNN: PortableLocalKNN,
    Logistic: PortableLogistic,
    Matching: Portable,
    Nearest: Portable,
    Prototype: Portable,
    SpatialAlignment: PortableSpatialAlignment,
    Whitened: PortableWhitened,
}

_INSTEAD = {
    "structured_fc": "emd with solver=sinkhorn",
    "linear": "logistic, the same model solved to the optimum",
    "cosine_classifier": "prototype with metric=cosine",
}


def portable_head(head: Head, name: str) -> Portable:
    """The head in its portable form.

    Raises:
        FieldmarkError: It has none; the line says which heads have, and what to take instead.

    Example:
        >>> from fieldmark import heads
        >>> portable_head(heads.create("whitened"), "whitened").gallery
        ('weight', 'bias', 'centre')
    """
    form = _FORMS.get(type(head))
    if form is None:
        known = ", ".join(sorted(portable_heads()))
        instead = _INSTEAD.get(name, "whitened")
        raise FieldmarkError(
            f"head {name!r} cannot be exported, since it is trained anew for each gallery; take {instead}. Heads that"
            f" can: {known} (emd with solver=sinkhorn)"
        )
    return form(head)


def portable_heads() -> list[str]:
    """Names of the heads that can be exported.

    Example:
        >>> "prototype" in portable_heads(), "structured_fc" in portable_heads()
        (True, False)
    """
    from fieldmark.heads import HEADS

    return [entry.name for entry in HEADS if entry.make in _FORMS]


def _as_maps(sets: Float[Tensor, "B N C"]) -> Float[Tensor, "B C h w"]:
    side = isqrt(sets.shape[1])
    return sets.mT.unflatten(-1, (side, side))
