"""Rounding to feasible flows and potentials."""

from __future__ import annotations

import pytest
import torch

from fieldmark.functional.transport.feasible import balanced_demand, feasible_flow, feasible_potentials


@pytest.mark.parametrize("kind", ["random", "zeros", "decades", "one", "large"])
def test_rounding_meets_the_sums_and_moves_little(problems, kind):
    cost, supply, demand = problems(kind, 10, 6, 8)
    total = supply.sum(-1, keepdim=True)
    exact = supply.unsqueeze(-1) * demand.unsqueeze(-2) / total.unsqueeze(-1)
    noise = torch.rand(cost.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for flow in (exact, exact * (0.9 + 0.2 * noise), exact * 0, exact * 2):
        rounded = feasible_flow(flow, supply, demand)
        assert (rounded >= 0).all()
        assert ((rounded.sum(-1) - supply).abs() <= 1e-13 * total).all()
        assert ((rounded.sum(-2) - demand).abs() <= 1e-13 * total).all()
        # Lemma 7 of Altschuler et al. 2017.
        wrong = (flow.sum(-1) - supply).abs().sum(-1) + (flow.sum(-2) - demand).abs().sum(-1)
        assert ((rounded - flow).abs().sum((-2, -1)) <= 2 * wrong + 1e-12 * total[:, 0]).all()


@pytest.mark.parametrize("kind", ["random", "zeros", "one"])
def test_potentials_are_feasible_and_no_price_can_rise(problems, kind):
    cost, supply, _ = problems(kind, 10, 6, 8)
    given = torch.rand(supply.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = feasible_potentials(cost, supply, given.masked_fill(supply == 0, torch.nan))
    reduced = cost - u.unsqueeze(-1) - v.unsqueeze(-2)
    assert (reduced >= -1e-15).all()
    assert (reduced.amin(-1) <= 1e-15).all()
    assert (reduced.amin(-2) <= 1e-15).all()
    assert ((u * supply).sum(-1) >= (given * supply).sum(-1) - 1e-12).all()


def test_balancing():
    supply, demand = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert balanced_demand(supply, demand).tolist() == [[1.5, 1.5, 0.0], [0.0, 0.0, 0.0]]
