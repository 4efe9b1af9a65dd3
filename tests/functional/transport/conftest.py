"""Transport problems of every kind, and POT and HiGHS as oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

KINDS = {
    "random": "uniform costs, uniform weights",
    "cosine": "cosine distances of rectified vectors, as the EMD head has them",
    "plane": "Euclidean distances in the unit square: many nearly optimal flows",
    "equal": "equal weights: nearly every pivot of a square problem is degenerate",
    "integers": "costs 0 to 3 and weights 1 to 3: many optimal flows",
    "zeros": "half of the weights are 0",
    "one": "all weight in one node of each side",
    "decades": "weights over six decades",
    "constant": "one cost for everything",
    "duplicates": "every node twice",
    "identical": "both sides are the same set: the optimum is 0 and does nothing",
    "signed": "costs on both sides of 0",
    "small": "costs around 1e-3, weights around 1e-4",
    "large": "costs around 1e6, weights around 1e4",
}


def draw(kind: str, count: int, n: int, m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``count`` balanced problems of a kind, in float64."""
    assert kind in KINDS
    generator = torch.Generator().manual_seed(hash((sorted(KINDS).index(kind), count, n, m, seed)) % 2**31)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    cost, supply, demand = rand(count, n, m), rand(count, n) + 0.01, rand(count, m) + 0.01
    if kind == "cosine":
        left, right = ((rand(count, k, 32) - 0.6).relu() + 1e-3 for k in (n, m))
        cost = 1 - torch.cosine_similarity(left.unsqueeze(2), right.unsqueeze(1), dim=-1)
        supply = (left @ right.mean(1).unsqueeze(-1))[..., 0] + 1e-3
        demand = (right @ left.mean(1).unsqueeze(-1))[..., 0] + 1e-3
    elif kind == "plane":
        cost = torch.cdist(rand(count, n, 2), rand(count, m, 2))
    elif kind == "equal":
        supply, demand = torch.ones_like(supply), torch.ones_like(demand)
    elif kind == "integers":
        cost, supply, demand = (cost * 4).floor(), (supply * 3).ceil(), (demand * 3).ceil()
    elif kind == "zeros":
        supply, demand = supply * (rand(count, n) < 0.5), demand * (rand(count, m) < 0.5)
        supply[:, n // 2] += 0.1
        demand[:, m // 3] += 0.1
    elif kind == "one":
        supply, demand = torch.zeros_like(supply), torch.zeros_like(demand)
        supply[:, -1], demand[:, m // 2] = 1.0, 1.0
    elif kind == "decades":
        supply, demand = 10 ** (6 * supply - 3), 10 ** (6 * demand - 3)
    elif kind == "constant":
        cost = cost[:, :1, :1].expand(-1, n, m).clone()
    elif kind == "duplicates":
        rows, columns = torch.arange(n) // 2, torch.arange(m) // 2
        cost, supply, demand = cost[:, rows][:, :, columns], supply[:, rows], demand[:, columns]
    elif kind == "identical":
        places = rand(count, max(n, m), 3)
        cost = torch.cdist(places[:, :n], places[:, :m])
        supply[:, m:], demand[:, n:] = 0, 0
        demand[:, : min(n, m)] = supply[:, : min(n, m)]
    elif kind == "signed":
        cost = cost - 0.5
    elif kind == "small":
        cost, supply, demand = cost * 1e-3, supply * 1e-4, demand * 1e-4
    elif kind == "large":
        cost, supply, demand = cost * 1e6, supply * 1e4, demand * 1e4
    return cost, supply, demand * (supply.sum(-1, keepdim=True) / demand.sum(-1, keepdim=True))


def pot_values(cost, supply, demand) -> torch.Tensor:
    """Optimal values by POT, one problem at a time, without anything of ours."""
    ot = pytest.importorskip("ot", reason="POT is not installed (extra: bench)")
    values = []
    for c, a, b in zip(cost.numpy(), supply.numpy(), demand.numpy(), strict=True):
        flow, log = ot.emd(a, b, np.ascontiguousarray(c), numItermax=10_000_000, log=True, check_marginals=False)
        assert log["warning"] is None
        values.append((flow * c).sum())
    return torch.tensor(np.array(values))


def highs_value(cost, supply, demand) -> float:
    """Optimal value of one problem by scipy's HiGHS."""
    from scipy.optimize import linprog

    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    sums = np.concatenate([supply.numpy(), demand.numpy()])
    done = linprog(cost.numpy().ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=sums[:-1], method="highs")
    assert done.status == 0
    return done.fun


@pytest.fixture(scope="session")
def problems():
    """A function: kind, number, n, m, seed -> costs, supplies, demands."""
    return draw


@pytest.fixture(scope="session")
def oracle():
    """A function: costs, supplies, demands -> optimal values by POT."""
    return pot_values


@pytest.fixture(scope="session")
def second_oracle():
    """A function: one cost, supply, demand -> optimal value by HiGHS."""
    return highs_value


@pytest.fixture
def unchecked_shapes():
    """Our own messages for wrong shapes, which jaxtyping would otherwise forestall in tests."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
