"""The reference solver: QPTH's recorded answers, and the conditions that define the regularised optimum."""

from __future__ import annotations

import pytest
import torch

from fieldmark.functional.transport import emd

TEMPERATURE = 12.5


def test_flow_of_qpth(golden):
    """The official code's regularised problem, in float64."""
    recorded = {key: torch.from_numpy(one) for key, one in golden("deepemd_qpth_a").items()}
    similarity = recorded["L2_f64_similarity"]
    sides = [recorded["L2_f64_weight_query"], recorded["L2_f64_weight_proto_qmajor"]]
    supply, demand = (9 * one / one.sum(-1, keepdim=True) for one in sides)
    plan = emd(1 - similarity, supply, demand, solver="interior_point", l2=1e-6)
    torch.testing.assert_close(plan.flow, recorded["L2_f64_flow"], rtol=0, atol=1e-6)
    logits = TEMPERATURE / 9 * (similarity * plan.flow).sum((-2, -1))
    torch.testing.assert_close(logits, recorded["L2_f64_logits"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("kind", ["random", "zeros", "large", "signed", "equal"])
def test_conditions_of_the_regularised_optimum(problems, strength, kind):
    """A convex problem: flow and potentials that meet these are optimal."""
    cost, supply, demand = problems(kind, 5, 7, 9)
    plan = emd(cost, supply, demand, solver="interior_point", l2=strength)
    between = (supply > 0).unsqueeze(-1) & (demand > 0).unsqueeze(-2)
    slope = cost + strength * plan.flow - plan.supply_potential.unsqueeze(-1) - plan.demand_potential.unsqueeze(-2)
    total, size = supply.sum(-1, keepdim=True), cost.abs().amax((-2, -1), keepdim=True)
    assert (plan.flow >= 0).all()
    assert ((plan.flow.sum(-1) - supply).abs() <= 1e-12 * total).all()
    assert ((plan.flow.sum(-2) - demand).abs() <= 1e-12 * total).all()
    assert (torch.where(between, slope, 0.0) >= -1e-8 * size).all()
    assert (torch.where(between, slope * plan.flow, 0.0).abs() <= 1e-8 * size * total.unsqueeze(-1)).all()


def test_a_strong_regulariser_spreads_the_flow():
    ones = torch.ones(4, dtype=torch.float64)
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = emd(cost, ones, ones, solver="interior_point", l2=1e4)
    torch.testing.assert_close(plan.flow, torch.full((4, 4), 0.25, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["random", "cosine", "plane", "equal", "zeros", "duplicates", "decades"])
def test_value_to_seven_digits(problems, oracle, kind):
    for n, m in ((2, 3), (9, 9), (16, 12), (25, 25)):
        cost, supply, demand = problems(kind, 20, n, m)
        value = emd(cost, supply, demand, solver="interior_point").value
        torch.testing.assert_close(value, oracle(cost, supply, demand), rtol=1e-7, atol=0)
