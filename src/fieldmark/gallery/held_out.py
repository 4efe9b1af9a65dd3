"""Scores of support photos as if they were new ones: of photos that were left out, and of classes that were.

Nothing is encoded again. Held-out photos: one run leaves out one photo of every class that has two or more, and as many
runs as the largest class has photos leave out every photo once. So every class gives up the same, and a calibration
is not tilted against the photo's own class, as it is where one photo alone is left out. Strangers: a fifth of the
classes is left out at a time, and their photos are scored against the rest; that is what a photo of no enrolled class
looks like, and it needs no second photo of a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fieldmark.shapes import Int, Tensor

Score = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""From numbers of support photos ``(S,)``, their classes ``(S,)``, numbers of queries ``(Q,)`` and the way to scores
``(Q, way)``."""

RUNS = 20
"""At most so many runs for the held-out photos; classes with more photos leave out several in each."""

GROUPS = 5
"""Groups of classes for the strangers."""


@dataclass(frozen=True)
class HeldOut:
    """Scores of photos that were no part of the support set they were scored against.

    Attributes:
        scores: ``(n, way)``; minus infinity for classes that were left out.
        labels: ``(n,)`` their true classes.
        index: ``(n,)`` which of the support photos they are.
    """

    scores: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def photo_runs(labels: Int[np.ndarray, " S"], runs: int = RUNS) -> list[np.ndarray]:
    """Which photos each run leaves out: every photo of a class with two or more exactly once, never a whole class.

    Args:
        labels: Classes of the support photos.
        runs: At most so many runs, 2 or more.

    Example:
        >>> [run.tolist() for run in photo_runs(np.array([0, 0, 0, 1, 1, 2]))]
        [[0, 3], [1, 4], [2]]
    """
    classes, counts = np.unique(labels, return_counts=True)
    parts = min(runs, int(counts.max(initial=0)))
    out: list[list[int]] = [[] for _ in range(parts)]
    for label, count in zip(classes, counts, strict=True):
        if count > 1:
            for rank, photo in enumerate(np.flatnonzero(labels == label)):
                out[rank % parts].append(int(photo))
    return [np.array(sorted(run)) for run in out if run]


def class_groups(way: int, groups: int = GROUPS) -> list[np.ndarray]:
    """Which classes each run leaves out: every class once, at least one stays; none if there is a single class.

    Example:
        >>> [group.tolist() for group in class_groups(5, 2)], class_groups(1)
        ([[0, 2, 4], [1, 3]], [])
    """
    parts = min(groups, way) if way > 1 else 0
    return [np.arange(start, way, parts) for start in range(parts)]


def held_out_photos(score: Score, labels: Int[Tensor, " S"], way: int, runs: int = RUNS) -> HeldOut:
    """Every photo of a class with two or more, scored against a support set without it.

    Args:
        score: Scores queries; see :data:`Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes.
        runs: At most so many calls.
    """
    everything = torch.arange(len(labels))
    parts = []
    for left in (torch.from_numpy(run) for run in photo_runs(labels.cpu().numpy(), runs)):
        stay = everything[~torch.isin(everything, left)]
        parts.append((score(stay, labels[stay], left, way), left))
    return _joined(parts, labels, way)


def strangers(score: Score, labels: Int[Tensor, " S"], way: int, groups: int = GROUPS) -> HeldOut:
    """Every photo, scored against the classes of the other groups: it belongs to none of these.

    Args:
        score: Scores queries; see :data:`Score`.
        labels: Classes of the support photos, 0 to way - 1.
        way: Number of classes; with a single one there are no strangers.
        groups: Number of calls.
    """
    parts = []
    for left in (torch.from_numpy(group) for group in class_groups(way, groups)):
        away = torch.isin(labels, left)
        stay = torch.arange(way)[~torch.isin(torch.arange(way), left)]
        number = torch.full((way,), -1).index_put((stay,), torch.arange(len(stay)))
        support = torch.nonzero(~away).flatten()
        index = torch.nonzero(away).flatten()
        found = score(support, number[labels[support]], index, len(stay))
        scores = found.new_full((len(index), way), -torch.inf)
        scores[:, stay] = found
        parts.append((scores, index))
    return _joined(parts, labels, way)


def _joined(parts: list[tuple[Tensor, Tensor]], labels: Tensor, way: int) -> HeldOut:
    if not parts:
        none = torch.empty(0, dtype=torch.int64)
        return HeldOut(torch.empty(0, way), none, none)
    index = torch.cat([photos for _, photos in parts])
    return HeldOut(torch.cat([scores for scores, _ in parts]).float(), labels[index], index)
