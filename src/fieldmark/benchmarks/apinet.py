"""API-Net: pair mining against loops over images, and the step with cached gradients against the plain one.

Pairs: 120 features of 2,048 values, 30 classes of 4 images, the nearest image of the same class and of the others. Ours
is a product of the features with themselves and two masked minima. ``a loop over images`` goes through the images in
Python and takes each one's distances to all others by numpy; ``distances at once, then a loop`` has the whole matrix of
distances first, and only chooses in the loop, which is nearer to what the official code does. All three find the same
pairs, or the benchmark fails. The floor is the product, 120 x 120 x 2,048 = 29.5 million multiplications, 0.6 ms of a
core that does 95 GFLOP a second; the last peer has it too and cannot be passed by much more than a factor of two on a
processor. (On a GPU, its matrix and its pairs would have to go to the processor and back.)

Gradient caching: the whole training step of objective ``apinet`` (encoding, pairs, losses, all gradients) with batch
norms in evaluation mode, so that both sides have the same gradients. It encodes every image twice, and takes memory for
one micro-batch's graph in place of the batch's. The least it can take is 4/3 of the time: a backward pass costs two
forward ones. Memory is what a step adds to the largest resident size of a process of its own that has had a tiny one
before; the gradients of all weights are in both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldmark import backbones, methods
from fieldmark.backbones import Encoder
from fieldmark.benchmarks.memory import added, tell
from fieldmark.benchmarks.timing import CLOCKS, clock_text, interleaved, make_row, on_both_clocks, on_clock, run_jobs
from fieldmark.errors import FieldmarkError
from fieldmark.functional import mine_pairs
from fieldmark.methods import ImageBatch

CLASSES, IMAGES, LENGTH = 30, 4, 2048
TARGET_PAIRS, TARGET_MEMORY = 20.0, 3.0
LOOPS = {"a loop over images": TARGET_PAIRS, "distances at once, then a loop": None}
#: Backbone, pixels, images, images of a micro-batch.
STEP = ("resnet50", 128, 32, 4)


def run(repeats: int = 5, step: tuple[str, int, int, int] = STEP) -> dict[str, Any]:
    """Medians of interleaved repeats, and the memory of one step of each side.

    Args:
        repeats: Measurements of each side; a side that takes seconds gets fewer.
        step: Backbone, pixels, images and images of a micro-batch of the step.
    """
    jobs = [partial(pair_rows, repeats), partial(step_rows, step, repeats)]
    notes = [
        f"pairs: {CLASSES} classes x {IMAGES} images, {LENGTH} values; cpu: processor time with one thread.",
        f"steps: objective apinet, {step[0]} at {step[1]} pixels, {step[2]} images, gradient_cache {step[3]}.",
        "the least time of caching is 4/3 of the plain step's, a ratio of 0.75.",
        "memory: what one step adds to a fresh process.",
    ]
    return {**run_jobs(jobs), "notes": notes}


def pair_rows(repeats: int) -> list[dict[str, Any]]:
    """Ours against each loop on each clock."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    features = torch.randn(len(labels), LENGTH, generator=generator).relu_()
    features += torch.randn(CLASSES, LENGTH, generator=generator).relu_()[labels]
    plain = features.numpy(), labels.numpy()
    calls: dict[str, Callable[[], Any]] = {
        "ours": partial(mine_pairs, features, labels),
        "a loop over images": partial(looped, *plain),
        "distances at once, then a loop": partial(chosen_in_a_loop, *plain),
    }
    mine = torch.stack(tuple(calls["ours"]()), 1).tolist()
    for name in LOOPS:
        if calls[name]() != mine:
            raise FieldmarkError(f"{name} and ours find different pairs; one of them is wrong")
    times = interleaved(on_both_clocks(calls), repeats)
    return [
        make_row(
            f"pairs against {name}, {clock_text(clock)}",
            on_clock(times, "ours", clock),
            on_clock(times, name, clock),
            1,
            "batches/s",
            target,
            clock=clock,
        )
        for name, target in LOOPS.items()
        for clock in CLOCKS
    ]


def looped(features: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Intra and inter partner of one image after the other."""
    intra, inter = [], []
    for i in range(len(labels)):
        distances = ((features - features[i]) ** 2).sum(1)
        own = labels == labels[i]
        same = [j for j in np.flatnonzero(own) if j != i]
        other = np.flatnonzero(~own)
        intra.append([i, int(same[int(np.argmin(distances[same]))])])
        inter.append([i, int(other[int(np.argmin(distances[other]))])])
    return intra + inter


def chosen_in_a_loop(features: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """All distances by a product first; then row after row."""
    lengths = (features**2).sum(1)
    distances = lengths[:, None] + lengths[None] - 2 * features @ features.T
    intra, inter = [], []
    for i, row in enumerate(distances):
        own = labels == labels[i]
        other = np.where(own, np.inf, row)
        own[i] = False
        intra.append([i, int(np.argmin(np.where(own, row, np.inf)))])
        inter.append([i, int(np.argmin(other))])
    return intra + inter


class Step:
    """One side's training step; a call leaves all gradients and gives the loss."""

    def __init__(self, name: str, backbone: str, pixels: int, images: int, micro: int) -> None:
        self.given = (name, backbone, pixels, images, micro)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = backbones.create(backbone)
            self.encoder = Encoder(made, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
            self.objective = methods.create("apinet", dropout=0.0, gradient_cache=micro if name == "ours" else None)
            self.objective.setup(self.encoder.channels, 100)
            pixels_of = torch.rand(images, 3, pixels, pixels)
        self.batch = ImageBatch(pixels_of, torch.arange(images) // IMAGES)

    def __call__(self) -> float:
        """The loss."""
        self.encoder.zero_grad()
        self.objective.zero_grad()
        loss = self.objective(self.encoder, self.batch)["loss"]
        loss.backward()
        return float(loss.detach())

    def gradients(self) -> list[torch.Tensor]:
        """What the last call left."""
        leaves = [*self.encoder.parameters(), *self.objective.parameters()]
        return [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]


def step_rows(step: tuple[str, int, int, int], repeats: int) -> list[dict[str, Any]]:
    """Time on each clock, and memory."""
    sides = {name: Step(name, *step) for name in ("ours", "peer")}
    losses = [one() for one in sides.values()]
    gradients = [one.gradients() for one in sides.values()]
    largest = max(float(theirs.abs().max()) for theirs in gradients[1])
    differ = max(float((mine - theirs).abs().max()) for mine, theirs in zip(*gradients, strict=True))
    facts: dict[str, Any] = {"backbone": step[0], "pixels": step[1], "images": step[2], "micro_batch": step[3]}
    facts |= {"difference_of_losses": abs(losses[0] - losses[1]), "relative_difference_of_gradients": differ / largest}
    times = interleaved(on_both_clocks(sides), repeats)
    what = "step with cached gradients against the plain one"
    rows = [
        make_row(
            f"{what}, {clock_text(clock)}",
            on_clock(times, "ours", clock),
            on_clock(times, "peer", clock),
            1,
            "steps/s",
            **facts,
            clock=clock,
        )
        for clock in CLOCKS
    ]
    used = {name: measured(one) for name, one in sides.items()}
    memory: dict[str, Any] = {"what": f"{what}, memory", "ours": used["ours"], "peer": used["peer"], "unit": "MB"}
    memory |= {"ratio": used["peer"] / used["ours"], "target": TARGET_MEMORY, "clock": "memory"}
    return [*rows, memory | facts]


def measured(step: Step) -> float:
    """Megabytes that one step adds to a fresh process."""
    return added("fieldmark.benchmarks.apinet", step.given)


if __name__ == "__main__":
    tell(Step, warm=lambda name, backbone, *_: Step(name, backbone, 32, 4, 2)())
