"""The earth mover's distance between many pairs of weighted sets, with exact gradients."""

from __future__ import annotations

from functools import cache
from math import isfinite, nan
from typing import Any, NamedTuple

import torch
from torch.autograd.function import FunctionCtx

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport.solver import SOLVERS, NotFiniteError, Solver
from fieldmark.shapes import Float, Tensor

# How far the two totals of a problem may be apart, relative to them: the rounding of a sum of weights.
_TOTALS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


class TransportPlan(NamedTuple):
    """The answer to a batch of transport problems.

    Attributes:
        value: ``(*)`` lowest total cost; differentiable.
        flow: ``(*, n, m)`` what goes from each supply node to each demand node; a constant in the graph.
        supply_potential: ``(*, n)`` the price of one more unit at each supply node: the value's gradient for the
            supply, up to one constant a problem that cancels against that of the demand. NaN where a solver has none.
        demand_potential: ``(*, m)`` likewise for the demand.
    """

    value: Float[Tensor, "*batch"]
    flow: Float[Tensor, "*batch n m"]
    supply_potential: Float[Tensor, "*batch n"]
    demand_potential: Float[Tensor, "*batch m"]


def emd(
    cost: Float[Tensor, "*#batch n m"],
    supply: Float[Tensor, "*#batch n"],
    demand: Float[Tensor, "*#batch m"],
    solver: str | Solver = "simplex",
    **options: Any,
) -> TransportPlan:
    """Cheapest way to move the supply of n nodes to the demand of m nodes, for many problems at once.

    Source: Rubner et al. 2000; DeepEMD (Zhang et al. 2020), eq. 1. Minimises ``sum_ij cost_ij x_ij`` over ``x >= 0``
    with ``sum_j x_ij = supply_i`` and ``sum_i x_ij = demand_j``.

    The value is differentiable in all three arguments, by the envelope theorem: its gradient is the flow for the cost
    and the dual potentials for the weights. (The paper differentiates a regularised problem through its optimality
    conditions; the result is the same.) The potentials are defined up to a constant that moves from one side to the
    other; it cancels where both sides are normalised to a fixed total, as they must be to stay balanced. The flow is
    a constant in the graph. Where the optimum is degenerate the potentials are not unique; those that the solver
    ``"simplex"`` uses for a gradient do not depend on the order of the nodes. There is no second derivative. Inside
    ``torch.compile`` the call is one break of the graph.

    Args:
        cost: Cost of one unit from node i to node j. Leading axes broadcast.
        supply: Weights of the n nodes, 0 or more.
        demand: Weights of the m nodes, 0 or more, with the same total as the supply.
        solver: Name of a solver, or one made by ``SOLVERS.create``: ``"simplex"`` (exact, float64 inside, on the
            processor), ``"sinkhorn"`` (approximate, on any device), ``"interior_point"``, ``"opencv"`` and ``"pot"``
            (references).
        options: Options of the named solver.

    Returns:
        Value, flow and potentials, in the type and on the device of the cost.

    Raises:
        FieldmarkError: For shapes that do not fit, no nodes, NaN, infinite or negative input, or totals that differ
            by more than the rounding of their type; in the backward pass, for a gradient of the weights where the
            solver has no potentials, and for a second derivative.

    Example:
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> plan = emd(cost, torch.tensor([1.0, 1.0]), torch.tensor([0.5, 1.5]))
        >>> plan.value, plan.flow
        (tensor(0.5000), tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]]))
    """
    if torch.compiler.is_compiling():
        # Imported here, since it brings the compiler; the call leaves the graph and comes back behind it.
        from fieldmark.functional.transport.outside import emd_outside

        return emd_outside(cost, supply, demand, solver, options)
    return emd_eagerly(cost, supply, demand, solver, options)


def emd_eagerly(
    cost: Tensor, supply: Tensor, demand: Tensor, solver: str | Solver, options: dict[str, Any]
) -> TransportPlan:
    """What :func:`emd` does outside of a compiled graph: check, flatten the leading axes, solve."""
    chosen = _chosen(solver, options)
    batch = _check_shapes(cost, supply, demand)
    n, m = cost.shape[-2:]
    coarsest = max(_TOTALS.get(one.dtype, 0.0) for one in (cost, supply, demand))
    supply, demand = supply.to(cost), demand.to(cost)
    checked = cost.detach(), supply.detach(), demand.detach(), coarsest
    _check_values(*checked, costs=not chosen.checks_costs)
    # Expanded before the graph node, so that autograd sums the gradients of what was broadcast.
    problems = _flat(cost, batch, (n, m)), _flat(supply, batch, (n,)), _flat(demand, batch, (m,))
    try:
        if torch.is_grad_enabled() and any(one.requires_grad for one in problems):
            answers = _Transport.apply(*problems, chosen)
        else:
            answers = _solved(*problems, chosen, False)[:4]
    except NotFiniteError:
        _check_values(*checked, costs=True)
        raise FieldmarkError("the costs of emd are so large that their sum is infinite; scale them down") from None
    if len(batch) != 1:
        answers = (one.reshape(batch + one.shape[1:]) for one in answers)
    return TransportPlan(*answers)


def _flat(tensor: Tensor, batch: torch.Size, nodes: tuple[int, ...]) -> Tensor:
    """With all leading axes as one."""
    if len(batch) == 1 and tensor.shape[: -len(nodes)] == batch:
        return tensor
    return tensor.expand(*batch, *nodes).reshape(-1, *nodes)


def duality_gap(
    plan: TransportPlan, supply: Float[Tensor, "*#batch n"], demand: Float[Tensor, "*#batch m"]
) -> Float[Tensor, "*batch"]:
    """How far the plan's value can be above the lowest one: value minus ``u . supply + v . demand``.

    It is 0 up to rounding for an exact solver, the error to expect for :data:`"sinkhorn"`, and NaN for a solver
    without potentials.

    Example:
        >>> half = torch.tensor([0.5, 0.5])
        >>> bool(duality_gap(emd(torch.rand(2, 2), half, half), half, half).abs() < 1e-6)
        True
    """
    u, v = plan.supply_potential, plan.demand_potential
    return plan.value.detach() - (u * supply.detach()).sum(-1) - (v * demand.detach()).sum(-1)


class _Transport(torch.autograd.Function):
    """The value with its gradients; flow and potentials as constants."""

    @staticmethod
    def forward(ctx: FunctionCtx, cost: Tensor, supply: Tensor, demand: Tensor, solver: Solver) -> tuple[Tensor, ...]:
        weights = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]  # type: ignore[attr-defined]
        value, flow, u, v, has_potentials = _solved(cost, supply, demand, solver, weights)
        ctx.weightless = "" if has_potentials else type(solver).__name__  # type: ignore[attr-defined]
        # The inputs' values are not needed again, only their place in the graph.
        ctx.save_for_backward(flow, u, v, cost, supply, demand)
        ctx.mark_non_differentiable(flow, u, v)
        return value, flow, u, v

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        if ctx.weightless and (needed[1] or needed[2]):
            raise FieldmarkError(
                f"solver {ctx.weightless} of emd has no potentials, so no gradient for supply and demand; detach them"
                " or take another solver"
            )
        with torch.no_grad():
            flow, u, v, *inputs = ctx.saved_tensors
            factors = ((grad[:, None, None], flow), (grad[:, None], u), (grad[:, None], v))
            out = [left * right if need else None for need, (left, right) in zip(needed, factors, strict=False)]
        if torch.is_grad_enabled():  # somebody wants to differentiate the gradient
            out = [None if one is None else _NoSecond.apply(one, grad, *inputs) for one in out]
        return (*out, None)


class _NoSecond(torch.autograd.Function):
    """A gradient that says, when it is differentiated itself, that it cannot be: the flow's derivative is not known."""

    @staticmethod
    def forward(ctx: FunctionCtx, gradient: Tensor, *depends_on: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *unused: Tensor) -> tuple[Tensor | None, ...]:
        raise FieldmarkError("emd has no second derivative; take its gradient without create_graph")


def _solved(
    cost: Tensor, supply: Tensor, demand: Tensor, solver: Solver, unique: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
    """Value, flow and potentials in the type of the cost, and whether the potentials are more than NaN."""
    value, flow, u, v = solver.solve(cost.detach(), supply.detach(), demand.detach(), unique=unique)
    if u is None or v is None:
        return (
            value.to(cost),
            flow.to(cost),
            supply.new_full(supply.shape, nan),
            demand.new_full(demand.shape, nan),
            False,
        )
    return value.to(cost), flow.to(cost), u.to(cost), v.to(cost), True


def _chosen(solver: str | Solver, options: dict[str, Any]) -> Solver:
    if isinstance(solver, Solver):
        if options:
            raise FieldmarkError(f"emd got options {sorted(options)} beside a solver that is already made")
        return solver
    return SOLVERS.create(solver, **options) if options else _plain(solver)


@cache
def _plain(solver: str) -> Solver:
    """The named solver with its default options; made once, as small problems take less time than that."""
    return SOLVERS.create(solver)


def _check_shapes(cost: Tensor, supply: Tensor, demand: Tensor) -> torch.Size:
    """The common leading axes."""
    if (
        cost.dim() < 2
        or supply.dim() < 1
        or demand.dim() < 1
        or cost.shape[-2:] != (supply.shape[-1], demand.shape[-1])
    ):
        raise FieldmarkError(f"emd got {_shapes(cost, supply, demand)}; expected (*, n, m), (*, n), (*, m)")
    if 0 in cost.shape[-2:]:
        raise FieldmarkError(f"emd got {_shapes(cost, supply, demand)}; a side without nodes has nothing to move")
    if cost.dtype not in _TOTALS:
        raise FieldmarkError(f"emd got a cost of type {cost.dtype}; expected a floating-point type")
    if not cost.device == supply.device == demand.device:
        raise FieldmarkError(
            f"emd got tensors on {cost.device}, {supply.device} and {demand.device}; expected one device"
        )
    if cost.shape[:-2] == supply.shape[:-1] == demand.shape[:-1]:
        return cost.shape[:-2]
    try:
        return torch.broadcast_shapes(cost.shape[:-2], supply.shape[:-1], demand.shape[:-1])
    except RuntimeError:
        raise FieldmarkError(f"emd got {_shapes(cost, supply, demand)}; the leading axes do not broadcast") from None


def _shapes(cost: Tensor, supply: Tensor, demand: Tensor) -> str:
    return f"cost {tuple(cost.shape)}, supply {tuple(supply.shape)}, demand {tuple(demand.shape)}"


def _check_values(cost: Tensor, supply: Tensor, demand: Tensor, tolerance: float, *, costs: bool) -> None:
    """Refuse what no solver can take; before the axes are broadcast, so that places are those of the caller."""
    if 0 in (cost.numel(), supply.numel(), demand.numel()):
        return
    one, other = supply.sum(-1, dtype=torch.float64), demand.sum(-1, dtype=torch.float64)
    # A few numbers in one look at the device say that all is well: a finite sum has finite terms, and NaN fails every
    # comparison. If they do not, the reason is looked for, and there may be none (a sum that is too large).
    excess = (one - other).abs_().sub_(one, alpha=tolerance).amax()
    facts = [supply.amin(), demand.amin(), excess]
    if costs:
        facts.append(cost.sum(dtype=torch.promote_types(cost.dtype, torch.float32)))
    if cost.device.type == "cpu":
        numbers = [fact.item() for fact in facts]
    else:
        numbers = torch.stack([fact.double() for fact in facts]).tolist()
    if numbers[0] >= 0 and numbers[1] >= 0 and numbers[2] <= 0 and all(map(isfinite, numbers[3:])):
        return
    for name, tensor in (("cost", cost), ("supply", supply), ("demand", demand)):
        bad = ~torch.isfinite(tensor) if name == "cost" else ~(torch.isfinite(tensor) & (tensor >= 0))
        if bad.any():
            place = tuple(bad.nonzero()[0].tolist())
            wanted = "finite numbers" if name == "cost" else "finite numbers, 0 or more"
            raise FieldmarkError(f"{name} of emd is {tensor[place].item()} at {place}; expected {wanted}")
    unequal = (one - other).abs() > tolerance * one
    if unequal.any():
        place = tuple(unequal.nonzero()[0].tolist())
        totals = (total.expand(unequal.shape)[place].item() for total in (one, other))
        raise FieldmarkError(
            "supply and demand of problem {} of emd sum to {:.9g} and {:.9g}; expected equal totals "
            "(scale one side)".format(place, *totals)
        )
