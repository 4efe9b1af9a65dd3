"""How well the local descriptors of two images can be matched, as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.functional.transport import Solver, TransportPlan, emd
from fieldmark.functional.weights import Variant, Weights, equal_weights, mean_descriptor, normalise_weights, relevance
from fieldmark.shapes import Bool, Float, Tensor

Weighting = Literal["cross_reference", "equal"]

# Where no gradient is wanted: descriptors and costs of a part of the batch, and costs of a part of its pairs. Smaller
# and larger parts were slower (docs/decisions/0004 says why).
_BYTES_IN_CACHE = 8 * 2**20
_BYTES_AT_ONCE = 16 * 2**20


class Matches(NamedTuple):
    """What was matched with what.

    Attributes:
        similarity: ``(*batch, Q, S)``.
        flow: ``(*batch, Q, S, N, M)`` how much of each query node goes to each support node; all sum to N.
        contributions: ``(*batch, Q, S, N, M)`` what each pair of nodes adds to the similarity; they sum to it.
        query_weights: ``(*batch, Q, S, N)``, summing to N.
        support_weights: ``(*batch, Q, S, M)``, summing to N.
    """

    similarity: Float[Tensor, "*batch Q S"]
    flow: Float[Tensor, "*batch Q S N M"]
    contributions: Float[Tensor, "*batch Q S N M"]
    query_weights: Float[Tensor, "*batch Q S N"]
    support_weights: Float[Tensor, "*batch Q S M"]


def emd_similarity(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    query_weights: Float[Tensor, "*#pairs N"] | None = None,
    support_weights: Float[Tensor, "*#pairs M"] | None = None,
    *,
    real: Bool[Tensor, "*batch S M"] | None = None,
    variant: Variant = "code",
    centre: bool | None = None,
    weights: Weighting = "cross_reference",
    temperature: float = 12.5,
    solver: str | Solver = "simplex",
    weight_gradient: bool = True,
) -> Float[Tensor, "*batch Q S"]:
    """Similarity of every query with every support set under the best matching of their local descriptors.

    Source: DeepEMD (Zhang et al. 2020), eq. 2, 3, 11, 12; ``temperature / N * sum_ij (1 - c_ij) x_ij`` with the cosine
    distance c and the optimal flow x between two sets of nodes whose weights both sum to N. It runs from -temperature
    to temperature. (The paper has no temperature, the official code 12.5.)

    The similarity is ``temperature / N * (N - emd)``, so its gradient needs one exact solution: the flow for the
    costs, the dual potentials for the weights. Half precision is computed, and returned, in float32.

    Args:
        query: N descriptors of each query.
        support: M descriptors of each support set; M may differ from N, and both sides are then scaled to N.
        query_weights: Weights of the query nodes, broadcast to ``(*batch, Q, S, N)``; default: as ``weights`` says.
        support_weights: Weights of the support nodes, broadcast to ``(*batch, Q, S, M)``.
        real: Which support descriptors exist; the others are padding and match nothing.
        variant: ``"code"``: vectors centred across channels for the costs, and 1e-3 added to every weight, as in the
            official code; ``"paper"``: neither. A side whose weights are then all 0 gets equal ones.
        centre: Centre across channels or not, whatever the variant.
        weights: ``"cross_reference"`` or ``"equal"``; only for sides without weights of their own.
        temperature: Factor on the similarity.
        solver: Name of a transport solver, or one already made.
        weight_gradient: False takes the weights as constants, as the official training with OpenCV does.

    Raises:
        FieldmarkError: For shapes that do not fit, empty sets, NaN or negative weights, a temperature
            of 0 or less, or an unknown option.

    Example:
        >>> query = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> support = torch.stack([query[0].flip(0), torch.eye(3)[[0, 2]]])
        >>> emd_similarity(query, support, weights="equal", centre=False)
        tensor([[12.5000,  6.2500]])
    """
    check_temperature(temperature)
    given = _checked(query, support, query_weights, support_weights, real, variant, weights)
    shape = (*query.shape[:-2], support.shape[-3])
    options = _Options(variant, _centred(variant, centre), weights, temperature, solver, weight_gradient)
    with _full_precision(query):
        return _scores(given, options).view(shape)


def emd_matches(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    query_weights: Float[Tensor, "*#pairs N"] | None = None,
    support_weights: Float[Tensor, "*#pairs M"] | None = None,
    *,
    real: Bool[Tensor, "*batch S M"] | None = None,
    variant: Variant = "code",
    centre: bool | None = None,
    weights: Weighting = "cross_reference",
    temperature: float = 12.5,
    solver: str | Solver = "simplex",
    weight_gradient: bool = True,
) -> Matches:
    """The matching behind :func:`emd_similarity`, with what every pair of nodes adds to it.

    Takes the arguments of :func:`emd_similarity`. All flows are held at once: choose few pairs.

    Example:
        >>> query, support = torch.rand(3, 4, 8), torch.rand(2, 5, 8)
        >>> found = emd_matches(query, support)
        >>> torch.allclose(found.contributions.sum((-2, -1)), found.similarity, atol=1e-4)
        True
    """
    check_temperature(temperature)
    given = _checked(query, support, query_weights, support_weights, real, variant, weights)
    nodes, batch = query.shape[-2], query.shape[:-3]
    options = _Options(variant, _centred(variant, centre), weights, temperature, solver, weight_gradient)
    with _full_precision(query):
        plan, cost, pair = _plan(_Sides.of(given, options), options)
    contributions = (temperature / nodes) * (1 - cost) * plan.flow
    parts = (_similarity(plan, nodes, temperature), plan.flow, contributions, pair.query, pair.support)
    return Matches(*(one.view(*batch, *one.shape[1:]) for one in parts))


class _Options(NamedTuple):
    variant: Variant
    centre: bool
    weights: Weighting
    temperature: float
    solver: str | Solver
    weight_gradient: bool


class _Given(NamedTuple):
    """The tensors of a call, with one leading axis."""

    query: Tensor
    support: Tensor
    query_weights: Tensor | None
    support_weights: Tensor | None
    real: Tensor | None

    def part(self, episodes: slice) -> _Given:
        """Some of the batch."""
        mine, theirs, real = (None if one is None else one[episodes] for one in self[2:])
        return _Given(self.query[episodes], self.support[episodes], mine, theirs, real)


class _Sides(NamedTuple):
    """Both sides ready for their products: descriptors, their means and directions, and weights that were given."""

    query: Tensor
    support: Tensor
    query_mean: Tensor
    support_mean: Tensor
    query_unit: Tensor
    support_unit: Tensor
    query_weights: Tensor | None
    support_weights: Tensor | None
    real: Tensor | None

    @classmethod
    def of(cls, given: _Given, options: _Options) -> _Sides:
        query, support, mine, theirs, real = given
        means = query.mean(-2), mean_descriptor(support, real)
        units = directions(query, options.centre), directions(support, options.centre)
        return cls(query, support, *means, *units, mine, theirs, real)

    def part(self, queries: slice, sets: slice) -> _Sides:
        """Some of the queries and of the support sets."""
        return _Sides(
            self.query[:, queries],
            self.support[:, sets],
            self.query_mean[:, queries],
            self.support_mean[:, sets],
            self.query_unit[:, queries],
            self.support_unit[:, sets],
            None if self.query_weights is None else self.query_weights[:, queries, sets],
            None if self.support_weights is None else self.support_weights[:, queries, sets],
            None if self.real is None else self.real[:, sets],
        )

    def weights(self, options: _Options) -> Weights:
        """Weights of both sides of every pair, each summing to N."""
        mine, theirs, total = self.query_weights, self.support_weights, self.query.shape[-2]
        if mine is None or theirs is None:
            if options.weights == "equal":
                made = equal_weights(self.query, self.support, real=self.real)
            else:
                made = relevance(*self[:4], options.variant, self.real)
            mine, theirs = made.query if mine is None else mine, made.support if theirs is None else theirs
        if not options.weight_gradient:
            mine, theirs = mine.detach(), theirs.detach()
        real = None if self.real is None else self.real.unsqueeze(1)
        theirs = theirs if real is None else theirs * real
        return Weights(normalise_weights(mine, total), normalise_weights(theirs, total, real=real))


def directions(sets: Float[Tensor, "*shape C"], centre: bool) -> Float[Tensor, "*shape C"]:
    """Descriptors of unit length, each first freed of its mean over the channels if ``centre``.

    Example:
        >>> directions(torch.tensor([[1.0, 3.0]]), True)
        tensor([[-0.7071,  0.7071]])
    """
    return l2_normalise(sets - sets.mean(-1, keepdim=True) if centre else sets)


def pair_cosines(
    query: Float[Tensor, "*batch Q N C"], support: Float[Tensor, "*batch S M C"]
) -> Float[Tensor, "*batch Q S N M"]:
    """Products of all descriptors of all pairs, in one matrix product and one change of layout.

    Example:
        >>> pair_cosines(torch.rand(2, 3, 8), torch.rand(4, 5, 8)).shape
        torch.Size([2, 4, 3, 5])
    """
    products = query.flatten(-3, -2) @ support.flatten(-3, -2).mT
    sizes = (*query.shape[:-1], *support.shape[-3:-1])
    return products.view(sizes).transpose(-3, -2)


def _scores(given: _Given, options: _Options) -> Tensor:
    """Similarities (E, Q, S): all at once for a gradient, else part by part."""
    nodes, temperature = given.query.shape[-2], options.temperature
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given):
        return _similarity(_plan(_Sides.of(given, options), options)[0], nodes, temperature)
    out = given.query.new_empty(*given.query.shape[:2], given.support.shape[1])
    for episodes in _episodes(given):
        # Each part of the batch is prepared, matched and forgotten while it is in the processor's cache.
        sides = _Sides.of(given.part(episodes), options)
        for queries, sets in _parts(sides):
            out[episodes, queries, sets] = _similarity(_plan(sides.part(queries, sets), options)[0], nodes, temperature)
    return out


def _plan(sides: _Sides, options: _Options) -> tuple[TransportPlan, Tensor, Weights]:
    """The plan of every pair, its costs and weights."""
    pair = sides.weights(options)
    cost = 1 - pair_cosines(sides.query_unit, sides.support_unit)
    return emd(cost, pair.query, pair.support, solver=options.solver), cost, pair


def _similarity(plan: TransportPlan, nodes: int, temperature: float) -> Tensor:
    return temperature - (temperature / nodes) * plan.value


def _episodes(given: _Given) -> Iterator[slice]:
    """Parts of the batch whose descriptors and costs fit into the processor's cache."""
    (batch, queries, n, channels), (sets, m) = given.query.shape, given.support.shape[1:3]
    numbers = (queries * n + sets * m) * channels + queries * n * sets * m
    step = max(1, _BYTES_IN_CACHE // max(1, numbers * given.query.element_size()))
    return (slice(start, start + step) for start in range(0, batch, step))


def _parts(sides: _Sides) -> Iterator[tuple[slice, slice]]:
    """Queries and support sets whose costs are held together."""
    (batch, queries, n, _), (sets, m) = sides.query.shape, sides.support.shape[1:3]
    pairs = max(1, _BYTES_AT_ONCE // (batch * n * m * sides.query.element_size()))
    set_step = max(1, min(sets, pairs))
    query_step = max(1, pairs // max(1, sets))
    for start in range(0, queries, query_step):
        for first in range(0, sets, set_step):
            yield slice(start, start + query_step), slice(first, first + set_step)


def _full_precision(query: Tensor) -> torch.autocast:
    """Costs and weights are worth more digits than mixed precision leaves."""
    return torch.autocast(query.device.type, enabled=False)


def _centred(variant: Variant, centre: bool | None) -> bool:
    return variant == "code" if centre is None else centre


def check_sets(query: Tensor, support: Tensor, real: Tensor | None, variant: str, weights: str) -> None:
    """Refuse sets that cannot be compared, and unknown names.

    Args:
        query: Expected ``(*batch, Q, N, C)``.
        support: Expected ``(*batch, S, M, C)``.
        real: Expected ``(*batch, S, M)``, or None.
        variant: One of ``Variant``.
        weights: One of ``Weighting``.

    Raises:
        FieldmarkError: For the first that is not as expected; the message says how to mend it.
    """
    if variant not in get_args(Variant):
        raise unknown_name("variant", variant, get_args(Variant))
    if weights not in get_args(Weighting):
        raise unknown_name("weights", weights, get_args(Weighting))
    shapes = f"query {tuple(query.shape)} and support {tuple(support.shape)}"
    if query.dim() < 3 or query.dim() != support.dim():
        raise FieldmarkError(f"{shapes}; expected (*, Q, N, C) and (*, S, M, C); add the missing axes with unsqueeze")
    if query.shape[-1] != support.shape[-1] or query.shape[:-3] != support.shape[:-3]:
        raise FieldmarkError(f"{shapes} differ in channels (last axis) or in the leading axes")
    if 0 in query.shape[-2:] or 0 in support.shape[-2:]:
        raise FieldmarkError(f"{shapes}; a set without descriptors matches nothing")
    if real is not None and real.shape != support.shape[:-1]:
        raise FieldmarkError(
            f"real has shape {tuple(real.shape)}; expected {tuple(support.shape[:-1])}, one a descriptor"
        )


def _checked(
    query: Tensor,
    support: Tensor,
    query_weights: Tensor | None,
    support_weights: Tensor | None,
    real: Tensor | None,
    variant: str,
    weights: str,
) -> _Given:
    """The tensors with one leading axis, if they fit."""
    check_sets(query, support, real, variant, weights)
    kind = torch.promote_types(torch.promote_types(query.dtype, support.dtype), torch.float32)
    query, support = query.to(kind), support.to(kind)
    batch, pairs = math.prod(query.shape[:-3]), (*query.shape[:-2], support.shape[-3])
    mine = _expanded(query_weights, query, (*pairs, query.shape[-2]), "query_weights")
    theirs = _expanded(support_weights, query, (*pairs, support.shape[-2]), "support_weights")
    query, support = query.reshape(batch, *query.shape[-3:]), support.reshape(batch, *support.shape[-3:])
    return _Given(query, support, mine, theirs, None if real is None else real.reshape(batch, *real.shape[-2:]))


def check_temperature(temperature: float) -> None:
    """Refuse a factor that would make all similarities alike, or turn their order round.

    Example:
        >>> check_temperature(0.0)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: temperature is 0.0; expected a number above 0
    """
    if not 0 < temperature < math.inf:
        raise FieldmarkError(f"temperature is {temperature}; expected a number above 0")


def _expanded(weights: Tensor | None, query: Tensor, shape: tuple[int, ...], name: str) -> Tensor | None:
    if weights is None:
        return None
    if bool((weights < 0).any()):
        raise FieldmarkError(f"{name} has a negative number; expected 0 or more")
    try:
        return weights.to(query).expand(shape).reshape(math.prod(shape[:-3]), *shape[-3:])
    except RuntimeError:
        raise FieldmarkError(
            f"{name} has shape {tuple(weights.shape)}; expected one that broadcasts to {shape}"
        ) from None
