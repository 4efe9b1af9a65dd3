"""The exact solver: batches shared out over threads that hold no lock."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport.solver import SOLVERS, NotFiniteError, Solution, Solver
from fieldmark.functional.transport.workers import run_on_threads
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

    checks_costs = True

    def __init__(self, threads: int | None = None, warm_start: bool = False) -> None:
        if threads is not None and threads < 1:
            raise FieldmarkError(f"threads of solver simplex is {threads}; expected at least 1")
        self.threads = threads
        self.warm_start = warm_start
        self._numbers: Tensor | None = None
        self._count = 0
        self._trees = torch.empty(0, 2, 1, dtype=torch.int32)

    def identify(self, numbers: Int[Tensor, "B"] | None, count: int = 0) -> None:
        """Say which of ``count`` problems that come again and again the next call solves (with ``warm_start``).

        Args:
            numbers: 0 to count - 1, each at most once, one a problem of the next call; None: call after call the same.
            count: How many there are in all.
        """
        self._numbers = None if numbers is None else numbers.reshape(-1).cpu().long()
        self._count = count

    def solve(
        self, cost: Float[Tensor, "B n m"], supply: Float[Tensor, "B n"], demand: Float[Tensor, "B m"], *, unique: bool
    ) -> Solution:
        """Solve the problems; see :meth:`Solver.solve`."""
        from fieldmark.functional.transport import simplex_batch as kernel

        count, n, m = cost.shape
        kind = torch.float64 if cost.dtype == torch.float64 else torch.float32
        problem = [one.to("cpu", kind).contiguous() for one in (cost, supply, demand)]
        flow = torch.empty_like(problem[0])
        prices = torch.empty(count, n + m, dtype=torch.float64)
        value = torch.empty(count, dtype=torch.float64)
        numbers, trees = self._memory(count, n + m)
        threads, chunk = self._share(count, n * m)
        places = [one.data_ptr() for one in (*problem, flow, prices, value)]
        slots = (ctypes.c_int64 * kernel.SLOTS)(
            count, n, m, len(trees), chunk, unique, *places, 0, numbers.data_ptr(), trees.data_ptr(), kernel.ALL_DONE
        )
        function: Any = kernel.solve_double if kind == torch.float64 else kernel.solve_single
        run_on_threads(function.address, ctypes.addressof(slots), threads)
        status = slots[kernel.STATUS]
        if status == kernel.NOT_FINITE:
            raise NotFiniteError
        if status == kernel.STUCK:
            raise RuntimeError(
                f"the transport simplex did not end on one of {count} problems ({n} x {m} nodes); "
                "please report it with its cost, supply and demand"
            )
        value, flow, prices = (one.to(cost.device) for one in (value, flow, prices))
        return Solution(value, flow, prices[:, :n], prices[:, n:])

    def _share(self, count: int, pairs: int) -> tuple[int, int]:
        """Threads for so many problems of so many pairs of nodes, and problems that each takes at a time."""
        worth = 1 + int(_MICROSECONDS * count * pairs / _WORTH_A_THREAD)
        threads = max(1, min(self.threads or torch.get_num_threads(), count, worth))
        return threads, max(1, min(64, count // (8 * threads)))

    def _memory(self, count: int, nodes: int) -> tuple[Tensor, Tensor]:
        """Which remembered trees the problems start from, and where they are kept."""
        if not self.warm_start:
            return torch.empty(0, dtype=torch.int64), self._trees
        numbers = torch.arange(count) if self._numbers is None else self._numbers
        kept = count if self._numbers is None else self._count
        if len(numbers) != count or (count and not 0 <= int(numbers.min()) <= int(numbers.max()) < kept):
            raise FieldmarkError(
                f"identify got {len(numbers)} numbers for {count} problems of {kept}; expected one each"
            )
        if self._trees.shape != (kept, 2, nodes):
            self._trees = torch.full((kept, 2, nodes), -2, dtype=torch.int32)
        return numbers, self._trees
