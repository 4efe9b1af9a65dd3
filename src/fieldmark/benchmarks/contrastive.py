"""SCL's spatial similarity and loss, forward and backward, against the official formulas: time and memory.

Both sides get the same 2N = 128 images (64 in two views) and give the supervised loss and the gradients of what went
in: queries, keys and values of 80 channels, or maps of 640 channels through three projection heads. The peer is written
down from the equations in the way of the official code: the aligned values of both images of every ordered pair as one
einsum, normalised, multiplied, averaged. Two clocks: wall time with all of torch's threads, and processor time of one
thread. Memory is the largest resident size that a step adds to a process of its own, so both sides' includes what
torch itself sets up at its first step.

The floor. For B images of N locations with d channels (128, 25, 80), a product of all locations with all is
``2 (B N)^2 d`` = 1.64 GFLOP. A forward pass needs the scores (1.64), the cosines of the values (half, as they are
symmetric: 0.82) and the lengths of the mixtures by N x N tables (``2 (B N)^2 N`` = 0.51): 3.0. The backward pass needs
the gradients of queries and of keys (1.64 each), of the values (1.64, both directions of a pair added first) and of the
tables (0.51): 5.4, and 3.0 again to compute each chunk anew. 11.4 GFLOP in all, 0.12 s on a core that does 95 GFLOP a
second, and twice 10.2 million exponentials, 0.02 s. The aligned values themselves, 32.8 million numbers for each
direction, are never made. The heads add ``18 B N (640 * 640 + 640 * 80)`` = 26.5 GFLOP to both sides, 0.28 s.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fieldmark import functional
from fieldmark.benchmarks.timing import CLOCKS, clock_text, interleaved, make_row, on_both_clocks, on_clock
from fieldmark.progress import track
from fieldmark.shapes import Tensor

IMAGES, CHANNELS, INNER, CLASSES = 128, 640, 80, 40
TARGET_TIME, TARGET_MEMORY = 8.0, 4.0
#: Side of the map, with projection heads or without, aggregation. The first is the one with targets.
CASES = ((5, False, "mean"), (5, True, "mean"), (5, False, "logsumexp"), (3, False, "mean"), (2, False, "mean"))
SIDES = ("ours", "peer")


def run(repeats: int = 5, cases: tuple[tuple[int, bool, str], ...] = CASES, images: int = IMAGES) -> dict[str, Any]:
    """Medians of interleaved repeats, and the memory of one step of each side.

    Args:
        repeats: Measurements of each side; a side that takes seconds gets fewer.
        cases: (side of the map, with projection heads, aggregation).
        images: In the batch, half of them second views.
    """
    jobs: list[Callable[[], list[dict[str, Any]]]] = [partial(rows, *case, images, repeats) for case in cases]
    notes = [
        "cpu: processor time with one thread; wall: with all threads. Each step: similarity, loss, all gradients.",
        "memory: what one step adds to the largest resident size of a process of its own.",
    ]
    found = [row for job in track(jobs, "measuring") for row in job()]
    return {"rows": found, "notes": notes, "threads": torch.get_num_threads(), "load": os.getloadavg()}


def rows(side: int, heads: bool, aggregation: str, images: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each clock, and one for memory."""
    steps = {name: Step(name, side, heads, aggregation, images) for name in SIDES}
    error = abs(float(steps["ours"]()) - float(steps["peer"]()))
    slopes = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*_gradients(steps), strict=True)]
    times = interleaved(on_both_clocks(steps), repeats)
    projected = f"x{CHANNELS} with heads to {INNER}" if heads else f"x{INNER}"
    what = f"{images} images, {side}x{side}{projected}, {aggregation}"
    facts: dict[str, Any] = {"case": "spatial", "images": images, "side": side, "heads": heads}
    facts |= {"aggregation": aggregation, "difference_of_loss": error, "relative_difference_of_gradient": max(slopes)}
    first = (side, heads, aggregation) == CASES[0] and images == IMAGES
    found = [
        make_row(
            f"{what}, {clock_text(clock)}",
            on_clock(times, "ours", clock),
            on_clock(times, "peer", clock),
            1,
            "steps/s",
            TARGET_TIME if first else None,
            **facts,
            clock=clock,
            threads=torch.get_num_threads() if clock == "wall" else 1,
        )
        for clock in CLOCKS
    ]
    return [*found, memory_row(what, steps, TARGET_MEMORY if first else None, facts)]


def memory_row(what: str, steps: dict[str, Step], target: float | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Megabytes a step adds; the ratio says how many times less ours are."""
    used = {name: measured(step) for name, step in steps.items()}
    row: dict[str, Any] = {"what": f"{what}, memory", "ours": used["ours"], "peer": used["peer"], "unit": "MB"}
    row["ratio"] = used["peer"] / used["ours"]
    return row | ({} if target is None else {"target": target}) | facts | {"clock": "memory"}


class Step:
    """One side: a call gives the loss, with the gradients in ``leaves``."""

    def __init__(self, name: str, side: int, heads: bool, aggregation: str, images: int = IMAGES) -> None:
        self.given = (name, side, heads, aggregation, images)
        self.similarity: Callable[..., Tensor] = functional.spatial_similarity if name == "ours" else official
        generator = torch.Generator().manual_seed(0)
        draw = partial(torch.randn, generator=generator)
        self.labels = torch.randint(CLASSES, (images // 2,), generator=generator).repeat(2)
        shape = (images, side * side)
        self.leaves = [draw(*shape, CHANNELS).relu()] if heads else [draw(*shape, INNER) for _ in range(3)]
        self.heads = heads
        for _ in range(3 * heads):
            self.leaves += [draw(size, CHANNELS) * (2 / CHANNELS) ** 0.5 for size in (CHANNELS, INNER)]
        for leaf in self.leaves:
            leaf.requires_grad_()

    def __call__(self) -> Tensor:
        """The loss; gradients are left with the leaves."""
        for leaf in self.leaves:
            leaf.grad = None
        sets = self.leaves
        if self.heads:
            maps, *weights = self.leaves
            pairs = zip(weights[::2], weights[1::2], strict=True)
            sets = [(maps @ inner.mT).relu() @ outer.mT for inner, outer in pairs]
        loss = functional.contrastive_loss(self.similarity(*sets, aggregation=self.given[3]), self.labels)
        loss.backward()
        return loss.detach()


def official(queries: Tensor, keys: Tensor, values: Tensor, aggregation: str = "mean") -> Tensor:
    """Similarities (B, B): eq. 5 and 6 with the aligned values of both images of every ordered pair."""
    scale = queries.shape[-1] ** -0.5
    first = torch.einsum("ird,jmd->ijrm", queries, keys).mul(scale).softmax(-1)
    second = torch.einsum("jrd,imd->ijrm", queries, keys).mul(scale).softmax(-1)
    j_seen_from_i = torch.nn.functional.normalize(torch.einsum("ijrm,jmd->ijrd", first, values), dim=-1)
    i_seen_from_j = torch.nn.functional.normalize(torch.einsum("ijrm,imd->ijrd", second, values), dim=-1)
    own = torch.nn.functional.normalize(values, dim=-1)
    parts = (own.unsqueeze(1) * j_seen_from_i).sum(-1) + (own.unsqueeze(0) * i_seen_from_j).sum(-1)
    if aggregation == "logsumexp":
        return (6 * parts).logsumexp(-1) / 6
    if aggregation == "max":
        return parts.amax(-1)
    return parts.mean(-1) if aggregation == "mean" else parts.sum(-1)


def measured(step: Step) -> float:
    """Megabytes that one step adds to a fresh process."""
    command = [sys.executable, "-m", "fieldmark.benchmarks.contrastive", json.dumps(step.given)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["megabytes"])


def _gradients(steps: dict[str, Step]) -> list[list[Tensor]]:
    return [[leaf.grad for leaf in step.leaves if leaf.grad is not None] for step in steps.values()]


def _largest() -> float:
    """The largest resident size of this process so far, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # A process that was started by a large one inherits that one's size in what getrusage tells.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _alone(given: list[Any]) -> dict[str, float]:
    """Make one side's step, and only then look how much a call adds."""
    step = Step(*given)
    before = _largest()
    step()
    return {"megabytes": _largest() - before}


if __name__ == "__main__":
    print(json.dumps(_alone(json.loads(sys.argv[1]))))
