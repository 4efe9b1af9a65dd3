"""Images encoded and trained a second: freed memory kept by the process, against the C library as it is.

A process can hold to one of the two only, so each repeat is two processes, in turn; both do exactly the same.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fieldmark.allocation import is_glibc, keep_freed_memory
from fieldmark.benchmarks.memory import largest_size
from fieldmark.benchmarks.timing import clock_text, in_turn, interleaved, make_row, on_both_clocks, on_clock, run_jobs
from fieldmark.errors import FieldmarkError

BLOCKS = 5  # of a process, whose median counts
KEPT, AS_IT_IS = "kept", "as it is"


class Work(NamedTuple):
    """What is done: a backbone takes a batch of images."""

    backbone: str
    size: int
    batch: int
    train: bool
    target: float | None


WORK = {
    "encoding, efficientnet_lite0, 224 px, batch 16": Work("efficientnet_lite0", 224, 16, False, 1.2),
    "encoding, conv4, 32 px, batch 256": Work("conv4", 32, 256, False, 1.2),
    "encoding, resnet12, 84 px, batch 16": Work("resnet12", 84, 16, False, None),
    "forward and backward, conv4, 32 px, batch 64": Work("conv4", 32, 64, True, 1.1),
    "forward and backward, resnet12, 32 px, batch 16": Work("resnet12", 32, 16, True, None),
}


def run(repeats: int = 5, work: Sequence[str] = tuple(WORK)) -> dict[str, Any]:
    """Medians of processes in turn.

    Args:
        repeats: Processes of each side.
        work: What is done, of :data:`WORK`.
    """
    return run_jobs([partial(rows, name, repeats) for name in work])


def rows(name: str, repeats: int) -> list[dict[str, Any]]:
    """Time and memory of one kind of work.

    Args:
        name: One of :data:`WORK`.
        repeats: Processes of each side.

    Raises:
        FieldmarkError: Where freed memory cannot be kept.
    """
    if not is_glibc():
        raise FieldmarkError("freed memory cannot be kept here: the C library is not glibc")
    found: dict[str, list[dict[str, Any]]] = {KEPT: [], AS_IT_IS: []}
    for _, side in in_turn(found, repeats):
        found[side].append(_in_a_process(name, side))
    work = WORK[name]
    out = []
    for clock in ("wall", "cpu"):
        ours, peer = ([one["seconds"][clock] for one in side] for side in found.values())
        out.append(make_row(f"{name}, {clock_text(clock)}", ours, peer, work.batch, "images/s", work.target))
    ours, peer = ([one["megabytes"] for one in side] for side in found.values())
    peaks = {"ours": statistics.median(ours), "peer": statistics.median(peer)}
    memory = {"what": f"{name}, peak of the process", **peaks, "unit": "MB", "ratio": peaks["peer"] / peaks["ours"]}
    return [*out, {**memory, "repeats": {"ours": ours, "peer": peer}}]


def _in_a_process(name: str, side: str) -> dict[str, Any]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-m", "fieldmark.benchmarks.allocation", name, side]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=bare)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _call(work: Work) -> Callable[[], Any]:
    import torch

    from fieldmark import backbones

    model = backbones.create(work.backbone).train(work.train)
    images = torch.randn(work.batch, 3, work.size, work.size)

    def encode() -> Any:
        with torch.inference_mode():
            return model(images)

    def step() -> Any:
        return model(images).square().mean().backward()

    return step if work.train else encode


def main(name: str, side: str) -> int:
    """One process of one side: prints seconds of a call, and the most memory that the process took."""
    if side == KEPT and not keep_freed_memory():
        raise FieldmarkError("the C library refuses to keep freed memory")
    times = interleaved(on_both_clocks({"it": _call(WORK[name])}), BLOCKS)
    seconds = {clock: statistics.median(on_clock(times, "it", clock)) for clock in ("wall", "cpu")}
    print(json.dumps({"seconds": seconds, "megabytes": largest_size()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
