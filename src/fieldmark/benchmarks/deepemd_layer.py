"""The whole matching layer, Table 6 of the DeepEMD paper: 5-way 1-shot, 10 queries, maps of 3x3 to 5x5 places.

Costs, weights, solver and score for 50 pairs of rectified noise, forward (as in the table) and with the gradient for
both sides' features. Three peers: the official head's formulas with OpenCV on this machine, and the paper's own figures
for QPTH and OpenCV, which are quoted from the authors' machine with a GPU and say nothing exact about this one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fieldmark import functional
from fieldmark.benchmarks.timing import CLOCKS, Times, clock_text, interleaved, make_row, on_both_clocks, on_clock
from fieldmark.benchmarks.transport_peers import official_head
from fieldmark.shapes import Tensor

WAY, QUERIES = 5, 10
DIMENSIONS = (256, 512, 1024, 2048)
#: Seconds, from the paper's Table 6: by side of the map and dimension.
QUOTED = {
    "QPTH": {
        3: (0.294, 0.294, 0.295, 0.295), 4: (1.489, 1.493, 1.498, 1.499), 5: (8.595, 8.638, 8.638, 8.650),
    },
    "OpenCV": {5: (0.018, 0.019, 0.021, 0.025)},
}  # fmt: skip


def jobs(repeats: int) -> list[Any]:
    """One measurement for each size and dimension."""
    return [partial(rows, side, dimension, repeats) for side in (3, 4, 5) for dimension in DIMENSIONS]


def rows(side: int, dimension: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each peer."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(QUERIES + WAY, side * side, dimension, generator=generator).relu()
    query, support = maps[WAY:], maps[:WAY]
    error = (functional.emd_similarity(query, support) - official_head(query, support)).abs().max()
    calls = {
        "ours": lambda: functional.emd_similarity(query, support),
        "ours with backward": lambda: _with_backward(query, support),
        "peer": lambda: official_head(query, support),
    }
    times = interleaved(on_both_clocks(calls), repeats)
    facts = {"images": "random", "largest_difference_of_a_logit": float(error)}
    found = [
        _row(side, dimension, "the official formulas", clock, times, on_clock(times, "peer", clock), **facts)
        for clock in CLOCKS
    ]
    for name, table in QUOTED.items():
        if side in table:
            seconds = table[side][DIMENSIONS.index(dimension)]
            found.append(_row(side, dimension, f"{name} (quoted: paper, other hardware)", "wall", times, [seconds]))
    return found


def _row(
    side: int, dimension: int, peer: str, clock: str, times: dict[str, Times], theirs: list[float], **facts: Any
) -> dict[str, Any]:
    threads = torch.get_num_threads() if clock == "wall" else 1
    return make_row(
        f"layer forward, {side}x{side} x {dimension}, {WAY}-way 1-shot, {QUERIES} queries, {clock_text(clock)};"
        f" against {peer}",
        on_clock(times, "ours", clock),
        theirs,
        1,
        "layers/s",
        None,
        {"ours with backward": on_clock(times, "ours with backward", clock)},
        case="layer",
        nodes=side * side,
        dimension=dimension,
        clock=clock,
        threads=threads,
        against=peer,
        quoted="quoted" in peer,
        **facts,
    )


def _with_backward(query: Tensor, support: Tensor) -> None:
    leaves = [one.clone().requires_grad_() for one in (query, support)]
    functional.emd_similarity(*leaves).sum().backward()
