"""The simplex solver against POT on ten thousand problems, at degenerate optima, and among threads and processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import fieldmark
from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import SOLVERS, duality_gap, emd

pytest.importorskip("numba", reason="numba is not installed")

KINDS = ["random", "cosine", "plane", "equal", "integers", "zeros", "one", "decades", "constant", "duplicates",
         "identical", "signed", "small", "large"]  # fmt: skip
SMALL = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 7), (3, 3), (1, 25), (25, 1), (4, 9), (9, 4), (9, 9), (13, 13), (16, 17),
         (25, 25), (30, 25), (5, 40)]  # fmt: skip
MIDDLE = [
    (38, 38),
    (49, 49),
    (64, 64),
    (65, 63),
    (63, 66),
    (25, 125),
    (125, 25),
    (3, 200),
    (200, 3),
    (1, 300),
    (100, 100),
]


def agrees(value, expected, cost, supply):
    """To 1e-9 relative; where the optimum is nothing but rounding, to the rounding of the sums."""
    floor = 1e-14 * cost.abs().amax((-2, -1)) * supply.sum(-1)
    wrong = (value - expected).abs() > 1e-9 * expected.abs() + floor
    assert not wrong.any(), (cost.shape, (value - expected)[wrong], expected[wrong])


@pytest.mark.parametrize("kind", KINDS)
def test_value_against_pot(problems, oracle, kind):
    """14 kinds with 16 sizes of 44 and 11 of 4 problems are 10,472."""
    for sizes, count in ((SMALL, 44), (MIDDLE, 4)):
        for n, m in sizes:
            cost, supply, demand = problems(kind, count, n, m)
            plan = emd(cost, supply, demand)
            agrees(plan.value, oracle(cost, supply, demand), cost, supply)
            total = supply.sum(-1, keepdim=True)
            assert ((plan.flow.sum(-1) - supply).abs() <= 1e-12 * total).all()
            assert ((plan.flow.sum(-2) - demand).abs() <= 1e-12 * total).all()
            assert (plan.flow >= 0).all()
            bound = 1e-10 * (cost.abs().amax((-2, -1)) * total[:, 0])
            assert (duality_gap(plan, supply, demand).abs() <= bound).all()


@pytest.mark.parametrize("size", [(196, 196), (256, 256), (400, 400), (256, 257), (400, 7)])
@pytest.mark.parametrize("kind", ["plane", "equal"])
def test_large_problems(problems, oracle, kind, size):
    cost, supply, demand = problems(kind, 1, *size)
    agrees(emd(cost, supply, demand).value, oracle(cost, supply, demand), cost, supply)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(196, 196), (255, 256), (320, 100), (400, 400)])
def test_large_problems_of_every_kind(problems, oracle, kind, size):
    cost, supply, demand = problems(kind, 3, *size)
    for weights in (False, True):
        plan = emd(cost, supply.requires_grad_(weights), demand)
        agrees(plan.value.detach(), oracle(cost, supply.detach(), demand), cost, supply.detach())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_value_against_pot_at_length(problems, oracle, kind):
    """Another 35,000 problems, of sizes drawn at random."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(100):
        n, m = (torch.randint(1, 60, (2,), generator=generator)).tolist()
        cost, supply, demand = problems(kind, 25, n, m, seed + 1)
        agrees(emd(cost, supply, demand).value, oracle(cost, supply, demand), cost, supply)


@pytest.mark.parametrize("n", [9, 25, 40])
def test_against_highs(problems, second_oracle, n):
    cost, supply, demand = problems("plane", 2, n, n + 1)
    highs = torch.tensor([second_oracle(*one) for one in zip(cost, supply, demand, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(emd(cost, supply, demand).value, highs, rtol=1e-9, atol=0)


def test_single_precision_is_solved_in_double(problems, oracle):
    """The float32 answer is the exact one of the float32 input, rounded once."""
    cost, supply, demand = (one.float() for one in problems("plane", 40, 25, 25))
    demand = demand * (supply.sum(-1, keepdim=True) / demand.sum(-1, keepdim=True))
    plan = emd(cost, supply, demand)
    a, b = supply.double(), demand.double()
    expected = oracle(cost.double(), a, b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True)))
    torch.testing.assert_close(plan.value.double(), expected, rtol=1.2e-7, atol=0)


class TestDegenerateOptima:
    """Gradients for the weights do not depend on the order of the nodes where many potentials are optimal."""

    @pytest.mark.parametrize("kind", ["equal", "zeros", "duplicates", "integers"])
    @pytest.mark.parametrize("size", [(9, 9), (25, 25), (12, 18)])
    def test_gradient_in_another_order(self, problems, kind, size):
        cost, supply, demand = problems(kind, 8, *size)
        if kind == "integers":  # without ties among the costs, so that only the weights are degenerate
            cost = problems("random", 8, *size)[0]
        generator = torch.Generator().manual_seed(3)
        rows, columns = (torch.randperm(k, generator=generator) for k in size)

        def gradients(cost, supply, demand):
            supply, demand = supply.clone().requires_grad_(), demand.clone().requires_grad_()
            sides = [size[0] * one / one.sum(-1, keepdim=True) for one in (supply, demand)]
            return torch.autograd.grad(emd(cost, *sides).value.sum(), (supply, demand))

        one = gradients(cost, supply, demand)
        other = gradients(cost[:, rows][:, :, columns], supply[:, rows], demand[:, columns])
        torch.testing.assert_close(other[0], one[0][:, rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(other[1], one[1][:, columns], rtol=0, atol=1e-9)

    def test_equal_weights_do_have_many_potentials(self, problems):
        """The check above can fail: without a gradient any optimal potentials are given."""
        cost, supply, demand = problems("equal", 8, 25, 25)
        free = emd(cost, supply, demand)
        fixed = emd(cost, supply.requires_grad_(), demand)
        torch.testing.assert_close(free.value, fixed.value.detach(), rtol=1e-12, atol=0)
        apart = free.supply_potential - fixed.supply_potential
        apart = apart - apart.mean(-1, keepdim=True)
        assert apart.abs().amax(-1).median() > 1e-3

    def test_swapped_sides(self, problems):
        cost, supply, demand = problems("equal", 6, 12, 12)
        one = emd(cost, supply.requires_grad_(), demand)
        other = emd(cost.mT, demand, supply)
        shift = (other.demand_potential - one.supply_potential).mean(-1, keepdim=True)
        torch.testing.assert_close(other.demand_potential - shift, one.supply_potential, rtol=0, atol=1e-9)

    def test_it_is_a_derivative_between_the_one_sided_ones(self, problems, oracle):
        cost, supply, demand = problems("equal", 1, 6, 6)
        plan = emd(cost, supply.requires_grad_(), demand)
        supply, value, h = supply.detach(), plan.value.detach(), 1e-5
        for i in range(6):
            for j in range(6):
                more = (oracle(cost, supply + h * torch.eye(6)[i], demand + h * torch.eye(6)[j]) - value) / h
                less = (value - oracle(cost, supply - h * torch.eye(6)[i], demand - h * torch.eye(6)[j])) / h
                price = plan.supply_potential[0, i] + plan.demand_potential[0, j]
                assert less - 1e-6 <= price <= more + 1e-6


PROGRAM = """
import hashlib, sys, time, torch
from fieldmark.functional.transport import emd
generator = torch.Generator().manual_seed(0)
cost = torch.rand(3000, 12, 15, generator=generator, dtype=torch.float64)
supply = torch.full((12,), 5.0, dtype=torch.float64, requires_grad=True)
torch.set_num_threads(int(sys.argv[1]))
start = time.perf_counter()
plan = emd(cost, supply, torch.full((15,), 4.0, dtype=torch.float64))
print(time.perf_counter() - start, *(hashlib.sha256(one.detach().numpy().tobytes()).hexdigest() for one in plan))
"""


def run(threads: int, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.slow
def test_number_of_threads_changes_nothing():
    (_, *one), (_, *two), (_, *four) = run(1), run(2), run(4)
    assert one == two == four


@pytest.mark.slow
def test_compiled_code_is_cached_between_processes(tmp_path):
    """The first process compiles into an empty cache, the second finds it."""
    first, *answer = run(1, NUMBA_CACHE_DIR=str(tmp_path))
    second, *again = run(1, NUMBA_CACHE_DIR=str(tmp_path))
    assert answer == again
    assert float(second) < 4 < float(first)


@pytest.mark.slow
def test_compiled_code_is_renewed_when_any_of_its_files_changes(tmp_path):
    """Numba itself looks only at the file of the function that it keeps."""
    package = tmp_path / "fieldmark"
    shutil.copytree(Path(fieldmark.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    place = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    _, *answer = run(1, **place)
    with (package / "functional/transport/vector.py").open("a") as file:
        file.write("# changed\n")
    compiled, *again = run(1, **place)
    kept, *_ = run(1, **place)
    assert answer == again
    assert float(kept) < 4 < float(compiled)


def test_two_python_threads_at_once(problems):
    given = [problems("plane", 400, 16, 16, seed) for seed in range(2)]
    expected = [emd(*one).flow for one in given]
    answers: list[list[torch.Tensor]] = [[], []]

    def work(index):
        for _ in range(10):
            answers[index].append(emd(*given[index]).flow)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(timeout=120)
        assert not one.is_alive()
    for index in range(2):
        assert len(answers[index]) == 10
        assert all(torch.equal(one, expected[index]) for one in answers[index])


def test_the_interpreter_is_not_held(problems):
    """While a long batch is solved, another Python thread goes on."""
    given = problems("plane", 200, 196, 196)
    emd(*(one[:1] for one in given))
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    emd(*given)
    end = time.perf_counter()
    done.set()
    other.join(timeout=10)
    within = [one for one in ticks if start < one < end]
    assert end - start > 0.05, "too short to tell"
    assert len(within) > 10


FORKED = """
import multiprocessing, sys, torch
from fieldmark.functional.transport import emd
torch.set_num_threads(2)
cost = torch.rand(3000, 12, 12, generator=torch.Generator().manual_seed(0))
ones = torch.ones(12)
def total():
    return emd(cost, ones, ones, threads=2).value.double().sum().item()
def work(queue):
    torch.set_num_threads(1)  # as torch's loader does in its workers, where torch's own threads would hang
    queue.put(total())
expected = total()
context = multiprocessing.get_context("fork")
for _ in range(2):
    queue = context.Queue()
    worker = context.Process(target=work, args=(queue,))
    worker.start()
    try:
        assert queue.get(timeout=30) == expected
    finally:
        worker.join(timeout=10)
        if worker.is_alive():
            worker.kill()
    assert worker.exitcode == 0
assert total() == expected
print("ok")
"""


def test_a_forked_worker_works_after_its_parent():
    """Loader workers are forked from a process that has solved problems; in a process of its own here."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.strip() == "ok", done.stderr[-3000:]


def test_it_is_the_default():
    assert "simplex" in SOLVERS
    half = torch.tensor([0.5, 0.5])
    assert emd(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), half, half).value == 0


def test_threads_of_our_own_give_the_same(problems, monkeypatch):
    """Where torch's workers cannot be reached, on other systems and in forked workers, a pool takes their place."""
    from fieldmark.functional.transport import workers

    given = problems("plane", 500, 25, 25)
    theirs = emd(*given, threads=2)
    monkeypatch.setattr(workers, "_torch_workers", lambda: None)
    ours = emd(*given, threads=2)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_memory_that_does_not_fit_is_refused(problems):
    given = problems("plane", 4, 5, 5)
    solver = SOLVERS.create("simplex", warm_start=True)
    solver.identify(torch.tensor([0, 1, 2, 9]), count=9)
    with pytest.raises(FieldmarkError, match="4 numbers for 4 problems of 9"):
        emd(*given, solver=solver)


@pytest.mark.parametrize("step", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("kind", ["plane", "equal", "zeros"])
def test_a_warm_start_ends_where_a_cold_one_does(problems, oracle, kind, step):
    """Problems that come again, a part at a time and in any order, with costs and weights that move."""
    cost, supply, demand = problems(kind, 12, 20, 30)
    solver = SOLVERS.create("simplex", warm_start=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        chosen = torch.randperm(12, generator=generator)[:7]
        given = cost[chosen], supply[chosen], demand[chosen]
        solver.identify(chosen, count=12)
        plan = emd(*given, solver=solver)
        torch.testing.assert_close(plan.value, oracle(*given), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(plan.flow.sum(-1), given[1], rtol=0, atol=1e-9)
        assert duality_gap(plan, *given[1:]).abs().max() < 1e-8
        cost = cost + step * cost.std() * torch.randn(cost.shape, generator=generator, dtype=cost.dtype)
        factor = 1 + step * torch.rand(supply.shape, generator=generator, dtype=cost.dtype)
        supply = supply * factor * (supply.sum(-1) / (supply * factor).sum(-1)).unsqueeze(-1)


def test_warm_starts_of_small_problems_whose_totals_meet_up_to_rounding(oracle):
    """Residuals that are 0 but for rounding once let an earlier tree take all rows."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        n, m = (int(size) for size in torch.randint(2, 7, (2,), generator=generator))
        solver = SOLVERS.create("simplex", warm_start=True, threads=1)
        cost = torch.rand(100, n, m, generator=generator).double()
        for _ in range(4):
            sides = [(torch.rand(100, size, generator=generator) * 3).floor().double() + 1 for size in (n, m)]
            supply, demand = (one / one.sum(1, keepdim=True) * (1 / 3) for one in sides)
            plan = emd(cost, supply, demand, solver=solver)
            torch.testing.assert_close(plan.value, oracle(cost, supply, demand), rtol=1e-9, atol=1e-15)
            torch.testing.assert_close(plan.flow.sum(-1), supply, rtol=0, atol=1e-15)
            torch.testing.assert_close(plan.flow.sum(-2), demand, rtol=0, atol=1e-15)
            cost = cost + 0.05 * torch.randn(cost.shape, generator=generator).double()


FLUSHED = """
import torch
from fieldmark.functional import emd
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
for n in (3, 9, 25, 70):
    points = torch.rand(20, n, 4, generator=generator).double()
    supply = torch.rand(20, n, generator=generator).double() + 0.1
    for cost in ((torch.rand(20, n, n, generator=generator) * 3).floor().double(), torch.cdist(points, points),
                 torch.full((20, n, n), 2.5).double(), torch.zeros(20, n, n).double()):
        torch.set_flush_denormal(False)
        expected = emd(cost, supply, supply.flip(1))
        torch.set_flush_denormal(True)
        plan = emd(cost, supply, supply.flip(1))
        assert (plan.value - expected.value).abs().max() < 1e-12
"""


def test_a_processor_that_flushes_denormal_numbers():
    """Differences that are exactly 0 keep the place that stands in their lowest bits."""
    done = subprocess.run([sys.executable, "-c", FLUSHED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
