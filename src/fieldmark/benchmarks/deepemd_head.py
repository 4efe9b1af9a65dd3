"""DeepEMD's heads on cached features, 5-way, 15 queries a class, 5x5 places x 640: episodes a second.

Features are EfficientNet-Lite0's of images at 160 pixels, every second of its 1280 channels. Ours is the library's own
path (gather, score, count). Two peers each: the official code's formulas with their memory, measured in the same run
(one step of the structured layer, times 700), and what the official code itself was recorded to take on two cores of
another machine: 1.96 s for a 1-shot episode, about 120 s for a 5-shot episode whose structured layer takes 700 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fieldmark import functional, heads
from fieldmark.benchmarks.timing import CLOCKS, clock_text, interleaved, make_row, on_both_clocks, on_clock
from fieldmark.benchmarks.transport_peers import official_head
from fieldmark.benchmarks.transport_problems import Pictures
from fieldmark.data import EpisodeIndex, draw_episodes
from fieldmark.evaluation.few_shot import score_episodes
from fieldmark.shapes import Tensor

WAY, QUERIES, SIDE, STRIDE = 5, 15, 5, 2
CLASSES, IMAGES = 8, 20
EPISODES = {"emd": 20, "structured_fc": 1}
RECORDED = {"emd": 1.96, "structured_fc": 120.0}
TARGETS = {"emd": 80.0, "structured_fc": 40.0}
STEPS, BATCH, RATE = 700, 4, 100.0


def jobs(source: Pictures, repeats: int) -> list[Any]:
    """One measurement for each head."""
    features = lru_cache(1)(partial(make_features, source))
    return [partial(emd_rows, features, source, repeats), partial(structured_rows, features, source, repeats)]


def make_features(source: Pictures) -> tuple[Tensor, np.ndarray]:
    """Descriptors (B, 25, 640) of 20 images of each of 8 classes, and labels (B,)."""
    labels = source.store.labels
    chosen = np.concatenate([np.flatnonzero(labels == label)[:IMAGES] for label in np.unique(labels)[:CLASSES]])
    maps = source.encode(chosen, SIDE)[:, ::STRIDE]
    return maps.flatten(2).transpose(1, 2).contiguous(), labels[chosen]


def emd_rows(features: Callable[[], Any], source: Pictures, repeats: int) -> list[dict[str, Any]]:
    """1-shot."""
    sets, labels = features()
    episodes = draw_episodes(labels, WAY, 1, QUERIES, EPISODES["emd"], seed=0)
    query, support = sets[episodes.query[0]], sets[episodes.support[0][np.argsort(episodes.support_labels[0])]]
    head = heads.create("emd")
    sides = {
        "ours": lambda: score_episodes(head, episodes, sets, progress=False),
        "peer": lambda: official_head(query, support),
    }
    error = functional.emd_similarity(query, support) - official_head(query, support)
    return _rows("emd", 1, source, repeats, sides, 1, largest_difference_of_a_logit=float(error.abs().max()))


def structured_rows(features: Callable[[], Any], source: Pictures, repeats: int) -> list[dict[str, Any]]:
    """5-shot."""
    sets, labels = features()
    episodes = draw_episodes(labels, WAY, 5, QUERIES, EPISODES["structured_fc"], seed=0)
    head = heads.create("structured_fc")
    step = official_step(sets, episodes)
    sides = {"ours": lambda: score_episodes(head, episodes, sets, progress=False), "peer": step}
    return _rows("structured_fc", 5, source, repeats, sides, STEPS)


def _rows(
    name: str, shot: int, source: Pictures, repeats: int, calls: dict[str, Any], steps: int, **facts: Any
) -> list[dict[str, Any]]:
    """Against the formulas (a call is one of ``steps``), and against the record."""
    times = interleaved(on_both_clocks(calls), repeats)
    text = "the official formulas" if steps == 1 else f"{steps} steps of the official formulas"
    peers = [(text, clock, [steps * seconds for seconds in on_clock(times, "peer", clock)]) for clock in CLOCKS]
    peers.append(("the official code (quoted: recorded, other hardware)", "wall", [RECORDED[name]]))
    return [
        make_row(
            f"head {name}, {WAY}-way {shot}-shot {QUERIES}-query, 25 x 640, {source.images}, {clock_text(clock)};"
            f" against {peer}",
            [seconds / EPISODES[name] for seconds in on_clock(times, "ours", clock)],
            theirs,
            1,
            "episodes/s",
            TARGETS[name] if "quoted" in peer else None,
            case="head",
            images=source.images,
            clock=clock,
            threads=torch.get_num_threads() if clock == "wall" else 1,
            against=peer,
            quoted="quoted" in peer,
            **facts,
        )
        for peer, clock, theirs in peers
    ]


def official_step(sets: Tensor, episodes: EpisodeIndex) -> Callable[[], None]:
    """One SGD step of the structured layer by the official formulas: four support images, flows as constants."""
    support, labels = sets[episodes.support[0]], torch.from_numpy(episodes.support_labels[0])
    mean = torch.stack([support[labels == label].mean(0) for label in range(WAY)])
    layer = mean.requires_grad_()
    optimizer = torch.optim.SGD([layer], RATE, momentum=0.9, dampening=0.9)
    images, classes = support[:BATCH], labels[:BATCH]

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(official_head(images, layer), classes).backward()
        optimizer.step()

    return step
