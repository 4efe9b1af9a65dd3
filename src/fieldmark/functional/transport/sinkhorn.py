"""Approximate transport on any device: entropic regularisation, made feasible, with its error known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport.feasible import balanced_demand, feasible_flow, feasible_potentials
from fieldmark.functional.transport.solver import SOLVERS, Solution, Solver
from fieldmark.shapes import Float, Tensor


@SOLVERS.add("sinkhorn", "approximate, on any device, with a bound of its error", source="Cuturi 2013; Schmitzer 2019")
class Sinkhorn(Solver):
    """Entropic transport in the log domain with epsilon scaling, rounded to a feasible flow.

    Minimises ``<cost, x> + e * entropy`` by alternating scalings of rows and columns (Cuturi 2013), on logarithms
    so that nothing underflows; ``e`` falls from a quarter of the cost range to its target (Schmitzer 2019). A
    problem is done when its row sums are right, or when the iterations run out. The flow is then rounded to the exact
    row and column sums (Altschuler et al. 2017) and the potentials are made dual feasible by a c-transform, so that
    :func:`fieldmark.functional.duality_gap` of the plan is a true bound of its error.

    Args:
        epsilon: Target of ``e`` in units of a problem's cost range. The value comes out too high by about a tenth of
            that, in units of range times total; iterations grow with its inverse.
        iterations: Most iterations over rows and columns at the target; 1 is a row and a column scaling.
        tolerance: Largest sum of errors of the row sums, in units of the total, at which a problem is done.

    Raises:
        FieldmarkError: For options out of range.

    Example:
        >>> from fieldmark.functional.transport import duality_gap, emd
        >>> cost = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]], dtype=torch.float64)
        >>> supply, demand = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
        >>> plan = emd(cost, supply, demand, solver="sinkhorn")
        >>> round(plan.value.item(), 2), bool(duality_gap(plan, supply, demand) < 0.05)
        (10.0, True)
    """

    def __init__(self, epsilon: float = 3e-3, iterations: int = 1000, tolerance: float = 1e-3) -> None:
        if not 1e-6 <= epsilon <= 1:
            raise FieldmarkError(f"epsilon of solver sinkhorn is {epsilon}; expected 0.000001 to 1")
        if iterations < 1:
            raise FieldmarkError(f"iterations of solver sinkhorn is {iterations}; expected at least 1")
        if not tolerance > 0:
            raise FieldmarkError(f"tolerance of solver sinkhorn is {tolerance}; expected a number above 0")
        self.epsilon = epsilon
        self.iterations = iterations
        self.tolerance = tolerance

    def solve(self, cost: Tensor, supply: Tensor, demand: Tensor, *, unique: bool) -> Solution:
        """Feasible flow and potentials; on a processor in float64, elsewhere in the type of the cost.

        Single precision is enough: on problems of 25 nodes the values agree to 1 % of the error that epsilon makes,
        down to an epsilon of 3e-4. On a processor it is slower, for torch's ``logsumexp`` is.
        """
        inside = torch.float64 if cost.device.type == "cpu" else torch.promote_types(cost.dtype, torch.float32)
        cost, supply = cost.to(inside), supply.to(inside)
        demand = balanced_demand(supply, demand.to(inside))
        problem, low, scale = scaled(cost, supply, demand)
        f, g = self._log_potentials(problem)
        total = supply.sum(-1, keepdim=True)
        flow = torch.exp(f.unsqueeze(-1) + g.unsqueeze(-2) - problem.cost / self.epsilon) * total.unsqueeze(-1)
        flow = feasible_flow(flow, supply, demand)
        u, v = feasible_potentials(cost, supply, f * (self.epsilon * scale) + low)
        return Solution((flow * cost).sum((-2, -1)), flow, u, v)

    def _log_potentials(self, problem: Scaled) -> tuple[Tensor, Tensor]:
        """Potentials in units of epsilon: exp(f + g - cost / epsilon) is the entropic plan of total 1."""
        f, g = torch.zeros_like(problem.supply), torch.zeros_like(problem.demand)
        halvings = max(0, math.ceil(math.log2(0.25 / self.epsilon)))
        for stage in range(halvings, 0, -1):
            epsilon = self.epsilon * 2.0**stage
            f, g = iterate(problem, f / epsilon, g / epsilon, epsilon, 10)
            f, g = f * epsilon, g * epsilon
        f, g = f / self.epsilon, g / self.epsilon
        active = torch.arange(len(f), device=f.device)
        done, step = 0, 20
        while done < self.iterations and len(active):
            part = Scaled(*(one[active] for one in problem)) if len(active) < len(f) else problem
            count = min(step, self.iterations - done)
            f[active], g[active] = iterate(part, f[active], g[active], self.epsilon, count)
            done += count
            rows = torch.exp(f[active].unsqueeze(-1) + g[active].unsqueeze(-2) - part.cost / self.epsilon).sum(-1)
            error = (rows - part.supply.exp()).abs().sum(-1)
            active = active[error > self.tolerance]
        return f, g


class Scaled(NamedTuple):
    """Problems with costs in [0, 1] between nodes that count, and logarithms of weights of total 1.

    Attributes:
        cost: Costs; 0 where a node has no weight.
        supply: Logarithms, -inf for a weight of 0.
        demand: The same of the demand.
    """

    cost: Float[Tensor, "B n m"]
    supply: Float[Tensor, "B n"]
    demand: Float[Tensor, "B m"]


def scaled(cost: Tensor, supply: Tensor, demand: Tensor) -> tuple[Scaled, Tensor, Tensor]:
    """Problems in units of their cost range and their total weight, so that one epsilon fits all.

    Args:
        cost: ``(B, n, m)``.
        supply: ``(B, n)``, at least 0.
        demand: ``(B, m)``, at least 0, of the same total as the supply.

    Returns:
        The scaled problems, the lowest cost between nodes that count ``(B, 1)``, and the cost range ``(B, 1)``, which
        is 1 where all costs agree.
    """
    counts = (supply > 0).unsqueeze(-1) & (demand > 0).unsqueeze(-2)
    low = torch.where(counts, cost, torch.inf).amin((-2, -1))
    high = torch.where(counts, cost, -torch.inf).amax((-2, -1))
    # A problem without weights has neither, and one with a single cost has no range.
    low = torch.where(low <= high, low, 0.0)
    scale = torch.where(high > low, high - low, 1.0)
    within = torch.where(counts, (cost - low[:, None, None]) / scale[:, None, None], 0.0)
    total = supply.sum(-1, keepdim=True)
    total = torch.where(total > 0, total, 1.0)
    return Scaled(within, (supply / total).log(), (demand / total).log()), low[:, None], scale[:, None]


def iterate(problem: Scaled, f: Tensor, g: Tensor, epsilon: float, count: int) -> tuple[Tensor, Tensor]:
    """Scale rows and columns in turns; afterwards the column sums are right.

    Args:
        problem: Problems as :func:`scaled` makes them.
        f: Potentials of the rows ``(B, n)`` in units of epsilon.
        g: Potentials of the columns ``(B, m)`` in units of epsilon; the first rows are scaled by these.
        epsilon: Strength of the entropy in units of the cost range.
        count: How many times, at least 1.

    Returns:
        New potentials ``(B, n)`` and ``(B, m)``, -inf at nodes without weight.

    The first time on logarithms, which nothing upsets; the others by factors for the plan that this gave, a few times
    faster with the same result (absorption, Schmitzer 2019). A node of weight 0 has the logarithm -inf and leaves every
    sum of exponentials by itself; a row of the plan that is lost to underflow keeps its factor until the next call.
    """
    kernel = problem.cost / -epsilon
    g = torch.where(problem.demand > -torch.inf, g, -torch.inf)
    f = _fill(problem.supply, torch.logsumexp(kernel + g.unsqueeze(-2), -1))
    g = _fill(problem.demand, torch.logsumexp(kernel + f.unsqueeze(-1), -2))
    if count == 1:
        return f, g
    plan = torch.exp(kernel + f.unsqueeze(-1) + g.unsqueeze(-2))
    supply, demand = problem.supply.exp().unsqueeze(-1), problem.demand.exp().unsqueeze(-1)
    columns = torch.ones_like(demand)
    for _ in range(count - 1):
        sums = torch.bmm(plan, columns)
        rows = torch.where(sums > 0, supply / sums, 1.0)
        sums = torch.bmm(plan.mT, rows)
        columns = torch.where(sums > 0, demand / sums, 1.0)
    return f + rows[..., 0].log(), g + columns[..., 0].log()


def _fill(weights: Tensor, sums: Tensor) -> Tensor:
    """Logarithm of what the sums lack to the weights, -inf where the weight is 0."""
    return torch.where(weights > -torch.inf, weights - sums, -torch.inf)
