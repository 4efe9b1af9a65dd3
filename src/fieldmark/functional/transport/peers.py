"""Solvers of other packages under the same function, to compare with."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.functional.transport.feasible import balanced_demand, feasible_flow, feasible_potentials
from fieldmark.functional.transport.solver import SOLVERS, Solution, Solver
from fieldmark.shapes import Tensor

if TYPE_CHECKING:
    import numpy as np


@SOLVERS.add("pot", "exact network simplex of POT, problem by problem", source="Bonneel et al. 2011; POT")
class POT(Solver):
    """``ot.emd`` in a loop (package POT), always on the processor.

    Nodes of weight 0 are left out of the problem that POT sees; their potentials are the prices at which one more unit
    would move. At a degenerate optimum the potentials depend on the order of the nodes.

    Args:
        iterations: Most pivots for a problem.

    Raises:
        FieldmarkError: For ``iterations`` below 1, and where they do not suffice.
    """

    def __init__(self, iterations: int = 10_000_000) -> None:
        if iterations < 1:
            raise FieldmarkError(f"iterations of solver pot is {iterations}; expected at least 1")
        self.iterations = iterations

    def solve(self, cost: Tensor, supply: Tensor, demand: Tensor, *, unique: bool) -> Solution:
        """Flow and potentials of each problem."""
        costs, a = cost.double().cpu(), supply.double().cpu()
        b = balanced_demand(a, demand.double().cpu())
        flow, u = torch.zeros_like(costs), torch.zeros_like(a)
        for index in range(len(costs)):
            rows, columns = a[index].nonzero()[:, 0], b[index].nonzero()[:, 0]
            if not len(rows):
                continue
            part = costs[index][rows][:, columns].numpy()
            moved, price = self._one(part, a[index][rows].numpy(), b[index][columns].numpy(), index)
            flow[index, rows.unsqueeze(-1), columns] = torch.from_numpy(moved)
            u[index, rows] = torch.from_numpy(price)
        u, v = feasible_potentials(costs, a, u)
        value = (flow * costs).sum((-2, -1))
        return Solution(*(one.to(cost.device) for one in (value, flow, u, v)))

    def _one(
        self, cost: np.ndarray, supply: np.ndarray, demand: np.ndarray, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            import ot
        except ImportError:
            raise MissingExtraError("POT", "bench", "the solver pot") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said below
            flow, log = ot.emd(
                supply, demand, cost, numItermax=self.iterations, log=True, check_marginals=False, center_dual=False
            )
        if log["warning"] is not None:
            raise FieldmarkError(f"POT gave up on problem {index} of emd ({' '.join(log['warning'].split())})")
        return flow, log["u"]


@SOLVERS.add("opencv", "OpenCV's EMD in float32, problem by problem, without potentials", source="Rubner et al. 2000")
class OpenCV(Solver):
    """``cv2.EMD`` in a loop (package opencv-python-headless), what DeepEMD's official code evaluates with.

    It works in float32, scales totals by itself, and is not exact from about 100 nodes on, without saying so. It has no
    potentials, so there is no gradient for the weights.
    """

    def solve(self, cost: Tensor, supply: Tensor, demand: Tensor, *, unique: bool) -> Solution:
        """Flow of each problem."""
        try:
            import cv2
        except ImportError:
            raise MissingExtraError("opencv-python-headless", "bench", "the solver opencv") from None
        costs, a = cost.double().cpu(), supply.double().cpu()
        b = balanced_demand(a, demand.double().cpu())
        flow = torch.zeros_like(costs)
        total = a.sum(-1)
        for index in total.nonzero()[:, 0].tolist():
            # Costs of 0 or more and weights around 1 keep the digits that float32 has.
            shifted = (costs[index] - costs[index].min()).float().numpy()
            sides = [(costs.shape[1] * one[index] / total[index]).float().unsqueeze(-1).numpy() for one in (a, b)]
            moved = cv2.EMD(sides[0], sides[1], cv2.DIST_USER, cost=shifted)[2]
            flow[index] = torch.from_numpy(moved)
        flow = feasible_flow(flow * (total / flow.sum((-2, -1)).clamp_min(1e-300))[:, None, None], a, b)
        value = (flow * costs).sum((-2, -1))
        return Solution(value.to(cost.device), flow.to(cost.device), None, None)
