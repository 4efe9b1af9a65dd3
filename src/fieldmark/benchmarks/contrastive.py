"""SCL's spatial similarity and loss, and a whole training step, against the official formulas: time and memory.

Both sides get the same 2N = 128 images (64 in two views) and give the supervised loss and the gradients of what went
in: queries, keys and values of 80 channels, or maps of 640 channels through three projection heads. The peer is written
down from the equations in the way of the official code: the aligned values of both images of every ordered pair as one
einsum, normalised, multiplied, averaged. Two clocks: wall time with all of torch's threads, and processor time of one
thread. Memory is the largest resident size that a step adds to a process of its own, so both sides' includes what
torch itself sets up at its first step.

The whole step is that of the recipe ``scl/cifar_fs_conv4``: ours is what `fieldmark train` does, with the augmentation
of both views, on images from memory; the peer is a plain loop with the same layers and heads over the official
formulas, which gets its images ready made.

The floor. For B images of N locations with d channels (128, 25, 80), a product of all locations with all is
``2 (B N)^2 d`` = 1.64 GFLOP. A forward pass needs the scores (1.64), the cosines of the values (half, as they are
symmetric: 0.82) and the lengths of the mixtures by N x N tables (``2 (B N)^2 N`` = 0.51): 3.0. The backward pass needs
the gradients of queries and of keys (1.64 each), of the values (1.64, both directions of a pair added first) and of the
tables (0.51): 5.4, and 3.0 again to compute each chunk anew. 11.4 GFLOP in all, 0.12 s on a core that does 95 GFLOP a
second, and twice 10.2 million exponentials, 0.02 s. The aligned values themselves, 32.8 million numbers for each
direction, are never made. The heads add ``18 B N (640 * 640 + 640 * 80)`` = 26.5 GFLOP to both sides, 0.28 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from fieldmark import backbones, functional, training
from fieldmark.benchmarks.memory import added, tell
from fieldmark.benchmarks.timing import (
    CLOCKS,
    clock_text,
    in_turn,
    interleaved,
    make_row,
    on_both_clocks,
    on_clock,
    run_jobs,
)
from fieldmark.benchmarks.training import SIZE, ends_of_steps
from fieldmark.methods.attention_heads import AttentionHeads
from fieldmark.shapes import Tensor

IMAGES, CHANNELS, INNER, CLASSES = 128, 640, 80, 40
TARGET_TIME, TARGET_MEMORY = 8.0, 4.0
RECIPE, STEPS, WARM = "scl/cifar_fs_conv4", 8, 2
TARGET_SECONDS = 0.5  # of a whole step
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
    jobs.append(partial(whole_step, images // 2, repeats))
    notes = [
        "cpu: processor time with one thread; wall: with all threads. Each step: similarity, loss, all gradients.",
        "memory: what one step adds to the largest resident size of a process of its own.",
    ]
    return {**run_jobs(jobs), "notes": notes}


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


def whole_step(images: int, repeats: int) -> list[dict[str, Any]]:
    """The row of a training step of Conv-4 with cross-entropy and spatial contrastive loss, on two views."""
    given = np.random.default_rng(0)
    pictures = given.integers(0, 256, (STEPS * images, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(len(pictures)) % CLASSES
    stage = {"epochs": 1, "batch_size": images, "steps_per_epoch": STEPS}
    overrides: dict[str, Any] = {f"stages.pretrain.{key}": value for key, value in stage.items()}
    recipe = training.load_recipe(RECIPE, overrides | {"evaluations": []})
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    plain = PlainTraining(recipe, pictures, labels)
    for _, name in in_turn(SIDES, repeats):
        clock = ends_of_steps(recipe, pictures, labels) if name == "ours" else plain()
        seconds[name] += [after - before for before, after in pairwise(clock[WARM - 1 :])]
    what = f"whole training step, Conv-4, {images} images in 2 views, {SIZE} px, ours with augmentation"
    facts: dict[str, Any] = {"case": "step", "clock": "wall", "threads": torch.get_num_threads()}
    facts |= {"images": images, "target_seconds": TARGET_SECONDS}
    return [make_row(f"{what}, {clock_text('wall')}", seconds["ours"], seconds["peer"], 1, "steps/s", **facts)]


class PlainTraining:
    """A plain loop over images that are ready: the recipe's backbone, classifier and heads, the official formulas."""

    def __init__(self, recipe: training.Recipe, pictures: np.ndarray, labels: np.ndarray) -> None:
        stage = recipe.stages[0]
        self.backbone = backbones.create(recipe.backbone.name, **recipe.backbone.options)
        self.options = stage.objective.options
        self.classifier = nn.Linear(self.backbone.channels, CLASSES)
        self.heads = AttentionHeads(self.backbone.channels, INNER)
        modules = nn.ModuleList([self.backbone, self.classifier, self.heads])
        self.optimizer = torch.optim.SGD(modules.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
        size = stage.batch_size
        self.batches = list(zip(images.split(size), torch.from_numpy(labels).split(size), strict=True))

    def __call__(self) -> list[float]:
        """When each step ended."""
        clock = []
        for images, labels in self.batches:
            maps, labels = self.backbone(torch.cat([images, images.flip(-1)])), labels.repeat(2)
            seen = self.heads(maps)
            spatial = functional.contrastive_loss(official(seen.queries, seen.keys, seen.values), labels)
            scores = nn.functional.cross_entropy(self.classifier(maps.mean((-2, -1))), labels)
            self.optimizer.zero_grad()
            (self.options["ce"] * scores + self.options["sc"] * spatial).backward()
            self.optimizer.step()
            clock.append(time.perf_counter())
        return clock


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
    return added("fieldmark.benchmarks.contrastive", step.given)


def _gradients(steps: dict[str, Step]) -> list[list[Tensor]]:
    return [[leaf.grad for leaf in step.leaves if leaf.grad is not None] for step in steps.values()]


if __name__ == "__main__":
    tell(Step)
