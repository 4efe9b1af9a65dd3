"""Episodes scored a second from cached features: prototypes against easyfsl, logistic regression against scikit-learn.

Both sides get the same 640-d features of 100 made-up classes and do the whole of it: draw the episodes, gather their
features, fit, predict, count. 5-way 5-shot, 15 queries a class. Logistic regression sees five copies of every support
image (125 x 640, SCL's evaluation) and both sides the same episodes; scikit-learn stops at its default tolerance,
within about 5e-4 of the optimal probabilities, ours within about 1e-5.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from fieldmark.benchmarks.timing import in_turn, run_jobs
from fieldmark.errors import MissingExtraError

CLASSES, IMAGES, CHANNELS = 100, 60, 640
WAY, SHOT, QUERIES, COPIES = 5, 5, 15, 5
EPISODES = {
    "prototype": {"ours": 4000, "peer": 200},
    "logistic": {"ours": 400, "peer": 25},
}
TARGETS = {"prototype": 15.0, "logistic": 20.0}
PEERS = {"prototype": "easyfsl", "logistic": "scikit-learn"}


def run(repeats: int = 5) -> dict[str, Any]:
    """Medians of interleaved repeats.

    Args:
        repeats: Measurements of each side.
    """
    features, copies, labels = make_features()
    sides: dict[str, dict[str, Callable[[int], float]]] = {
        "prototype": {
            "ours": lambda count: ours("prototype", features, None, labels, count),
            "peer": lambda count: easyfsl_prototype(features, labels, count),
        },
        "logistic": {
            "ours": lambda count: ours("logistic", features, copies, labels, count),
            "peer": lambda count: scikit_learn_loop(features, copies, labels, count),
        },
    }
    return run_jobs([partial(head_rows, head, pair, repeats) for head, pair in sides.items()])


def head_rows(head: str, pair: dict[str, Callable[[int], float]], repeats: int) -> list[dict[str, Any]]:
    """The row of one head against its peer."""
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    accuracy: dict[str, float] = {}
    for repeat, side in in_turn(pair, repeats + 1):
        count = EPISODES[head][side]
        start = time.perf_counter()
        accuracy[side] = pair[side](count)
        if repeat:  # the first round warms up
            speeds[side].append(count / (time.perf_counter() - start))
    mid = {side: statistics.median(values) for side, values in speeds.items()}
    return [
        {
            "what": f"{head}, {WAY}-way {SHOT}-shot {QUERIES}-query, {CHANNELS}-d, against {PEERS[head]}",
            **mid,
            "unit": "episodes/s",
            "ratio": mid["ours"] / mid["peer"],
            "target": TARGETS[head],
            "accuracy": accuracy,
            "repeats": speeds,
        }
    ]


def make_features() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Features (N, 1, C) after a ReLU, augmented copies (copies, N, 1, C) and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    centres = torch.randn(CLASSES, CHANNELS, generator=generator)
    images = 0.15 * centres[labels] + torch.randn(len(labels), CHANNELS, generator=generator)
    copies = images + 0.5 * torch.randn(COPIES, *images.shape, generator=generator)
    return images.relu().unsqueeze(1), copies.relu().unsqueeze(2), labels


def ours(name: str, features: torch.Tensor, copies: torch.Tensor | None, labels: np.ndarray, count: int) -> float:
    """Accuracy by the library's own path: draw, then score in batches."""
    from fieldmark import heads
    from fieldmark.data import draw_episodes
    from fieldmark.evaluation.few_shot import score_episodes

    episodes = draw_episodes(labels, WAY, SHOT, QUERIES, count, seed=0)
    predicted = score_episodes(heads.create(name), episodes, features, copies, progress=False)
    return float((predicted == episodes.query_labels).mean(1).mean())


def easyfsl_prototype(features: torch.Tensor, labels: np.ndarray, count: int) -> float:
    """Accuracy by easyfsl's `evaluate` over its `FeaturesDataset`."""
    try:
        import easyfsl  # noqa: F401
    except ImportError:
        raise MissingExtraError("easyfsl", "bench", "fieldmark bench episodes") from None
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.methods import PrototypicalNetworks
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate
    from torch import nn
    from torch.utils.data import DataLoader, Sampler

    class Tasks(TaskSampler):
        """easyfsl 1.5.0 hands `data_source` to a base class that no longer takes it."""

        def __init__(self, *arguments: Any) -> None:
            plain, Sampler.__init__ = Sampler.__init__, lambda self, data_source=None: None  # type: ignore[method-assign,misc]
            try:
                super().__init__(*arguments)
            finally:
                Sampler.__init__ = plain  # type: ignore[method-assign]

    data = FeaturesDataset(labels.tolist(), features.squeeze(1), [str(c) for c in range(CLASSES)])
    tasks = Tasks(data, WAY, SHOT, QUERIES, count)
    loader = DataLoader(data, batch_sampler=tasks, collate_fn=tasks.episodic_collate_fn)
    return evaluate(PrototypicalNetworks(nn.Identity()), loader, device="cpu", use_tqdm=False)


def scikit_learn_loop(features: torch.Tensor, copies: torch.Tensor, labels: np.ndarray, count: int) -> float:
    """Accuracy of a loop of fits, as in the official code of RFS and SCL."""
    from sklearn.linear_model import LogisticRegression
    from torch.nn.functional import normalize

    from fieldmark.data import draw_episodes

    episodes = draw_episodes(labels, WAY, SHOT, QUERIES, count, seed=0)
    correct = []
    for index in range(count):
        support = normalize(copies[:, episodes.support[index], 0].flatten(0, 1), dim=-1).numpy()
        query = normalize(features[episodes.query[index], 0], dim=-1).numpy()
        model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=1000, random_state=0)
        model.fit(support, np.tile(episodes.support_labels[index], COPIES))
        correct.append((model.predict(query) == episodes.query_labels[index]).mean())
    return float(np.mean(correct))
