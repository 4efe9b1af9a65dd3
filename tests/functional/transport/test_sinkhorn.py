"""The entropic solver: the plan of another implementation, an error that is bounded and that falls."""

from __future__ import annotations

import pytest
import torch

from fieldmark.functional.transport import duality_gap, emd, sinkhorn


@pytest.mark.parametrize("kind", ["random", "cosine", "plane", "decades", "signed", "large"])
def test_plan_of_pot(problems, kind):
    """At convergence the rounding does nothing and the entropic optimum is unique."""
    bregman = pytest.importorskip("ot.bregman", reason="POT is not installed (extra: bench)")
    epsilon = 0.05
    cost, supply, demand = problems(kind, 4, 7, 9)
    plan = emd(cost, supply, demand, solver="sinkhorn", epsilon=epsilon, tolerance=1e-12, iterations=50_000)
    for c, a, b, flow in zip(cost, supply, demand, plan.flow, strict=True):
        total = a.sum()
        strength = epsilon * (c.max() - c.min()).item()
        # POT regularises against the product of the weights or not: the optimum is the same.
        other = bregman.sinkhorn_log(
            (a / total).numpy(), (b / total).numpy(), c.numpy(), strength, numItermax=50_000, stopThr=1e-13
        )
        torch.testing.assert_close(flow / total, torch.from_numpy(other), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["random", "cosine", "plane", "zeros"])
def test_error_falls_with_epsilon_and_is_bounded(problems, oracle, kind):
    cost, supply, demand = problems(kind, 20, 12, 15)
    best, before = oracle(cost, supply, demand), None
    size = (cost.amax((-2, -1)) - cost.amin((-2, -1))) * supply.sum(-1)
    for epsilon in (0.1, 0.03, 0.01, 0.003):
        plan = emd(cost, supply, demand, solver="sinkhorn", epsilon=epsilon, iterations=5000)
        error = (plan.value - best) / size
        gap = duality_gap(plan, supply, demand) / size
        assert (error > -1e-12).all()
        assert (error <= gap + 1e-12).all()
        assert error.mean() < epsilon
        assert before is None or error.mean() < before
        before = error.mean()


def test_more_iterations_are_nearer(problems, oracle):
    cost, supply, demand = problems("plane", 20, 12, 15)
    best = oracle(cost, supply, demand)
    few, many = (
        emd(cost, supply, demand, solver="sinkhorn", epsilon=1e-3, iterations=count).value for count in (5, 2000)
    )
    assert ((many - best) < 0.2 * (few - best)).float().mean() > 0.8


def test_problems_do_not_see_each_other(problems):
    """Easy ones that stop early, hard ones that run out of iterations, and ones without weight, in one batch."""
    parts = [problems(kind, 2, 6, 6) for kind in ("constant", "plane", "decades", "zeros")]
    cost, supply, demand = (torch.cat(one) for one in zip(*parts, strict=True))
    supply[3], demand[3] = 0, 0
    plan = emd(cost, supply, demand, solver="sinkhorn")
    for index in range(len(cost)):
        alone = emd(cost[index], supply[index], demand[index], solver="sinkhorn")
        torch.testing.assert_close(
            alone.flow, plan.flow[index], rtol=0, atol=1e-9 * max(1.0, supply[index].sum().item())
        )


def test_single_precision_is_as_good(problems):
    """What it does on a GPU; here by hand, since on a processor it works in float64."""
    cost, supply, demand = problems("cosine", 20, 25, 25)
    solver = sinkhorn.Sinkhorn()
    sums = []
    for inside in (torch.float64, torch.float32):
        problem, *_ = sinkhorn.scaled(cost.to(inside), supply.to(inside), demand.to(inside))
        f, g = solver._log_potentials(problem)
        assert f.dtype == inside
        between = f.unsqueeze(-1) + g.unsqueeze(-2) - problem.cost / solver.epsilon
        plan = between.double().exp()
        sums.append((plan * cost).sum((-2, -1)))
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-4, atol=0)


def test_gradient_is_near_the_exact_one(problems):
    cost, supply, demand = problems("random", 20, 5, 6)
    cost.requires_grad_()
    exact, near = (
        torch.autograd.grad(emd(cost, supply, demand, solver=name).value.sum(), cost)[0] for name in ("pot", "sinkhorn")
    )
    apart = (exact - near).abs().sum((-2, -1)) / exact.sum((-2, -1))
    assert apart.median() < 0.02
