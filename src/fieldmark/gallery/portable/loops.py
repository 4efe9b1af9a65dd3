"""Iterations as loops of the exported graph: as many rounds as the numbers need, whatever the size of the gallery."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fieldmark.functional.transport.feasible import balanced_demand, feasible_flow
from fieldmark.functional.transport.sinkhorn import Sinkhorn, iterate, scaled
from fieldmark.shapes import Float, Tensor

_MEMORY = 4  # pairs that L-BFGS keeps
_SEARCH = 4  # steps of a line search; nearly always the first is taken
_TOLERANCE = 1e-10
_MOST = 2000
_AT_ONCE = 20  # as Sinkhorn.solve looks whether a problem is done


def fit_logistic(
    features: Float[Tensor, "n d"], members: Float[Tensor, "n way"], C: float
) -> tuple[Float[Tensor, "way d"], Float[Tensor, "way"]]:
    """Weights and biases of :func:`fieldmark.functional.logistic_regression` for one problem, in float64.

    The same model by the same method (L-BFGS in the span of the samples), always to a relative gradient of 1e-10, where
    the eager function stops at 1e-5 in float32.

    Args:
        features: Samples.
        members: 1 where a sample is of a class, else 0.
        C: Inverse strength of the penalty.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> weight, bias = fit_logistic(x, torch.eye(2).repeat_interleave(2, 0), 1.0)
        >>> (x @ weight.mT + bias).argmax(-1)
        tensor([0, 0, 1, 1])
    """
    dtype, features, target = features.dtype, features.double(), members.double().mT.contiguous()
    mean = features.mean(0, keepdim=True)
    centred = features - mean
    gram = centred @ centred.mT
    # The bias as one feature more, as strong as the strongest (fieldmark/functional/logistic.py).
    spread = gram.square().sum().sqrt()
    gram = gram + torch.where(spread > 0, spread / features.shape[0], 1.0)
    dual, logits = _minimise(gram, target, C)
    weight = dual @ centred
    bias = logits.mean(-1) - (weight @ mean.mT).squeeze(-1)
    return weight.to(dtype), bias.to(dtype)


def _minimise(gram: Tensor, target: Tensor, C: float) -> tuple[Tensor, Tensor]:
    """Dual weights and logits, (way, n) each."""
    dual = torch.zeros_like(target)
    residual = torch.full_like(target, 1.0) / target.shape[0] - target
    image = residual @ gram
    goal = _TOLERANCE**2 * _dot(residual, image)
    probability = torch.full_like(target, 1.0) / target.shape[0]
    around = image - (probability * image).sum(0, keepdim=True)
    curvature = (probability * around * around).sum() + _dot(_centre(residual), image) / C
    scale = torch.where(curvature > 0, _dot(residual, image) / curvature, 1.0)
    history = torch.zeros((_MEMORY, 1, 1), dtype=target.dtype) * target  # (memory, way, n)
    inverse = torch.zeros(_MEMORY, dtype=target.dtype)

    def going(count, dual, logits, residual, image, scale, steps, moves, changes, images, inverse):
        return (count < _MOST) & (_dot(residual, image) > goal)

    def round_(count, dual, logits, residual, image, scale, steps, moves, changes, images, inverse):
        step, move = _direction(residual, image, scale, steps, moves, changes, images, inverse)
        length = _length(dual, logits, residual, target, step, move, C)
        step, move = step * length, move * length
        dual, logits = dual + step, logits + move
        new = torch.softmax(logits, 0) - target + dual / C
        new_image = new @ gram
        change, change_image = new - residual, new_image - image
        curvature, size = _dot(move, change), _dot(change, change_image)
        good = (curvature > 0) & (size > 0)
        scale = torch.where(good, curvature / torch.where(good, size, 1.0), scale)
        now = torch.where(curvature > 0, 1 / torch.where(curvature > 0, curvature, 1.0), 0.0)
        pairs = (steps, step), (moves, move), (changes, change), (images, change_image)
        kept = [torch.cat([old[1:], one.unsqueeze(0)]) for old, one in pairs]
        return count + 1, dual, logits, new, new_image, scale, *kept, torch.cat([inverse[1:], now.view(1)])

    start = (torch.zeros((), dtype=torch.int64), dual, dual.clone(), residual, image, scale)
    empty = tuple(history.clone() for _ in range(4))
    found = _loop(going, round_, (*start, *empty, inverse))
    return found[1], found[2]


def _direction(
    residual: Tensor, image: Tensor, scale: Tensor, steps: Tensor, moves: Tensor, changes: Tensor, images: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The two-loop recursion of L-BFGS, towards the minimum; pairs that are not there yet have an inverse of 0."""
    step, move, factors = residual, image, []
    for k in range(_MEMORY - 1, -1, -1):
        factors.append(inverse[k] * _dot(moves[k], step))
        step, move = step - factors[-1] * changes[k], move - factors[-1] * images[k]
    step, move = step * scale, move * scale
    for k in range(_MEMORY):
        factor = factors[_MEMORY - 1 - k] - inverse[k] * _dot(changes[k], move)
        step, move = step + factor * steps[k], move + factor * moves[k]
    return -_centre(step), -move


def _length(
    dual: Tensor, logits: Tensor, residual: Tensor, target: Tensor, step: Tensor, move: Tensor, C: float
) -> Tensor:
    """Length 1 if the slope falls by then, else secant steps to where it does."""
    slope = _dot(move, residual)
    length = torch.ones_like(slope)
    for _ in range(_SEARCH):
        new = torch.softmax(logits + length * move, 0) - target + (dual + length * step) / C
        now = _dot(move, new)
        good = (now >= 0.9 * slope) & (now <= -0.5 * slope)
        # The slope is negative at the start and grows along the way: never an end to it, rather four times as far.
        apart = slope - now
        secant = torch.where(apart < 0, slope / torch.where(apart < 0, apart, -1.0), 4.0).clamp(0.05, 4.0)
        length = torch.where(good, length, length * secant)
    return length


def _loop(
    going: Callable[..., Tensor], round_: Callable[..., tuple[Tensor, ...]], start: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """A loop of the graph while it is exported, else one of Python."""
    if torch.compiler.is_exporting():
        return torch.while_loop(going, round_, start)
    now = start
    while bool(going(*now)):
        now = round_(*now)
    return now


def _centre(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def sinkhorn_value(
    cost: Float[Tensor, "B n m"], supply: Float[Tensor, "B n"], demand: Float[Tensor, "B m"], solver: Sinkhorn
) -> Float[Tensor, " B"]:
    """What :class:`fieldmark.functional.transport.sinkhorn.Sinkhorn` gives as value, with its rounds as a loop.

    Args:
        cost: Of one unit from node to node.
        supply: Weights of one side, above 0.
        demand: Weights of the other.
        solver: Its epsilon, iterations and tolerance are taken.

    Example:
        >>> from fieldmark.functional.transport import emd
        >>> cost, half = torch.tensor([[[0.0, 1.0], [3.0, 1.0]]]), torch.full((1, 2), 0.5)
        >>> value = sinkhorn_value(cost, half, half, Sinkhorn())
        >>> torch.allclose(value, emd(cost, half, half, solver="sinkhorn").value)
        True
    """
    dtype, cost, supply = cost.dtype, cost.double(), supply.double()
    demand = balanced_demand(supply, demand.double())
    problem, _, _ = scaled(cost, supply, demand)
    f, g = torch.zeros_like(problem.supply), torch.zeros_like(problem.demand)
    target = solver.epsilon
    for stage in range(max(0, math.ceil(math.log2(0.25 / target))), 0, -1):
        epsilon = target * 2.0**stage
        f, g = iterate(problem, f / epsilon, g / epsilon, epsilon, 10)
        f, g = f * epsilon, g * epsilon
    step = min(_AT_ONCE, solver.iterations)

    def going(done, active, f, g):
        return (done < solver.iterations) & (active.sum() > 0)

    def round_(done, active, f, g):
        # A problem that is done stays as it is, as if it had been taken out.
        new_f, new_g = iterate(problem, f, g, target, step)
        on = active.unsqueeze(-1) > 0
        f, g = torch.where(on, new_f, f), torch.where(on, new_g, g)
        rows = torch.exp(f.unsqueeze(-1) + g.unsqueeze(-2) - problem.cost / target).sum(-1)
        error = (rows - problem.supply.exp()).abs().sum(-1)
        return done + step, active * (error > solver.tolerance).to(active.dtype), f, g

    begun = torch.zeros((), dtype=torch.int64), torch.ones_like(supply[:, 0]), f / target, g / target
    _, _, f, g = _loop(going, round_, begun)
    total = supply.sum(-1)[:, None, None]
    flow = torch.exp(f.unsqueeze(-1) + g.unsqueeze(-2) - problem.cost / target) * total
    return (feasible_flow(flow, supply, demand) * cost).sum((-2, -1)).to(dtype)
