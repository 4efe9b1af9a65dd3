"""Transport as DeepEMD needs it, against OpenCV, POT and QPTH: solver, gradients, whole layer, head, structured FC.

Solver: batches of 50 problems of 9 to 256 nodes a side (13 and 38 are feature pyramids) and one of 375, with the
official code's costs and weights, from rectified noise and from EfficientNet-Lite0's features of images in 5-way 1-shot
pairs. Ours is the whole public call ``functional.emd`` on float64 tensors with its checks (times for float32 tensors
and for the solver without the checks stand beside); the peers get arrays of their own type, made beforehand, in a plain
loop. ``ot.emd`` comes a second time with tensors, as somebody who works in torch calls it; ``emd_c`` is the compiled
function inside of it. Two clocks: wall time with all of torch's threads, and the processor time of the process with
one (the peers have only one). Beside the speed, the largest relative difference of a value to POT's; OpenCV works in
float32 and is not exact for many nodes. Targets hold for photographs, so not for the glyphs.

The floor. A problem of n x m nodes has to be read once, 8 n m bytes of costs, and its flow of the same size written,
although only n + m - 1 of its entries can differ from 0. To know that a solution is the best one, every reduced cost
has to be looked at once: n m subtractions and comparisons. For 50 problems of 25 nodes that is 0.25 MB each way,
about 50 microseconds from memory (less from the cache), and 31,250 operations, about 3 microseconds with 4 lanes; the
checks of a public call in torch take about as long again. For 50 of 196 nodes it is 15 MB each way: some 3 to 6
milliseconds, most of it first touching the pages of the flow. The rest is the way to the solution: a start, and pivots
(about 33 a problem with 25 nodes of real images).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldmark import functional
from fieldmark.benchmarks import deepemd_head, deepemd_layer, transport_gradients
from fieldmark.benchmarks.timing import (
    CLOCKS,
    Job,
    Side,
    Times,
    clock_text,
    interleaved,
    make_row,
    on_both_clocks,
    on_clock,
    run_jobs,
)
from fieldmark.benchmarks.transport_peers import LOOPS, available_loops
from fieldmark.benchmarks.transport_problems import Noise, Pictures, Problems, make_problems, single_precision
from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import SOLVERS
from fieldmark.shapes import Tensor

BATCHES = ((9, 50), (13, 50), (25, 50), (25, 375), (38, 50), (49, 50), (100, 50), (196, 50), (256, 50))
TOO_SLOW = 10.0  # seconds a call: such a peer is left out
TARGETS = {
    "wall": {
        (25, "OpenCV"): 20.0, (25, "ot.emd"): 40.0, (49, "OpenCV"): 40.0, (49, "ot.emd"): 20.0,
        (100, "ot.emd"): 14.0, (196, "ot.emd"): 10.0,
    },
    "cpu": {(25, "OpenCV"): 7.0, (25, "ot.emd"): 14.0, (25, "emd_c"): 5.0},
}  # fmt: skip
CASES = ("solver", "gradients", "layer", "head")


def run(
    repeats: int = 5,
    data: str = "glyphs",
    root: str | None = None,
    qpth_python: str | None = None,
    cases: Sequence[str] = CASES,
    batches: Sequence[tuple[int, int]] = BATCHES,
) -> dict[str, Any]:
    """Medians of interleaved repeats; rows whose peer is not installed are left out, and "skipped" says so.

    Args:
        repeats: Measurements of each side; sides that take seconds get fewer.
        data: Data set whose test images make the problems that are not random.
        root: Where its files are.
        qpth_python: Interpreter of an environment with torch, qpth and numpy < 2; None: QPTH is left out.
        cases: Which of solver, gradients, layer and head.
        batches: (nodes, problems) of the solver's case.

    Raises:
        FieldmarkError: If the data set cannot be read, or nothing at all can be measured.
    """
    pictures = Pictures(data, root)
    images = pictures.store.manifest.to_dict()  # what cannot be read is refused before anything is measured
    jobs: dict[str, list[Job]] = {
        "solver": [
            partial(solver_rows, source, nodes, count, repeats)
            for nodes, count in batches
            for source in (Noise(), pictures)
        ],
        "gradients": transport_gradients.jobs(pictures, qpth_python, repeats),
        "layer": deepemd_layer.jobs(repeats),
        "head": deepemd_head.jobs(pictures, repeats),
    }
    chosen = [job for case in cases for job in jobs[case]]
    found = run_jobs(chosen)
    if "solver" in cases:
        found["skipped"] = list(dict.fromkeys([*available_loops()[1], *found["skipped"]]))
    notes = ["cpu: processor time with one thread; wall: with all threads. Ours is the whole public call."]
    if "gradients" in cases and qpth_python is None:
        notes.append("QPTH is left out: it needs an environment of its own (--qpth-python)")
    return {**found, "notes": notes, "images": images}


def solver_rows(source: Noise | Pictures, nodes: int, count: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each peer that is there and clock; errors are those to POT's values, None without POT."""
    problems = make_problems(source, nodes, count)
    loops, missing = available_loops()
    if not loops:
        raise FieldmarkError("; ".join(missing))
    best = _values(problems, loops["ot.emd"](problems)()) if "ot.emd" in loops else None
    # Before the clock runs: the first call of each type loads what was compiled.
    errors = {"ours": _error(functional.emd(*problems).value, best)}
    errors["ours float32"] = _error(functional.emd(*single_precision(problems)).value.double(), best)
    peers = {name: _Kept(loop(problems)) for name, loop in loops.items() if _seconds(problems, name) < TOO_SLOW}
    times = interleaved(_our_sides(problems) | {name: Side(peer) for name, peer in peers.items()}, repeats)
    rows = []
    for clock in CLOCKS:
        for name, peer in peers.items():
            found = errors | {"peer": _error(_values(problems, peer.flows), best)}
            rows.append(_solver_row(source, nodes, count, clock, name, times, found))
    return rows


class _Kept:
    """A peer's loop, and its last flows."""

    def __init__(self, loop: Callable[[], Sequence[np.ndarray]]) -> None:
        self._loop, self.flows = loop, list[np.ndarray]()

    def __call__(self) -> None:
        self.flows = list(self._loop())


def _our_sides(problems: Problems) -> dict[str, Side]:
    single = single_precision(problems)
    solver = SOLVERS.create("simplex")
    calls = {
        "ours": lambda: functional.emd(*problems),
        "ours float32": lambda: functional.emd(*single),
        "ours, solver alone": lambda: solver.solve(*problems, unique=False),
    }
    return on_both_clocks(calls)


def _solver_row(
    source: Noise | Pictures, nodes: int, count: int, clock: str, peer: str, times: dict[str, Times], errors: Any
) -> dict[str, Any]:
    """One peer, on one clock."""
    threads = torch.get_num_threads() if clock == "wall" else 1
    # The peers have one thread on either clock.
    theirs = times[peer].wall if clock == "wall" else times[peer].cpu
    facts = {"case": "solver", "nodes": nodes, "problems": count, "images": source.images, "clock": clock}
    photographs = source.images not in (Noise.images, "glyphs")
    return make_row(
        f"{count} x {nodes} nodes, {source.images}, {clock_text(clock)}; against {peer}",
        on_clock(times, "ours", clock),
        theirs,
        count,
        "problems/s",
        TARGETS[clock].get((nodes, peer)) if photographs and count == 50 else None,
        {name: on_clock(times, name, clock) for name in ("ours float32", "ours, solver alone")},
        **facts,
        threads=threads,
        against=peer,
        relative_error=errors,
    )


def _seconds(problems: Problems, name: str) -> float:
    """Seconds for the batch, by its first problem."""
    first = LOOPS[name](Problems(*(one[:1] for one in problems)))
    return interleaved({name: Side(first)}, 1)[name].wall[0] * len(problems.cost)


def _values(problems: Problems, flows: Sequence[np.ndarray]) -> Tensor:
    """Total costs (B,) of flows, in float64."""
    pairs: Iterator[tuple[Tensor, np.ndarray]] = zip(problems.cost, flows, strict=True)
    return torch.stack([(cost * torch.as_tensor(flow)).sum() for cost, flow in pairs])


def _error(values: Tensor, best: Tensor | None) -> float | None:
    return None if best is None else float(((values - best).abs() / best).max())
