"""Distances of every query to every class after pairwise alignment, without the maps of all pairs at once.

What is saved, by linearity. The aligned map is ``T F``, with the query's weights T (N x M) and the support map F
(M x C). Sampling it at offsets mixes its rows, so the sampled map is ``T' F``, with T' sampled in T's place: with fewer
places than channels the aligned map itself is never made. Likewise the first convolution of the manipulation over
``[T F, query]`` is a convolution of the query's map, once a query, plus one of T with the kernel ``F W``, made once a
support image. (With more places than channels the aligned map is smaller than T and takes its place.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fieldmark.alignment.manipulation import SpatialManipulation
from fieldmark.functional.labels import class_counts, one_hot
from fieldmark.functional.offsets import sample_at_offsets
from fieldmark.shapes import Float, Int, Tensor

Distance = Literal["squared_euclidean", "euclidean", "sum", "pooled"]

_ON_PROCESSOR, _ELSEWHERE = 512, 4096  # megabytes
# Parts of the memory: of a chunk, which on a processor had better stay small; and of what the backward pass keeps.
_CHUNK, _KEPT = 1 / 16, 7 / 8


def aligned_distances(
    query: Float[Tensor, "E Q N C"],
    support: Float[Tensor, "E S M C"],
    labels: Int[Tensor, "E S"],
    way: int,
    keys: tuple[Float[Tensor, "E Q N c"], Float[Tensor, "E S M c"]] | None = None,
    manipulation: SpatialManipulation | None = None,
    *,
    distance: Distance = "squared_euclidean",
    memory: int | None = None,
) -> Float[Tensor, "E Q {way}"]:
    """Distance of every query's map to the mean of the aligned support maps of every class.

    Equal to what the modules of this room give for all pairs at once, with the gradients; in training mode the batch
    norms of the manipulation see all pairs of the call and count them as one batch.

    Args:
        query: Maps of the queries, place by place.
        support: Maps of the support images; without keys N = M.
        labels: Classes of the support images; shots may differ.
        way: Number of classes.
        keys: Of both sides, for the correspondence: what
            :func:`fieldmark.functional.correspondence.correspondence_keys` gives; None: place i belongs to place i.
        manipulation: Moves the places of the aligned maps; N is then a square.
        distance: ``"squared_euclidean"`` or ``"euclidean"``, mean over the places; ``"sum"``, the squared distance of
            the flattened maps; ``"pooled"``, the squared distance of the mean vectors.
        memory: Megabytes for the pairs, about; None: 512 on a processor, 4096 elsewhere.

    Example:
        >>> query, support = torch.zeros(1, 1, 4, 2), torch.ones(1, 2, 4, 2)
        >>> aligned_distances(query, support, torch.tensor([[0, 1]]), 2).round()
        tensor([[[2., 2.]]])
    """
    order = labels.argsort(dim=1, stable=True)
    rows = torch.arange(len(labels), device=labels.device).unsqueeze(1)
    counts = class_counts(labels, way)
    members = None
    if not bool(counts.eq(counts[:1, :1]).all()):
        members = (one_hot(labels.gather(1, order), way, support.dtype) / counts.unsqueeze(1)).mT
    support = support[rows, order]
    given = _Tile(query, support, members=members, way=way)
    if keys is not None:
        given = given._replace(query_keys=keys[0], support_keys=keys[1][rows, order])
    return _Pairs(given, manipulation, distance, memory).distances()


class _Tile(NamedTuple):
    """Queries and support images, the latter in the order of their classes, of which all pairs are taken."""

    query: Tensor  # (e, q, N, C)
    support: Tensor  # (e, s, M, C)
    query_keys: Tensor | None = None  # (e, q, N, c)
    support_keys: Tensor | None = None  # (e, s, M, c)
    query_half: Tensor | None = None  # (e, q, N, H): first convolution of the query's maps
    # Of the support's: that convolution too (e, s, N, H), or the kernels for T (e, s, 9 M, H).
    support_half: Tensor | None = None
    members: Tensor | None = None  # (e, way, s): shares of the images in their classes; None: all shots are equal
    way: int = 1

    def split(self, axis: int, names: tuple[str, ...], size: int) -> Iterator[_Tile]:
        """Parts along an axis of some of the tensors.

        (Split gives the gradients of all parts together; of slices each one would have the size of the whole.)
        """
        present = [name for name in names if getattr(self, name) is not None]
        for parts in zip(*(getattr(self, name).split(size, axis) for name in present), strict=True):
            yield self._replace(**dict(zip(present, parts, strict=True)))


_OF_QUERIES = ("query", "query_keys", "query_half")
_OF_SUPPORT = ("support", "support_keys", "support_half")
_OF_EPISODES = (*_OF_QUERIES, *_OF_SUPPORT, "members")


class _Moments(NamedTuple):
    """Mean and (biased) variance (H) of a number of values."""

    mean: Tensor
    variance: Tensor
    places: int


class _Pairs:
    """One computation: all pairs of some queries and support images."""

    def __init__(
        self, given: _Tile, manipulation: SpatialManipulation | None, distance: Distance, memory: int | None
    ) -> None:
        self.given, self.manipulation, self.distance = given, manipulation, distance
        episodes, queries, self.places, channels = given.query.shape
        images, theirs = given.support.shape[1:3]
        self.side = isqrt(self.places)
        self.through_weights = given.query_keys is not None and (theirs < channels or manipulation is None)
        hidden = 0 if manipulation is None else manipulation.hidden
        self.needs_gradient = torch.is_grad_enabled() and (
            any(isinstance(one, Tensor) and one.requires_grad for one in given)
            or (manipulation is not None and any(one.requires_grad for one in manipulation.parameters()))
        )
        # Numbers a pair: about what is alive together.
        kept = 2 * hidden + (theirs if self.through_weights else channels)
        alive = kept + 2 * hidden + 2 * theirs + 2 * channels + 9 * theirs * (hidden > 0 and self.through_weights)
        each = self.places * given.query.element_size()
        megabytes = memory or (_ON_PROCESSOR if given.query.device.type == "cpu" else _ELSEWHERE)
        budget, pairs = megabytes * 2**20, episodes * queries * images
        # The backward pass computes chunks again, from carriers and hidden values if these can be kept.
        self.again = self.needs_gradient and pairs * each * alive > budget * _KEPT
        self.keep = pairs * each * kept <= budget
        self.chunk = max(1, int(budget * _CHUNK) // (each * alive * (1 + self.needs_gradient)))

    def distances(self) -> Tensor:
        """(E, Q, way)."""
        if self.manipulation is not None and self.manipulation.training:
            return self._by_statistics(self.manipulation)
        norms = None if self.manipulation is None else _running(self.manipulation)
        return self._join([self._run(self._whole, tile, norms) for tile in self._tiles()])

    # -- chunks --

    def _tiles(self) -> Iterator[_Tile]:
        """Parts of at most a chunk of pairs, if that is not less than a query with a class; episodes outermost."""
        queries, images = self.given.query.shape[1], self.given.support.shape[1]
        episodes, of_queries, classes = self._sizes()
        for some in self.given.split(0, _OF_EPISODES, episodes):
            ready = self._prepared(some)
            for part in ready.split(1, _OF_SUPPORT, images // self.given.way * classes) if classes else (ready,):
                tile = part._replace(way=part.support.shape[1] * self.given.way // images)
                yield from tile.split(1, _OF_QUERIES, min(of_queries, queries))

    def _sizes(self) -> tuple[int, int, int]:
        """Episodes, queries and classes of a tile; 0 classes: all."""
        queries, images, way = self.given.query.shape[1], self.given.support.shape[1], self.given.way
        if self.chunk >= queries * images:
            return max(1, self.chunk // max(1, queries * images)), max(1, queries), 0
        if self.given.members is not None:
            return 1, max(1, self.chunk // images), 0
        # Many queries with one class: its kernels are read once.
        shots = images // way
        of_queries = min(queries, max(1, self.chunk // shots))
        return 1, of_queries, max(1, self.chunk // (of_queries * shots))

    def _join(self, parts: list[Tensor]) -> Tensor:
        """The tiles' distances (e, q, classes) in one table."""
        episodes, queries, _ = self.given.query.shape[:3]
        _, of_queries, of_classes = self._sizes()
        across, found = -(-queries // of_queries), []
        classes = -(-self.given.way // of_classes) if of_classes else 1
        if not parts or not episodes:
            return self.given.query.new_zeros(episodes, queries, self.given.way)
        for first in range(0, len(parts), across * classes):
            rows = [
                torch.cat(parts[start : start + across], dim=1)
                for start in range(first, first + across * classes, across)
            ]
            found.append(torch.cat(rows, dim=2))
        return torch.cat(found)

    def _run(self, call: Callable[..., Any], *given: Any) -> Any:
        """The call, done again in the backward pass if what it needs there is too much to keep."""
        if self.again:
            return checkpoint(call, *given, use_reentrant=False, preserve_rng_state=False)
        return call(*given)

    # -- batch norms over all pairs --

    def _by_statistics(self, manipulation: SpatialManipulation) -> Tensor:
        """In training mode: what a batch norm sees is summed over all tiles before any of them goes on."""
        tiles = list(self._tiles())
        if self.keep:
            carriers, values = _columns([self._run(self._started, tile) for tile in tiles])
            first = _norm(manipulation.first_norm, [_moments(one) for one in values])
            values = [self._run(self._second, one, first) for one in values]
            second = _norm(manipulation.second_norm, [_moments(one) for one in values])
            parts = [self._run(self._rest, *one, second) for one in zip(tiles, carriers, values, strict=True)]
            return self._join(parts)

        def moments(tile: _Tile, *norms: _Affine) -> _Moments:
            value = self._started(tile)[1]
            return _moments(self._second(value, *norms) if norms else value)

        first = _norm(manipulation.first_norm, [self._run(moments, tile) for tile in tiles])
        second = _norm(manipulation.second_norm, [self._run(moments, tile, first) for tile in tiles])
        return self._join([self._run(self._whole, tile, (first, second)) for tile in tiles])

    # -- a tile --

    def _whole(self, tile: _Tile, norms: tuple[_Affine, _Affine] | None) -> Tensor:
        """Distances (e, q, classes)."""
        if norms is None:
            return self._compared(tile, self._carrier(tile))
        carrier, value = self._started(tile)
        return self._rest(tile, carrier, self._second(value, norms[0]), norms[1])

    def _prepared(self, tile: _Tile) -> _Tile:
        """With what the first convolution needs once an image."""
        if self.manipulation is None:
            return tile
        channels = tile.query.shape[-1]
        of_support, of_query = self.manipulation.first.weight.split(channels, dim=1)
        tile = tile._replace(query_half=self._convolved(tile.query, of_query))
        if tile.query_keys is None:
            return tile._replace(support_half=self._convolved(tile.support, of_support))
        if not self.through_weights:
            return tile
        kernels = tile.support @ of_support.permute(1, 2, 3, 0).flatten(1)  # (e, s, M, 9 H)
        kernels = kernels.unflatten(-1, (9, -1)).transpose(2, 3).flatten(2, 3)
        return tile._replace(support_half=kernels)

    def _carrier(self, tile: _Tile) -> Tensor:
        """(e, s, q, N, M) weights T, or (e, s, q, N, C) aligned maps: what the offsets sample."""
        if tile.query_keys is None or tile.support_keys is None:
            return tile.support.unsqueeze(2).expand(-1, -1, tile.query.shape[1], -1, -1)
        products = tile.query_keys.flatten(1, 2) @ tile.support_keys.flatten(1, 2).mT
        images, theirs = tile.support.shape[1:3]
        products = products.unflatten(2, (images, theirs)).unflatten(1, (-1, self.places))
        weights = torch.softmax(products.permute(0, 3, 1, 2, 4), dim=-1)
        if self.through_weights:
            return weights
        return (weights.flatten(2, 3) @ tile.support).unflatten(2, (-1, self.places))

    def _started(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        """The carrier, and the values (e, s, q, N, H) of the first convolution."""
        assert self.manipulation is not None
        assert tile.query_half is not None
        carrier = self._carrier(tile)
        if tile.query_keys is None:
            assert tile.support_half is not None
            return carrier, tile.support_half.unsqueeze(2) + tile.query_half.unsqueeze(1)
        if self.through_weights:
            assert tile.support_half is not None
            value = _windows(carrier, self.side).flatten(2, 3) @ tile.support_half
            value = value.unflatten(2, (-1, self.places))
        else:
            of_support = self.manipulation.first.weight[:, : tile.query.shape[-1]]
            value = self._convolved(carrier, of_support)
        return carrier, value + tile.query_half.unsqueeze(1)

    def _second(self, value: Tensor, norm: _Affine) -> Tensor:
        """Values of the second convolution."""
        assert self.manipulation is not None
        return self._convolved(norm(value), self.manipulation.second.weight)

    def _rest(self, tile: _Tile, carrier: Tensor, value: Tensor, norm: _Affine) -> Tensor:
        """Distances from what the second convolution gave."""
        assert self.manipulation is not None
        offsets = self.manipulation.read(self._maps(norm(value)))
        moved = sample_at_offsets(self._maps(carrier), offsets, self.manipulation.padding)
        moved = moved.flatten(2).mT.contiguous().view(*carrier.shape)
        return self._compared(tile, moved)

    def _compared(self, tile: _Tile, carrier: Tensor) -> Tensor:
        """Distances (e, q, classes) of the queries' maps to the class means of the maps that the carrier stands for."""
        episodes, images, queries = carrier.shape[:3]
        if tile.members is not None:
            if self.through_weights:
                carrier = (carrier.flatten(2, 3) @ tile.support).view(*carrier.shape[:-1], -1)
            means = (tile.members @ carrier.flatten(2)).view(episodes, tile.way, *carrier.shape[2:])
        else:
            split = tile.way, images // tile.way
            if self.through_weights:
                carrier = carrier.unflatten(1, split).permute(0, 1, 3, 4, 2, 5).flatten(4).flatten(2, 3)
                support = tile.support.unflatten(1, split).flatten(2, 3)
                means = (carrier @ support).unflatten(2, (queries, -1)) / split[1]
            else:
                means = carrier if split[1] == 1 else carrier.unflatten(1, split).mean(2)
        difference = means - tile.query.unsqueeze(1)
        return length_of(difference, self.distance).mT

    def _maps(self, sets: Tensor) -> Tensor:
        """(*, N, C) as (B, C, h, w), without a copy."""
        return sets.reshape(-1, self.side, self.side, sets.shape[-1]).permute(0, 3, 1, 2)

    def _convolved(self, sets: Tensor, weight: Tensor) -> Tensor:
        """A 3x3 convolution of (*, N, C)."""
        found = F.conv2d(self._maps(sets), weight, padding=1)
        return found.permute(0, 2, 3, 1).reshape(*sets.shape[:-1], -1)


class _Affine(NamedTuple):
    """A batch norm whose statistics are known, with the ReLU behind it."""

    factor: Tensor
    shift: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        return torch.addcmul(self.shift, value, self.factor).relu_()


def _affine(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> _Affine:
    factor = norm.weight * (variance + norm.eps).rsqrt()
    return _Affine(factor, norm.bias - mean * factor)


def _running(manipulation: SpatialManipulation) -> tuple[_Affine, _Affine]:
    """Both batch norms in evaluation mode."""
    norms = manipulation.first_norm, manipulation.second_norm
    first, second = (_affine(norm, norm.running_mean, norm.running_var) for norm in norms)  # type: ignore[arg-type]
    return first, second


def _moments(value: Tensor) -> _Moments:
    flat = value.flatten(0, -2)
    variance, mean = torch.var_mean(flat, 0, correction=0)
    return _Moments(mean, variance, len(flat))


def _norm(norm: nn.BatchNorm2d, parts: list[_Moments]) -> _Affine:
    """A batch norm in training mode from the moments of all tiles; it counts them as one batch."""
    count = sum(part.places for part in parts)
    share = parts[0].mean.new_tensor([part.places / count for part in parts]).unsqueeze(1)
    means, variances = (torch.stack(column) for column in _columns([part[:2] for part in parts]))
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    with torch.no_grad():
        momentum = 0.1 if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
        norm.running_var.lerp_(variance * (count / max(1, count - 1)), momentum)  # type: ignore[union-attr]
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return _affine(norm, mean, variance)


def _columns(rows: list[Any]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def _windows(sets: Tensor, side: int) -> Tensor:
    """(*, N, C) maps to (*, N, 9 C): the places around each, zeros beyond the edge, as a 3x3 kernel lies."""
    maps = F.pad(sets.unflatten(-2, (side, side)), (0, 0, 1, 1, 1, 1))
    around = [maps[..., y : y + side, x : x + side, :] for y in range(3) for x in range(3)]
    return torch.cat(around, dim=-1).flatten(-3, -2)


def length_of(difference: Tensor, distance: Distance) -> Tensor:
    """How far two maps are apart, from their difference.

    Args:
        difference: ``(*, N, C)``, one vector a place.
        distance: ``"squared_euclidean"``: mean of the squared lengths; ``"sum"``: their sum; ``"euclidean"``: mean of
            the lengths; ``"pooled"``: squared length of the mean vector.

    Returns:
        ``(*)``, at least 0.
    """
    if distance == "pooled":
        return torch.linalg.vector_norm(difference.mean(-2), dim=-1).square()
    lengths = torch.linalg.vector_norm(difference, dim=-1)
    if distance == "euclidean":
        return lengths.mean(-1)
    return lengths.square().sum(-1) if distance == "sum" else lengths.square().mean(-1)
