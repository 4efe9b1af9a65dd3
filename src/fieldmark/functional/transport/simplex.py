"""The exact solver: batches shared out over threads that hold no lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport.solver import SOLVERS, Solution, Solver
from fieldmark.shapes import Float, Int, Tensor

# Microseconds a problem takes, by pair of nodes, and from how many on a second thread is worth being woken.
_MICROSECONDS, _WORTH_A_THREAD = 0.011, 100.0


@SOLVERS.add(
    "simplex",
    "exact: transportation simplex on bitset trees, in float64, on all cores",
    source="Dantzig 1951; Cunningham 1976 (against cycling)",
)
class Simplex(Solver):
    """Exact transport by the simplex method, compiled once and then kept on disk.

    It works on the processor, in float64, whatever the type and device of the tensors. A value is exact to about 1e-12
    of the largest cost times the total weight. The first call ever compiles for some 15 seconds.

    Args:
        threads: Threads to share a batch; default: torch's number.
        warm_start: Begin each problem at the tree that solved it last: pays when the same problems come again with
            slowly moving costs. :meth:`identify` says which ones come; without it, those of a call of the same shape.

    Raises:
        FieldmarkError: If threads is below 1.

    Example:
        >>> import torch
        >>> from fieldmark.functional import emd
        >>> emd(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]), torch.tensor([1.0, 2.0]), Simplex(threads=1)).value
        tensor(5.)
    """

    def __init__(self, threads: int | None = None, warm_start: bool = False) -> None:
        if threads is not None and threads < 1:
            raise FieldmarkError(f"threads of solver simplex is {threads}; expected at least 1")
        self.threads = threads
        self.warm_start = warm_start
        self._numbers: np.ndarray | None = None
        self._trees = np.zeros((0, 2, 1), np.int32)

    def identify(self, numbers: Int[Tensor, "B"] | None, count: int = 0) -> None:
        """Say which of ``count`` problems that come again and again the next call solves (with ``warm_start``).

        Args:
            numbers: 0 to count - 1, each at most once, one a problem of the next call; None: call after call the same.
            count: How many there are in all.
        """
        self._numbers = None if numbers is None else numbers.reshape(-1).cpu().numpy().astype(np.int64)
        self._count = count

    def solve(
        self, cost: Float[Tensor, "B n m"], supply: Float[Tensor, "B n"], demand: Float[Tensor, "B m"], *, unique: bool
    ) -> Solution:
        """Solve the problems; see :meth:`Solver.solve`."""
        from fieldmark.functional.transport.simplex_batch import solve_batch

        count, n, m = cost.shape
        kind = torch.float32 if cost.dtype != torch.float64 else torch.float64
        problem = [np.ascontiguousarray(one.to("cpu", kind).numpy()) for one in (cost, supply, demand)]
        flow, prices, value = np.empty_like(problem[0]), np.empty((count, n + m)), np.empty(count)
        numbers, trees = self._memory(count, n + m)
        work = _MICROSECONDS * count * n * m
        threads = max(1, min(self.threads or torch.get_num_threads(), count, 1 + int(work / _WORTH_A_THREAD)))
        chunk = max(1, min(64, count // (8 * threads)))
        arguments = (*problem, flow, prices, value, np.zeros(1, np.int64), chunk, unique, numbers, trees)
        failed = _share(solve_batch, arguments, threads)
        if failed >= 0:
            raise RuntimeError(
                f"the transport simplex did not end on problem {failed} of {count} ({n} x {m} nodes); "
                "please report it with its cost, supply and demand"
            )
        answer = [torch.from_numpy(one).to(cost.device) for one in (value, flow, prices)]
        return Solution(answer[0], answer[1], answer[2][:, :n], answer[2][:, n:])

    def _memory(self, count: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Which remembered trees the problems start from, and where they are kept."""
        if not self.warm_start:
            return np.empty(0, np.int64), self._trees
        numbers = np.arange(count) if self._numbers is None else self._numbers
        kept = count if self._numbers is None else self._count
        if len(numbers) != count or (count and (numbers.min() < 0 or numbers.max() >= kept)):
            raise FieldmarkError(
                f"identify got {len(numbers)} numbers for {count} problems of {kept}; expected one each"
            )
        if self._trees.shape != (kept, 2, nodes):
            self._trees = np.full((kept, 2, nodes), -2, np.int32)
        return numbers, self._trees


_pool: tuple[int, ThreadPoolExecutor] | None = None


def _share(kernel: Any, arguments: tuple[Any, ...], threads: int) -> int:
    """Run the kernel in this thread and in helpers; the largest of what they return.

    The kernel takes its problems from a shared counter. Helpers that a busy machine has not started when everything
    is done are called off, so nobody waits for them.
    """
    global _pool
    if threads <= 1:
        return int(kernel(*arguments))
    if _pool is None or _pool[0] != os.getpid():  # threads do not survive a fork
        _pool = (os.getpid(), ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), "fieldmark-transport"))
    helpers = [_pool[1].submit(kernel, *arguments) for _ in range(threads - 1)]
    results = [kernel(*arguments)]
    results += [helper.result() for helper in helpers if not helper.cancel()]
    return int(max(results))
