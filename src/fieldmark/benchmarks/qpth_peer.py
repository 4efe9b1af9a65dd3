"""Transport by QPTH, forward and backward: a script for an environment of its own (numpy < 2, one thread).

``python qpth_peer.py PROBLEMS.npz ANSWERS.npz REPEATS``: imports torch, numpy and qpth alone. The problem is that of
DeepEMD's official training: a quadratic programme with inequalities for the sums of rows and columns, one equality for
the whole flow, and ``1e-6 / 2 * |x|^2`` beside the cost; eps 1e-12, at most 20 iterations.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

STRENGTH = 1e-6
SECONDS = 5.0  # after which nothing is repeated


def value(cost: torch.Tensor, supply: torch.Tensor, demand: torch.Tensor, solve: Any) -> torch.Tensor:
    """Lowest costs (B,), differentiable in all three.

    Args:
        cost: ``(B, n, m)``.
        supply: ``(B, n)``.
        demand: ``(B, m)``.
        solve: qpth's function of (Q, p, G, h, A, b).
    """
    (batch, n, m), kind = cost.shape, cost.dtype
    size = n * m
    rows = torch.eye(n, dtype=kind).repeat_interleave(m, dim=1)
    columns = torch.eye(m, dtype=kind).repeat(1, n)
    limits = torch.cat([rows, columns, -torch.eye(size, dtype=kind)]).expand(batch, -1, -1)
    bounds = torch.cat([supply, demand, torch.zeros(batch, size, dtype=kind)], dim=1)
    whole = torch.ones(batch, 1, size, dtype=kind)
    total = torch.minimum(supply.sum(1), demand.sum(1)).unsqueeze(1)
    quadratic = (STRENGTH * torch.eye(size, dtype=kind)).expand(batch, -1, -1)
    flow = solve(quadratic, cost.flatten(1), limits, bounds, whole, total)
    return (flow.view(batch, n, m) * cost).sum((1, 2))


def main(problems: str, answers: str, repeats: int) -> None:
    """Time it, and write seconds, values and gradients."""
    from qpth.qp import QPFunction

    torch.set_num_threads(1)
    solve = QPFunction(verbose=-1, eps=1e-12, maxIter=20)
    with np.load(problems) as file:
        given = [torch.from_numpy(file[name]) for name in ("cost", "supply", "demand")]
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < SECONDS:
        cost, supply, demand = (one.clone().requires_grad_() for one in given)
        start = time.perf_counter()
        scaled = [one * (one.shape[1] / one.sum(1, keepdim=True)) for one in (supply, demand)]
        found = value(cost, scaled[0], scaled[1], solve)
        gradients = torch.autograd.grad(found.sum(), (cost, supply, demand))
        seconds.append(time.perf_counter() - start)
    np.savez(
        answers,
        seconds=np.array(seconds),
        value=found.detach().numpy(),
        cost_gradient=gradients[0].numpy(),
        supply_gradient=gradients[1].numpy(),
        demand_gradient=gradients[2].numpy(),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
