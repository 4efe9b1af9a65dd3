"""LSSA's head against the same computation with all pairs materialised: time and memory of an episode.

Both sides get the same 5-way episode (15 queries a class) of maps with 10 x 10 places, 64 or 512 channels, and the same
head with every part on. The peer is written down from the equations: the enhanced maps of every query and every support
image are put side by side for all pairs, aligned, concatenated, and go through h in one batch. ``training`` is the head
in training mode, the loss and all gradients; ``scoring`` is evaluation. Two clocks: wall time with all of torch's
threads, and processor time of one thread. Memory is what an episode adds to the largest resident size of a process of
its own that has had a tiny one before, so that what torch and torchvision load and set up once is not in it.

The floor, in multiplications of one pair with 512 channels and N = 100 places (h has width H = 256). The cosines of g
and the aligned map are ``N^2 (256 + 512)`` = 7.7 million, the second convolution ``9 N H^2`` = 59.0, the third 0.5. The
first convolution over the concatenated maps would be ``9 N (2 * 512) H`` = 236; the query's half is needed once a
query, and the other half goes through the N x N weights, ``9 N^2 H`` = 23.0, plus 118 once a support image. So an
episode with 1 shot (375 pairs, 80 images) needs 33.8 + 9.4 billion multiplications in place of 114, 0.91 s of a core
that does 95 GFLOP a second, and three times that with the backward pass; the foreground enhancement of its images
(``9 N 512^2`` each, 18.9 billion in all) comes to both sides. With 64 channels the aligned map is smaller than the
weights and takes their place: ``N^2 (32 + 64) + 9 N (64 * 32 + 32 * 32)`` = 3.7 million a pair in place of 5.6. Either
way all numbers of a pair are written, and read, once a step: that is what chunks keep in the cache.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from fieldmark.benchmarks.memory import added, tell
from fieldmark.benchmarks.timing import CLOCKS, clock_text, interleaved, make_row, on_both_clocks, on_clock, run_jobs
from fieldmark.heads.spatial_alignment import SpatialAlignment
from fieldmark.shapes import Tensor

WAY, QUERIES, SIDE = 5, 15, 10
TARGET_TIME, TARGET_MEMORY = 1.0, 4.0
#: Channels, shots, training.
CASES = tuple((channels, shots, training) for channels in (64, 512) for shots in (1, 5) for training in (False, True))
SIDES = ("ours", "peer")


def run(repeats: int = 5, cases: tuple[tuple[int, int, bool], ...] = CASES, side: int = SIDE) -> dict[str, Any]:
    """Medians of interleaved repeats, and the memory of one episode of each side.

    Args:
        repeats: Measurements of each side; a side that takes seconds gets fewer.
        cases: (channels, shots, training).
        side: Of the maps.
    """
    jobs = [partial(rows, *case, side, repeats) for case in cases]
    notes = [
        f"{WAY}-way, {QUERIES} queries a class, every part on. cpu: processor time with one thread; wall: all threads.",
        "training: head, loss and all gradients. memory: what one episode adds to the largest size of a fresh process.",
    ]
    return {**run_jobs(jobs), "notes": notes}


def rows(channels: int, shots: int, training: bool, side: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each clock, and one for memory."""
    episodes = {name: Episode(name, channels, shots, training, side) for name in SIDES}
    difference = float((episodes["ours"]() - episodes["peer"]()).abs().max())
    slopes = [_relative(a, b) for a, b in zip(*(one.gradients() for one in episodes.values()), strict=True)]
    times = interleaved(on_both_clocks(episodes), repeats)
    what = f"{'training' if training else 'scoring'}, {channels}x{side}x{side}, {WAY}-way {shots}-shot"
    facts: dict[str, Any] = {"channels": channels, "shots": shots, "training": training, "side": side}
    facts |= {"difference_of_scores": difference, "relative_difference_of_gradients": max(slopes, default=0.0)}
    found = [
        make_row(
            f"{what}, {clock_text(clock)}",
            on_clock(times, "ours", clock),
            on_clock(times, "peer", clock),
            1,
            "episodes/s",
            TARGET_TIME,
            **facts,
            clock=clock,
            threads=torch.get_num_threads() if clock == "wall" else 1,
        )
        for clock in CLOCKS
    ]
    return [*found, memory_row(what, episodes, TARGET_MEMORY if channels == 512 else None, facts)]


def memory_row(what: str, episodes: dict[str, Episode], target: float | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Megabytes an episode adds; the ratio says how many times less ours are."""
    used = {name: measured(episode) for name, episode in episodes.items()}
    row: dict[str, Any] = {"what": f"{what}, memory", "ours": used["ours"], "peer": used["peer"], "unit": "MB"}
    row["ratio"] = used["peer"] / used["ours"]
    return row | ({} if target is None else {"target": target}) | facts | {"clock": "memory"}


class Episode:
    """One side: a call gives the scores, and in training leaves the gradients with maps and head."""

    def __init__(self, name: str, channels: int, shots: int, training: bool, side: int = SIDE) -> None:
        self.given = (name, channels, shots, training, side)
        self.name, self.training = name, training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = SpatialAlignment(foreground="full", reduce=True, manipulation=True)
            self.head.setup(channels)
            assert self.head.manipulate is not None
            torch.nn.init.normal_(self.head.manipulate.last.weight, std=0.01)  # as if it had learned something
            self.maps = torch.randn(1, WAY * (shots + QUERIES), side * side, channels).relu_()
        self.head.train(training)
        self.maps.requires_grad_(training)
        self.labels = torch.arange(WAY).repeat_interleave(shots).unsqueeze(0)
        self.wanted = torch.arange(WAY).repeat_interleave(QUERIES)

    def __call__(self) -> Tensor:
        """The scores."""
        self.maps.grad = None
        self.head.zero_grad()
        shots = self.labels.shape[1]
        score = self.head if self.name == "ours" else partial(materialised, self.head)
        with torch.set_grad_enabled(self.training):
            scores = score(self.maps[:, :shots], self.labels, self.maps[:, shots:], WAY)
            if self.training:
                F.cross_entropy(scores.flatten(0, 1), self.wanted).backward()
        return scores.detach()

    def gradients(self) -> list[Tensor]:
        """What the last call left."""
        leaves = [self.maps, *self.head.parameters()]
        return [leaf.grad for leaf in leaves if leaf.grad is not None]


def materialised(head: SpatialAlignment, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
    """Scores of one episode (classes in order, equal shots) with the maps of all pairs beside each other."""
    assert head.correspond is not None
    assert head.manipulate is not None
    query, support = (one[0] for one in head.enhanced(query, support))
    (queries, places, channels), images = query.shape, len(support)
    side = round(places**0.5)
    keys = [F.normalize(one, dim=-1) for one in head.correspond.reduced(query, support)]
    weights = torch.einsum("qnc,smc->qsnm", *keys).div(head.temperature).softmax(-1)
    aligned = torch.einsum("qsnm,smc->qscn", weights, support).reshape(-1, channels, side, side)
    theirs = query.mT.unsqueeze(1).expand(-1, images, -1, -1).reshape(-1, channels, side, side)
    moved = head.manipulate(aligned, theirs).view(queries, way, images // way, channels, places).mean(2)
    distance = (moved - query.mT.unsqueeze(1)).square().sum(2).mean(-1)
    return -head.scale * distance.unsqueeze(0)


def measured(episode: Episode) -> float:
    """Megabytes that one episode adds to a fresh process."""
    return added("fieldmark.benchmarks.lssa", episode.given)


def _relative(mine: Tensor, other: Tensor) -> float:
    return float((mine - other).abs().max() / other.abs().max().clamp_min(1e-12))


if __name__ == "__main__":
    tell(Episode, warm=lambda name, _first, _second, training, *_: Episode(name, 8, 1, training, 3)())
