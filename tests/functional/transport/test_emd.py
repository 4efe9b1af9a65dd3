"""What the transport function keeps with every solver; what it refuses is in test_emd_input.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import SOLVERS, duality_gap, emd

KINDS = ["random", "cosine", "plane", "equal", "integers", "zeros", "one", "decades", "constant", "duplicates",
         "identical", "signed", "small", "large"]  # fmt: skip
SIZES = [(1, 1), (2, 2), (1, 9), (7, 1), (5, 8), (13, 13), (30, 25)]
# What each solver promises for its value, in units of cost range times total; a new solver states its own here.
PROMISED = {"simplex": 1e-10, "pot": 1e-10, "interior_point": 1e-8, "opencv": 1e-5, "sinkhorn": 1e-2}
EXACT = ["simplex", "pot", "interior_point"]
WITH_POTENTIALS = [*EXACT, "sinkhorn"]
NEEDED = {"pot": "ot", "opencv": "cv2", "simplex": "numba"}


@pytest.fixture(autouse=True)
def _installed(request):
    solver = request.node.callspec.params.get("solver") if hasattr(request.node, "callspec") else None
    if solver in NEEDED:
        pytest.importorskip(NEEDED[solver], reason=f"solver {solver} needs a package that is not installed")


def unit(cost, supply):
    """What an error of the value is measured in."""
    spread = cost.amax((-2, -1)) - cost.amin((-2, -1))
    return torch.where(spread > 0, spread, cost.abs().amax((-2, -1))) * supply.sum(-1)


def masses(logits, total=1.0):
    """Positive weights with a fixed total."""
    return total * torch.softmax(logits, -1)


def generic(n=4, m=5, batch=3, seed=0):
    """Costs and logits of weights without ties, as leaves of a graph."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, n, m), (batch, n), (batch, m))
    return [torch.rand(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def test_every_solver_states_its_promise():
    assert SOLVERS.names() == sorted(PROMISED)
    page = (Path(__file__).resolve().parents[3] / "docs" / "transport.md").read_text(encoding="utf-8")
    assert [name for name in SOLVERS.names() if f"| `{name}`" not in page] == []
    for entry in SOLVERS:
        assert entry.summary
        assert entry.source


@pytest.mark.parametrize("solver", sorted(PROMISED))
@pytest.mark.parametrize("kind", KINDS)
class TestEverySolver:
    def test_flow_is_feasible_and_value_is_as_promised(self, problems, oracle, solver, kind):
        for n, m in SIZES:
            cost, supply, demand = problems(kind, 4, n, m)
            plan = emd(cost, supply, demand, solver=solver)
            assert plan.flow.shape == cost.shape
            assert (plan.flow >= 0).all()
            total = supply.sum(-1, keepdim=True)
            assert ((plan.flow.sum(-1) - supply).abs() <= 1e-12 * total).all()
            assert ((plan.flow.sum(-2) - demand).abs() <= 1e-12 * total).all()
            torch.testing.assert_close(plan.value, (plan.flow * cost).sum((-2, -1)), rtol=1e-12, atol=0)
            error = plan.value - oracle(cost, supply, demand)
            assert (error.abs() <= PROMISED[solver] * unit(cost, supply)).all()


@pytest.mark.parametrize("solver", WITH_POTENTIALS)
@pytest.mark.parametrize("kind", KINDS)
class TestPotentials:
    def test_they_are_feasible_and_bound_the_error(self, problems, oracle, solver, kind):
        for n, m in SIZES:
            cost, supply, demand = problems(kind, 4, n, m)
            plan = emd(cost, supply, demand, solver=solver)
            gap = duality_gap(plan, supply, demand)
            reduced = cost - plan.supply_potential.unsqueeze(-1) - plan.demand_potential.unsqueeze(-2)
            assert (reduced.amin((-2, -1)) >= -1e-10 * cost.abs().amax((-2, -1))).all()
            size = unit(cost, supply)
            assert (gap <= (2.0 if solver == "sinkhorn" else 1.0) * PROMISED[solver] * size).all()
            error = plan.value - oracle(cost, supply, demand)
            assert (error <= gap + 1e-10 * size).all()
            # Complementary slackness says the same thing entry by entry.
            if solver in EXACT:
                assert ((plan.flow * reduced).amax((-2, -1)) <= PROMISED[solver] * size).all()

    def test_those_that_feed_a_gradient_are_as_good(self, problems, solver, kind):
        cost, supply, demand = problems(kind, 3, 8, 6)
        plan = emd(cost, supply.requires_grad_(), demand, solver=solver)
        reduced = cost - plan.supply_potential.unsqueeze(-1) - plan.demand_potential.unsqueeze(-2)
        assert (reduced.amin((-2, -1)) >= -1e-10 * cost.abs().amax((-2, -1))).all()
        size = unit(cost, supply.detach())
        gap = duality_gap(plan, supply, demand)
        assert (gap <= (2.0 if solver == "sinkhorn" else 1.0) * PROMISED[solver] * size).all()


@pytest.mark.parametrize("solver", sorted(PROMISED))
class TestShapesAndTypes:
    def test_no_problems(self, solver):
        plan = emd(torch.ones(0, 2, 3), torch.ones(0, 2), torch.ones(0, 3), solver=solver)
        assert [tuple(one.shape) for one in plan] == [(0,), (0, 2, 3), (0, 2), (0, 3)]
        plan = emd(torch.ones(3, 0, 2, 3), torch.ones(2), torch.ones(3) * 2 / 3, solver=solver)
        assert plan.value.shape == (3, 0)

    def test_no_weight(self, solver):
        cost = torch.rand(2, 3, 4, dtype=torch.float64).requires_grad_()
        supply, demand = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
        supply[1, 0], demand[1, 2] = 2.0, 2.0
        plan = emd(cost, supply, demand, solver=solver)
        assert plan.value[0] == 0
        assert (plan.flow[0] == 0).all()
        torch.testing.assert_close(plan.value[1], 2 * cost[1, 0, 2])
        if solver in WITH_POTENTIALS:
            assert torch.isfinite(plan.supply_potential).all()
            assert torch.isfinite(plan.demand_potential).all()
        plan.value.sum().backward()
        torch.testing.assert_close(cost.grad, plan.flow)

    @pytest.mark.parametrize(
        "leading",
        [((), (), ()), ((), (4,), (4,)), ((4,), (), ()), ((1,), (4,), ()), ((3, 1), (4,), (1, 4)), ((), (3, 1), (4,))],
    )
    def test_leading_axes_broadcast(self, problems, solver, leading):
        n, m = 4, 3
        cost, supply, demand = (one[0] for one in problems("random", 1, n, m))
        generator = torch.Generator().manual_seed(1)
        scales = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in leading]
        cost = (cost * (1 + scales[0])[..., None, None]).requires_grad_()
        weights = torch.softmax(supply * (1 + 3 * scales[1])[..., None], -1)
        others = torch.softmax(demand * (1 + 3 * scales[2])[..., None], -1)
        plan = emd(cost, weights, others, solver=solver)
        batch = torch.broadcast_shapes(*leading)
        assert plan.value.shape == batch
        assert plan.flow.shape == (*batch, n, m)
        assert plan.supply_potential.shape == (*batch, n)
        assert plan.demand_potential.shape == (*batch, m)
        (grad,) = torch.autograd.grad(plan.value.sum(), cost)
        full = [one.expand(*batch, *one.shape[len(lead) :]) for one, lead in
                zip((cost, weights, others), leading, strict=True)]  # fmt: skip
        rows = [one.detach().reshape(-1, *one.shape[len(batch) :]) for one in full]
        flows = torch.zeros_like(grad)
        for index in range(len(rows[0])):
            alone = emd(*(one[index] for one in rows), solver=solver)
            torch.testing.assert_close(alone.value, plan.value.reshape(-1)[index].detach())
        flows = plan.flow.sum_to_size(cost.shape)
        torch.testing.assert_close(grad, flows)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_types(self, problems, oracle, solver, dtype):
        cost, supply, demand = problems("random", 3, 5, 6)
        expected = oracle(cost, supply, demand)
        plan = emd(cost.to(dtype), supply.to(dtype), demand.to(dtype), solver=solver)
        assert {one.dtype for one in plan} == {dtype}
        tolerance = {torch.float64: 0, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
        error = (plan.value.double() - expected).abs() / unit(cost, supply)
        assert error.max() <= tolerance + PROMISED[solver]

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("other", [torch.float64, torch.float32, torch.bfloat16])
    def test_weights_of_another_type(self, problems, solver, dtype, other):
        cost, supply, demand = problems("random", 3, 5, 6)
        supply, demand = supply.to(other).requires_grad_(), demand.to(other)
        plan = emd(cost.to(dtype).requires_grad_(), supply, demand, solver=solver)
        assert {one.dtype for one in plan} == {dtype}
        if solver in WITH_POTENTIALS:
            plan.value.sum().backward()
            assert supply.grad.dtype == other

    def test_padding_changes_nothing(self, problems, solver):
        """Nodes of weight 0, whatever their costs."""
        cost, supply, demand = problems("random", 5, 6, 7)
        wide = torch.nn.functional.pad(cost, (2, 1, 1, 3), value=1e12)
        expected = emd(cost, supply, demand, solver=solver)
        given = [torch.nn.functional.pad(one, ends) for one, ends in ((supply, (1, 3)), (demand, (2, 1)))]
        plan = emd(wide, *given, solver=solver)
        torch.testing.assert_close(plan.value, expected.value, rtol=1e-4 if solver == "opencv" else 1e-9, atol=0)
        assert plan.flow[:, 0].abs().sum() == 0
        if solver != "opencv":
            torch.testing.assert_close(plan.flow[:, 1:-3, 2:-1], expected.flow, rtol=0, atol=1e-9)

    def test_on_a_gpu(self, problems, solver):
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        given = problems("cosine", 6, 7, 9)
        expected = emd(*given, solver=solver)
        moved = [one.cuda().requires_grad_(index == 0) for index, one in enumerate(given)]
        plan = emd(*moved, solver=solver)
        assert {one.device.type for one in plan} == {"cuda"}
        plan.value.sum().backward()
        torch.testing.assert_close(plan.value.cpu().detach(), expected.value)
        torch.testing.assert_close(moved[0].grad, plan.flow)

    def test_strides(self, problems, solver):
        cost, supply, demand = problems("random", 4, 5, 6)
        expected = emd(cost, supply, demand, solver=solver)
        strided = cost.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        wide = torch.stack([supply, supply], -1)[..., 0]
        assert not strided.is_contiguous()
        assert not wide.is_contiguous()
        for one, other in zip(emd(strided, wide, demand.flip(1).flip(1), solver=solver), expected, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)
        first = emd(cost[::2], supply[::2], demand[::2], solver=solver)
        torch.testing.assert_close(first.value, expected.value[::2])

    def test_inputs_stay_as_they_are(self, problems, solver):
        given = problems("zeros", 3, 6, 5)
        copies = [one.clone() for one in given]
        emd(*given, solver=solver)
        for one, copy in zip(given, copies, strict=True):
            assert torch.equal(one, copy)

    def test_a_made_solver(self, problems, solver):
        given = problems("random", 2, 4, 4)
        torch.testing.assert_close(
            emd(*given, solver=SOLVERS.create(solver)).value, emd(*given, solver=solver).value, rtol=0, atol=0
        )
        with pytest.raises(FieldmarkError, match="beside a solver that is already made"):
            emd(*given, solver=SOLVERS.create(solver), iterations=3)

    def test_swapping_the_sides_transposes_the_plan(self, problems, solver):
        cost, supply, demand = problems("random", 6, 7, 5)
        plan, other = emd(cost, supply, demand, solver=solver), emd(cost.mT, demand, supply, solver=solver)
        loose = {"sinkhorn": 5e-2, "opencv": 1e-5}.get(solver, 1e-7)
        torch.testing.assert_close(other.value, plan.value, rtol=loose, atol=0)
        torch.testing.assert_close(other.flow, plan.flow.mT, rtol=0, atol=loose)

    def test_nodes_in_another_order(self, problems, solver):
        cost, supply, demand = problems("random", 6, 7, 5)
        rows, columns = torch.tensor([3, 1, 6, 0, 2, 5, 4]), torch.tensor([4, 2, 0, 1, 3])
        plan = emd(cost, supply, demand, solver=solver)
        other = emd(cost[:, rows][:, :, columns], supply[:, rows], demand[:, columns], solver=solver)
        loose = {"opencv": 1e-5}.get(solver, 1e-7)
        torch.testing.assert_close(other.flow, plan.flow[:, rows][:, :, columns], rtol=0, atol=loose)
        if solver in WITH_POTENTIALS:
            u, v = plan.supply_potential[:, rows], plan.demand_potential[:, columns]
            shift = (other.supply_potential - u).mean(-1, keepdim=True)
            torch.testing.assert_close(other.supply_potential - shift, u, rtol=0, atol=loose)
            torch.testing.assert_close(other.demand_potential + shift, v, rtol=0, atol=loose)

    def test_no_graph_is_needed(self, problems, solver):
        given = problems("random", 2, 4, 4)
        with torch.inference_mode():
            value = emd(*given, solver=solver).value
        torch.testing.assert_close(value, emd(*given, solver=solver).value, rtol=0, atol=0)
        leaves = [one.requires_grad_() for one in given]
        with torch.no_grad():
            plan = emd(*leaves, solver=solver)
        assert not plan.value.requires_grad
        torch.testing.assert_close(plan.value, value.clone(), rtol=0, atol=0)


@pytest.mark.parametrize("solver", EXACT)
class TestGradients:
    def test_gradcheck(self, solver):
        cost, rows, columns = generic()

        def value(cost, rows, columns):
            return emd(cost, masses(rows), masses(columns), solver=solver).value

        assert torch.autograd.gradcheck(value, (cost, rows, columns), eps=1e-6, atol=1e-6)

    def test_gradcheck_of_the_similarity(self, solver):
        """The head's formula: the flow is a constant, so its gradient for the cost is minus the flow all the same."""
        cost, rows, columns = generic(3, 3, 2, seed=5)

        def similarity(cost, rows, columns):
            return 3.0 - emd(cost, masses(rows, 3.0), masses(columns, 3.0), solver=solver).value

        assert torch.autograd.gradcheck(similarity, (cost, rows, columns), eps=1e-6, atol=1e-6)
        plan = emd(cost, masses(rows, 3.0), masses(columns, 3.0), solver=solver)
        ((1 - cost) * plan.flow).sum().backward()
        torch.testing.assert_close(cost.grad, -plan.flow)
        assert rows.grad is None

    def test_potentials_are_the_price_of_one_more_unit(self, problems, oracle, solver):
        cost, supply, demand = problems("random", 1, 6, 5)
        plan = emd(cost, supply, demand, solver=solver)
        h = 1e-6
        for i in range(6):
            for j in range(5):
                more = oracle(cost, supply + h * torch.eye(6)[i], demand + h * torch.eye(5)[j])
                less = oracle(cost, supply - h * torch.eye(6)[i], demand - h * torch.eye(5)[j])
                price = plan.supply_potential[0, i] + plan.demand_potential[0, j]
                torch.testing.assert_close(price, ((more - less) / (2 * h))[0], rtol=0, atol=1e-6)

    def test_price_of_a_node_without_weight(self, problems, oracle, solver):
        cost, supply, demand = problems("random", 1, 6, 5)
        supply[0, 2] = 0.0
        demand = demand * (supply.sum() / demand.sum())
        plan = emd(cost, supply.requires_grad_(), demand, solver=solver)
        supply = supply.detach()
        h = 1e-6
        for j in range(5):
            more = oracle(cost, supply + h * torch.eye(6)[2], demand + h * torch.eye(5)[j])
            rise = (more - plan.value.detach())[0] / h
            price = (plan.supply_potential[0, 2] + plan.demand_potential[0, j]).item()
            torch.testing.assert_close(price, rise.item(), rtol=0, atol=5e-3 if solver == "interior_point" else 1e-6)

    @pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
    def test_any_subset_needs_a_gradient(self, problems, solver, wanted):
        given = [one.clone().requires_grad_(i in wanted) for i, one in enumerate(problems("random", 2, 4, 5))]
        plan = emd(*given, solver=solver)
        assert plan.value.requires_grad
        assert not plan.flow.requires_grad
        assert not plan.supply_potential.requires_grad
        (torch.tensor([2.0, -3.0], dtype=torch.float64) * plan.value).sum().backward()
        answers = plan.flow, plan.supply_potential, plan.demand_potential
        for index, (leaf, answer) in enumerate(zip(given, answers, strict=True)):
            if index not in wanted:
                assert leaf.grad is None
            else:
                torch.testing.assert_close(leaf.grad[0], 2 * answer[0])
                torch.testing.assert_close(leaf.grad[1], -3 * answer[1])

    def test_twice_in_one_graph(self, solver):
        cost, rows, columns = generic(seed=3)
        one = emd(cost, masses(rows), masses(columns), solver=solver)
        two = emd(cost * 2 + 0.1, masses(rows), masses(columns), solver=solver)
        (grad,) = torch.autograd.grad((one.value.sin() + two.value).sum(), cost, retain_graph=True)
        expected = one.value.cos()[:, None, None] * one.flow + 2 * two.flow
        torch.testing.assert_close(grad, expected)
        (again,) = torch.autograd.grad((one.value.sin() + two.value).sum(), cost)
        assert torch.equal(again, grad)


@pytest.mark.parametrize(("solver", "tolerance"), [("simplex", 1e-9), ("interior_point", 1e-6), ("sinkhorn", 1e-9)])
def test_potentials_of_a_degenerate_optimum_do_not_depend_on_the_order(problems, solver, tolerance):
    cost, supply, demand = problems("equal", 8, 12, 12)
    rows, columns = torch.arange(12).roll(5), torch.arange(12).flip(0)
    plan = emd(cost, supply.requires_grad_(), demand, solver=solver)
    other = emd(cost[:, rows][:, :, columns], supply, demand, solver=solver)
    shift = (other.supply_potential - plan.supply_potential[:, rows]).mean(-1, keepdim=True)
    expected = plan.supply_potential[:, rows] + shift, plan.demand_potential[:, columns] - shift
    torch.testing.assert_close(other.supply_potential, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(other.demand_potential, expected[1], rtol=0, atol=tolerance)


def test_a_second_derivative_is_refused():
    cost, rows, columns = generic()
    value = emd(cost, masses(rows), masses(columns), solver="interior_point").value
    for power in (1, 2):  # also where the first gradient does not depend on the value
        (grad,) = torch.autograd.grad((value**power).sum(), cost, create_graph=True)
        with pytest.raises(FieldmarkError, match="no second derivative"):
            grad.sum().backward(retain_graph=True)
        with pytest.raises(FieldmarkError, match="no second derivative"):
            torch.autograd.grad(grad.sum(), rows, retain_graph=True)


def test_weights_get_no_gradient_from_a_solver_without_potentials(problems):
    pytest.importorskip("cv2", reason="OpenCV is not installed (extra: bench)")
    cost, supply, demand = problems("random", 2, 4, 4)
    cost.requires_grad_()
    emd(cost, supply, demand, solver="opencv").value.sum().backward()
    assert cost.grad is not None
    assert duality_gap(plan := emd(cost, supply, demand, solver="opencv"), supply, demand).isnan().all()
    assert plan.supply_potential.isnan().all()
    plan = emd(cost, supply.requires_grad_(), demand, solver="opencv")
    with pytest.raises(FieldmarkError, match="no potentials, so no gradient for supply and demand"):
        plan.value.sum().backward()


@pytest.mark.parametrize("kind", ["random", "zeros", "equal", "plane"])
def test_two_oracles_agree(problems, oracle, second_oracle, kind):
    cost, supply, demand = problems(kind, 3, 6, 8)
    highs = torch.tensor([second_oracle(*one) for one in zip(cost, supply, demand, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(oracle(cost, supply, demand), highs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(emd(cost, supply, demand).value, highs, rtol=1e-9, atol=1e-12)


COMPILED = """
import sys, torch
from fieldmark.functional.transport import emd
assert "torch._dynamo" not in sys.modules, "importing the function brings the compiler"

def loss(x, y, w, z):
    cost = 1 - torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).mT
    plan = emd(cost, w / w.sum(-1, keepdim=True), z / z.sum(-1, keepdim=True))
    return (torch.exp(-plan.value) + ((1 - cost) * plan.flow).sum((-1, -2))).sum()

def leaves(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(s, generator=generator).requires_grad_() for s in ((2, n, 8), (2, 5, 8), (2, n), (2, 5))]

emd(torch.ones(1, 1), torch.ones(1), torch.ones(1))
assert "torch._dynamo" not in sys.modules, "calling the function brings the compiler"
import torch._dynamo as dynamo

told = dynamo.explain(loss)(*leaves(4))
assert (told.graph_count, told.graph_break_count) == (2, 1), told
assert "outside of the graph" in str(told.break_reasons[0].reason), told.break_reasons
inside = [[str(node.target) for node in graph.graph.nodes] for graph in told.graphs]
assert any("matmul" in one for one in inside[0]) and any("exp" in one for one in inside[1]), inside
for backend, sizes in (("eager", range(3, 15)), ("aot_eager", (4, 6))):
    dynamo.reset()
    compiled = torch.compile(loss, backend=backend)
    for n in sizes:
        a, b = leaves(n), leaves(n)
        one, other = compiled(*a), loss(*b)
        torch.testing.assert_close(one, other)
        for left, right in zip(torch.autograd.grad(one, a), torch.autograd.grad(other, b)):
            torch.testing.assert_close(left, right)
print("ok")
"""


@pytest.mark.slow
def test_a_compiled_function_breaks_cleanly_around_it():
    """In a process of its own, without the shape checks of tests, which a compiler cannot see through."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "ok"
    assert done.stderr.strip() == ""
