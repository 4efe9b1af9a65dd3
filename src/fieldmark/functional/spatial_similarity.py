"""How alike two images are place by place, after attention has aligned them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch.autograd.function import once_differentiable

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Float, Tensor

Aggregation = Literal["mean", "sum", "max", "logsumexp"]
Variant = Literal["code", "paper"]

# Locations a side of what is computed at once: on a processor it stays in the cache, elsewhere calls have to be few.
_LOCATIONS_ON_PROCESSOR = 400
_LOCATIONS_ELSEWHERE = 3200
_SHORTEST = 1e-12  # length below which a value has no direction


def spatial_similarity(
    queries: Float[Tensor, "A N d"],
    keys: Float[Tensor, "A N d"],
    values: Float[Tensor, "A N d"],
    aggregation: Aggregation = "mean",
    *,
    other: tuple[Float[Tensor, "B N d"], Float[Tensor, "B N d"], Float[Tensor, "B N d"]] | None = None,
    scale: float = 6.0,
    variant: Variant = "code",
    chunk: int | None = None,
) -> Float[Tensor, "A B"]:
    """Similarity of every image with every other, each location compared with what attention found for it.

    Source: SCL (Ouali et al. 2021), eq. 5 and 6. The values of image j, seen from the locations of image i, are
    ``aligned = softmax(queries_i keys_j^T / sqrt(d)) values_j``; a location's part is the cosine of its own value with
    the aligned one, plus the same with i and j exchanged. The parts run from -2 to 2. The result is symmetric, and
    every ordered pair is aligned once.

    Memory does not grow with the number of pairs times N times N: pairs are taken in chunks, and the backward pass
    computes each chunk again. There is no second derivative. Half precision is computed, and returned, in float32.

    Args:
        queries: Of N locations of each image; N is any number, maps need not be square.
        keys: Likewise.
        values: Likewise.
        aggregation: Over the N parts: ``"mean"`` (the paper's), ``"sum"``, ``"max"``, or ``"logsumexp"``:
            ``log(sum_r exp(scale * part_r)) / scale``.
        other: Queries, keys and values of a second set of B images with as many locations; default: the first set.
            Rows are then the first set. (The official code has the second set in the rows.)
        scale: Of ``"logsumexp"``; 6 in the official code.
        variant: ``"code"``: as above and in the official code; ``"paper"``: as eq. 6 reads, values are brought to unit
            length before they are aligned, and the part is a plain product with the aligned ones, which are shorter.
        chunk: Images of each set taken together; it changes memory and speed, not the result. Default: by their size.

    Raises:
        FieldmarkError: For shapes that do not fit, an unknown name, or a scale or chunk that is not positive.

    Example:
        >>> features = torch.eye(3).view(1, 3, 3).repeat(2, 1, 1)
        >>> features[1] = features[1].flip(0)
        >>> spatial_similarity(2 * features, 2 * features, features)
        tensor([[1.9806, 1.9806],
                [1.9806, 1.9806]])
    """
    first, second = _checked((queries, keys, values), other, aggregation, variant)
    if not (scale > 0 and math.isfinite(scale)):
        raise FieldmarkError(f"scale is {scale}; expected a positive number (6 in the official code)")
    if chunk is not None and chunk < 1:
        raise FieldmarkError(f"chunk is {chunk}; expected 1 image or more, or None to have it chosen")
    with torch.autocast(queries.device.type, enabled=False):
        mine = _projected(first, variant)
        theirs = (None,) * 5 if second is None else _projected(second, variant)
        step = chunk or _images_at_once(queries)
        parts = _PairParts.apply(variant == "code", step, *mine, *theirs)
        if aggregation == "max":
            return parts.amax(-1)
        if aggregation == "logsumexp":
            return (parts * scale).logsumexp(-1) / scale
        return parts.mean(-1) if aggregation == "mean" else parts.sum(-1)


class _Images(NamedTuple):
    """Some images, ready for their products.

    Only the directions of the values count for a cosine, and their lengths for how much of each there is in a mixture:
    these go into the attention.
    """

    queries: Tensor  # (B, N, d), divided by sqrt(d)
    keys: Tensor  # (B, N, d)
    directions: Tensor  # (B, N, d)
    bias: Tensor  # (B, N, 1) added to the scores of a key: the logarithm of its value's length
    gram: Tensor  # (B, N, N) products of the directions of an image; (B, 0, 0) for the variant "paper"

    def part(self, images: slice) -> _Images:
        return _Images(*(one[images] for one in self))

    def add(self, images: slice, gradients: _Images) -> None:
        for mine, new in zip(self, gradients, strict=True):
            mine[images] += new


def _projected(sets: tuple[Tensor, Tensor, Tensor], variant: Variant) -> _Images:
    queries, keys, values = sets
    length = values.norm(dim=-1, keepdim=True).clamp_min(_SHORTEST)
    directions, scaled = values / length, queries * queries.shape[-1] ** -0.5
    if variant == "paper":
        return _Images(scaled, keys, directions, torch.zeros_like(length), values.new_empty(len(values), 0, 0))
    return _Images(scaled, keys, directions, length.log(), directions @ directions.mT)


class _Workspace:
    """Memory that every tile uses again: fresh pages from the system cost as much as the products written to them."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._held = like, dict[str, Tensor]()

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape with anything in it; what had the name before is overwritten."""
        numbers = math.prod(shape)
        if name not in self._held or self._held[name].numel() < numbers:
            self._held[name] = self._like.new_empty(numbers)
        return self._held[name][:numbers].view(shape)


class _PairParts(torch.autograd.Function):
    """Parts (A, B, N) of all pairs: the sum of both cosines of every location."""

    @staticmethod
    def forward(ctx: Any, code: bool, step: int, *tensors: Tensor | None) -> Tensor:
        first, second = _split(tensors)
        with torch.autocast(first.queries.device.type, enabled=False):
            space, out = _Workspace(first.keys), _empty_parts(first, second)
            for rows, columns in _tiles(first, second, step):
                out[rows, columns] = found = _Tile(first, second, rows, columns, code, space).parts()
                if second is None and rows != columns:
                    out[columns, rows] = found.transpose(0, 1)
        ctx.save_for_backward(*tensors)
        ctx.code, ctx.step = code, step
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        first, second = _split(ctx.saved_tensors)
        with torch.autocast(first.queries.device.type, enabled=False):
            space, mine = _Workspace(first.keys), _Images(*(torch.zeros_like(one) for one in first))
            theirs = mine if second is None else _Images(*(torch.zeros_like(one) for one in second))
            for rows, columns in _tiles(first, second, ctx.step):
                part = wanted[rows, columns]
                if second is None:
                    part = part + wanted[columns, rows].transpose(0, 1)
                tile = _Tile(first, second, rows, columns, ctx.code, space)
                to_rows, to_columns = tile.gradients(part)
                mine.add(rows, to_rows)
                if to_columns is not None:
                    theirs.add(columns, to_columns)
        return (None, None, *mine, *((None,) * 5 if second is None else theirs))


class _Tile:
    """All pairs of some images a with some images b: each of a pair is aligned with the other one."""

    def __init__(
        self, first: _Images, second: _Images | None, rows: slice, columns: slice, code: bool, space: _Workspace
    ) -> None:
        self.a = first.part(rows)
        # Images with themselves: the other direction is the same numbers, transposed.
        self.same = second is None and rows == columns
        self.b = self.a if self.same else (first if second is None else second).part(columns)
        self.code, self.space = code, space
        self.flat_a, self.flat_b = self.a.directions.flatten(0, 1), self.b.directions.flatten(0, 1)
        shape = len(self.flat_b), len(self.flat_a)
        self.products = torch.mm(self.flat_b, self.flat_a.mT, out=space.take("products", *shape))
        if not self.same:
            self.transposed = space.take("transposed", *shape[::-1]).copy_(self.products.mT)

    def b_to_a(self) -> _Aligned:
        return _Aligned(self.b, self.a, self.products, self.code, self.space, "weights")

    def a_to_b(self) -> _Aligned:
        """To be made when the other direction is done with: only its weights stay."""
        return _Aligned(self.a, self.b, self.transposed, self.code, self.space, "weights of the other direction")

    def parts(self) -> Tensor:
        """(a, b, N)."""
        n = self.a.keys.shape[1]
        here = self.b_to_a().cosines.unflatten(1, (-1, n)).transpose(0, 1)
        there = here.transpose(0, 1) if self.same else self.a_to_b().cosines.unflatten(1, (-1, n))
        return here + there

    def gradients(self, wanted: Tensor) -> tuple[_Images, _Images | None]:
        """Of the images a and of the images b (None: they are the same), for the gradient (a, b, N) of the parts."""
        queries_a, keys_b, bias_b, gram_b, products = self.b_to_a().gradients(wanted.transpose(0, 1))
        if self.same:
            own = (products @ self.flat_a).addmm_(products.mT, self.flat_a)
            return _Images(queries_a, keys_b, own.view_as(keys_b), bias_b, gram_b), None
        queries_b, keys_a, bias_a, gram_a, transposed = self.a_to_b().gradients(wanted)
        products += transposed.mT
        own_a, own_b = (products.mT @ self.flat_b).view_as(keys_a), (products @ self.flat_a).view_as(keys_b)
        return _Images(queries_a, keys_a, own_a, bias_a, gram_a), _Images(queries_b, keys_b, own_b, bias_b, gram_b)


class _Aligned:
    """Some images (the source), aligned with the locations of others (the target), and the cosines this gives.

    Numbers of pairs of locations are (source images, N, target images times N), so that sums over the source's
    locations, and products of one source's N x N table with all of them, run over long rows.

    Neither the attention's denominator nor the aligned values are needed. A cosine does not change with the length of
    the aligned value, so the weights are exponentials that were not divided by their sum; the cosine's numerator is a
    weighted sum of cosines of the values themselves, and the squared length of a mixture is ``w^T G w`` with the N x N
    cosines G of the source's values.
    """

    def __init__(
        self, source: _Images, target: _Images, products: Tensor, code: bool, space: _Workspace, weights: str
    ) -> None:
        self.source, self.target, self.code = source, target, code
        images, n = source.keys.shape[:2]
        shape = images, n, products.shape[1]
        self.products, self.spare = products.view(shape), space.take("spare", *shape)
        self.weights = space.take(weights, *shape)
        keys, queries = source.keys.flatten(0, 1), target.queries.flatten(0, 1)
        torch.addmm(source.bias.flatten(0, 1), keys, queries.mT, out=self.weights.flatten(0, 1))
        self.weights.sub_(self.weights.amax(1, keepdim=True)).exp_()
        if code:
            self.mixed = torch.bmm(source.gram, self.weights, out=space.take("mixed", *shape))
            self.squared = torch.mul(self.mixed, self.weights, out=self.spare).sum(1)
            # The largest weight is 1. Below this, values cancel and what is left is rounding.
            self.least = n * torch.finfo(keys.dtype).eps
            self.inverse = self.squared.clamp_min(self.least).rsqrt()
        else:
            self.inverse = self.weights.sum(1).reciprocal()
        self.cosines = torch.mul(self.products, self.weights, out=self.spare).sum(1) * self.inverse

    def gradients(self, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of the target's queries, the source's keys, bias and gram, and the products.

        Args:
            wanted: Gradient of the cosines, (source images, target images, N).
        """
        up = wanted.flatten(1) * self.inverse
        down = up * self.cosines
        gram = torch.zeros_like(self.source.gram)
        if self.code:
            down = (down * self.inverse).masked_fill_(self.squared < self.least, 0)
            gram = torch.mul(self.weights, down.unsqueeze(1), out=self.spare) @ self.weights.mT
            gram.mul_(-0.5)
            less = self.mixed.mul_(down.unsqueeze(1))
        else:
            less = down.unsqueeze(1)
        scores = torch.mul(self.products, up.unsqueeze(1), out=self.spare).sub_(less).mul_(self.weights)
        flat, keys, queries = scores.flatten(0, 1), self.source.keys, self.target.queries
        for_queries = (flat.mT @ keys.flatten(0, 1)).view_as(queries)
        for_keys = (flat @ queries.flatten(0, 1)).view_as(keys)
        for_products = self.weights.mul_(up.unsqueeze(1)).flatten(0, 1)
        return for_queries, for_keys, scores.sum(-1, keepdim=True), gram, for_products


def _split(tensors: tuple[Tensor | None, ...]) -> tuple[_Images, _Images | None]:
    """The first set, and the second if there is one."""
    present = [one for one in tensors if one is not None]
    return _Images(*present[:5]), _Images(*present[5:]) if len(present) > 5 else None


def _empty_parts(first: _Images, second: _Images | None) -> Tensor:
    images, n = first.keys.shape[:2]
    return first.keys.new_empty(images, images if second is None else len(second.keys), n)


def _tiles(first: _Images, second: _Images | None, step: int) -> Iterator[tuple[slice, slice]]:
    """Images that are compared together; in one set those above the diagonal."""
    for start in range(0, len(first.keys), step):
        rows = slice(start, min(start + step, len(first.keys)))
        images = len(first.keys if second is None else second.keys)
        for other in range(start if second is None else 0, images, step):
            yield rows, slice(other, min(other + step, images))


def _images_at_once(queries: Tensor) -> int:
    """Images of a chunk."""
    locations = _LOCATIONS_ON_PROCESSOR if queries.device.type == "cpu" else _LOCATIONS_ELSEWHERE
    return max(1, locations // queries.shape[1])


def _checked(
    first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor] | None, aggregation: str, variant: str
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor] | None]:
    """Both sets in one type, if they fit together."""
    if aggregation not in get_args(Aggregation):
        raise unknown_name("aggregation", aggregation, get_args(Aggregation))
    if variant not in get_args(Variant):
        raise unknown_name("variant", variant, get_args(Variant))
    for name, sets in (("", first), (" of the other set", second or first)):
        shapes = ", ".join(str(tuple(one.shape)) for one in sets)
        if any(one.dim() != 3 or one.shape != sets[0].shape for one in sets):
            raise FieldmarkError(f"queries, keys and values{name} are {shapes}; expected three of one (B, N, d)")
        if 0 in sets[0].shape[1:]:
            raise FieldmarkError(f"queries, keys and values{name} are {shapes}; images without locations have no parts")
    if second is not None and first[0].shape[1:] != second[0].shape[1:]:
        raise FieldmarkError(
            f"(N, d) is {tuple(first[0].shape[1:])} in the first set and {tuple(second[0].shape[1:])} in the other;"
            " parts are added location by location, so pool both maps to one size"
        )
    return _one_type(first), None if second is None else _one_type(second)


def _one_type(sets: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Half precision becomes float32."""
    queries, keys, values = (one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in sets)
    return queries, keys, values
