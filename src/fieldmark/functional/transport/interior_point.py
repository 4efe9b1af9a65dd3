"""A primal-dual interior-point solver: an independent reference for tests, and the paper's regularised problem."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport.feasible import balanced_demand, feasible_flow, feasible_potentials
from fieldmark.functional.transport.solver import SOLVERS, Solution, Solver
from fieldmark.shapes import Bool, Float, Tensor


@SOLVERS.add(
    "interior_point", "primal-dual interior point, a slow reference", source="Mehrotra 1992; Amos & Kolter 2017"
)
class InteriorPoint(Solver):
    """Mehrotra's predictor-corrector method for the transport problem, batched, in float64.

    Each step solves the normal equations of all problems by Cholesky factors of (n + m)-square matrices. The equation
    of the largest demand follows from the others and is left out, as are nodes of weight 0.

    With ``l2`` the problem is that of the DeepEMD paper, eq. 5, as its code solves it through QPTH:
    ``<cost, x> + l2 / 2 * |x|^2`` (1e-6 there). The potentials are then those of that problem; without it, flow
    and potentials are made exactly feasible at the end, so that the duality gap bounds the error.

    Args:
        l2: Strength of the quadratic term.
        iterations: Most Newton steps.
        tolerance: Largest duality gap, in units of total times cost range, and largest errors of the equations at
            which a problem is done.

    Raises:
        FieldmarkError: For options out of range, and where a problem is not done after the iterations.

    Example:
        >>> from fieldmark.functional.transport import emd
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> supply, demand = torch.tensor([[1.0, 1.0], [0.5, 1.5]], dtype=torch.float64)
        >>> round(emd(cost, supply, demand, solver="interior_point").value.item(), 7)
        0.5
    """

    def __init__(self, l2: float = 0.0, iterations: int = 100, tolerance: float = 1e-10) -> None:
        for name, value, low in (("l2", l2, 0), ("iterations", iterations, 1), ("tolerance", tolerance, 1e-13)):
            if not low <= value < float("inf"):
                raise FieldmarkError(f"{name} of solver interior_point is {value}; expected at least {low}")
        self.l2 = l2
        self.iterations = iterations
        self.tolerance = tolerance

    def solve(self, cost: Tensor, supply: Tensor, demand: Tensor, *, unique: bool) -> Solution:
        """Flow and potentials; always on the processor."""
        original, cost, supply = cost, cost.double().cpu(), supply.double().cpu()
        demand = balanced_demand(supply, demand.double().cpu())
        flow, u, v = torch.zeros_like(cost), torch.zeros_like(supply), torch.zeros_like(demand)
        todo = supply.sum(-1).gt(0).nonzero()[:, 0]
        state = _start(cost[todo], supply[todo], demand[todo], self.l2)
        for _ in range(self.iterations):
            done = state.error() < self.tolerance
            if done.any():
                where = todo[done]
                flow[where] = state.flow[done] * state.total[done, None, None]
                u[where] = state.u[done] * state.scale[done, None] + state.low[done, None]
                v[where] = state.v[done] * state.scale[done, None]
                todo, state = todo[~done], _State(*(one[~done] for one in state))
            if not len(todo):
                break
            state = _newton(state)
        if len(todo):
            raise FieldmarkError(
                f"solver interior_point left problem {int(todo[0])} with an error of {state.error()[0].item():.1e}"
                f" after {self.iterations} iterations; raise iterations or tolerance ({self.tolerance:.1e})"
            )
        flow = feasible_flow(flow, supply, demand)
        if not self.l2:
            u, v = feasible_potentials(cost, supply, u)
        value = (flow * cost).sum((-2, -1))
        return Solution(*(one.to(original.device) for one in (value, flow, u, v)))


class _State(NamedTuple):
    """Iterates of problems with costs in [0, 1] and weights of total 1; every tensor starts with the axis B.

    ``slack`` is the dual variable of ``flow >= 0``; ``kept`` says which of the n + m equations of the sums are used.
    Entries of nodes of weight 0 are 0 throughout.
    """

    cost: Float[Tensor, "B n m"]
    supply: Float[Tensor, "B n"]
    demand: Float[Tensor, "B m"]
    l2: Float[Tensor, "B"]
    counts: Bool[Tensor, "B n m"]
    low: Float[Tensor, "B"]
    scale: Float[Tensor, "B"]
    total: Float[Tensor, "B"]
    kept: Bool[Tensor, "B nodes"]
    flow: Float[Tensor, "B n m"]
    slack: Float[Tensor, "B n m"]
    u: Float[Tensor, "B n"]
    v: Float[Tensor, "B m"]

    def residuals(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the row sums, the column sums and the dual equations lack."""
        dual = self.cost + self.l2[:, None, None] * self.flow - self.u.unsqueeze(-1) - self.v.unsqueeze(-2) - self.slack
        rows, columns = self.supply - self.flow.sum(-1), self.demand - self.flow.sum(-2)
        return rows, columns, torch.where(self.counts, dual, 0.0)

    def error(self) -> Tensor:
        """The largest of complementarity and residuals, ``(B,)``."""
        rows, columns, dual = self.residuals()
        gap = (self.flow * self.slack).sum((-2, -1))
        return torch.stack([gap, rows.abs().amax(-1), columns.abs().amax(-1), dual.abs().amax((-2, -1))]).amax(0)


def _start(cost: Tensor, supply: Tensor, demand: Tensor, l2: float) -> _State:
    """The product of the weights as flow, and slacks of 1."""
    counts = (supply > 0).unsqueeze(-1) & (demand > 0).unsqueeze(-2)
    low = torch.where(counts, cost, torch.inf).amin((-2, -1))
    high = torch.where(counts, cost, -torch.inf).amax((-2, -1))
    scale = torch.where(high > low, high - low, 1.0)
    total = supply.sum(-1)
    within = torch.where(counts, (cost - low[:, None, None]) / scale[:, None, None], 0.0)
    a, b = supply / total[:, None], demand / total[:, None]
    spare = torch.nn.functional.one_hot(b.argmax(-1), b.shape[-1]).bool()
    kept = torch.cat([a > 0, (b > 0) & ~spare], -1)
    return _State(
        within, a, b, l2 * total / scale, counts, low, scale, total, kept,
        a.unsqueeze(-1) * b.unsqueeze(-2), counts.to(cost), torch.zeros_like(a), torch.zeros_like(b),
    )  # fmt: skip


def _newton(state: _State) -> _State:
    """One predictor-corrector step."""
    flow, slack, counts = state.flow, state.slack, state.counts
    safe = torch.where(counts, flow, 1.0)
    weight = torch.where(counts, 1 / (torch.where(counts, slack, 1.0) / safe + state.l2[:, None, None]), 0.0)
    factor = _factor(weight, state.kept)
    size = counts.sum((-2, -1))
    mean = (flow * slack).sum((-2, -1)) / size
    # Predictor: straight to the optimum; how far it gets says how much to centre.
    by_flow, by_slack, *_ = _direction(state, weight, safe, factor, -flow * slack)
    ahead = (flow + _step(flow, by_flow) * by_flow) * (slack + _step(slack, by_slack) * by_slack)
    centre = (ahead.sum((-2, -1)) / size / mean).clamp(0, 1) ** 3 * mean
    target = torch.where(counts, centre[:, None, None] - by_flow * by_slack, 0.0) - flow * slack
    by_flow, by_slack, by_u, by_v = _direction(state, weight, safe, factor, target)
    primal, dual = 0.99 * _step(flow, by_flow, 1 / 0.99), 0.99 * _step(slack, by_slack, 1 / 0.99)
    if state.l2.any():  # the two step lengths of a quadratic problem have to agree
        primal = dual = torch.minimum(primal, dual)
    return state._replace(
        flow=flow + primal * by_flow,
        slack=slack + dual * by_slack,
        u=state.u + dual[..., 0] * by_u,
        v=state.v + dual[..., 0] * by_v,
    )


def _factor(weight: Tensor, kept: Tensor) -> Tensor:
    """Cholesky factors of the normal matrices ``[[diag(W 1), W], [W', diag(W' 1)]]``; the identity where not kept."""
    n, m = weight.shape[-2:]
    matrix = weight.new_zeros(len(weight), n + m, n + m)
    inner = torch.where(kept[:, n:].unsqueeze(-2), weight, 0.0)
    matrix[:, :n, n:] = inner
    matrix[:, n:, :n] = inner.mT
    diagonal = torch.where(kept, torch.cat([weight.sum(-1), weight.sum(-2)], -1), 1.0)
    # Near the optimum the matrices are nearly singular: as small a shift as makes all of them positive.
    for shift in (0.0, 1e-15, 1e-13, 1e-11, 1e-9):
        matrix.diagonal(dim1=-2, dim2=-1).copy_(diagonal * (1 + shift))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed.any():
            break
    return factor


def _direction(state: _State, weight: Tensor, safe: Tensor, factor: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Newton direction for ``flow * slack + change = target`` and the equations."""
    n = state.flow.shape[-2]
    rows, columns, dual = state.residuals()
    pushed = weight * (target / safe - dual)
    right = torch.cat([rows - pushed.sum(-1), columns - pushed.sum(-2)], -1)
    answer = torch.cholesky_solve(torch.where(state.kept, right, 0.0).unsqueeze(-1), factor)[..., 0]
    by_u, by_v = answer[:, :n], answer[:, n:]
    by_flow = weight * (by_u.unsqueeze(-1) + by_v.unsqueeze(-2)) + pushed
    by_slack = torch.where(state.counts, (target - state.slack * by_flow) / safe, 0.0)
    return by_flow, by_slack, by_u, by_v


def _step(value: Tensor, change: Tensor, most: float = 1.0) -> Tensor:
    """The longest step, at most ``most``, that keeps the values positive: ``(B, 1, 1)``."""
    longest = torch.where(change < 0, value / -change, torch.inf).amin((-2, -1), keepdim=True)
    return longest.clamp(max=most)
