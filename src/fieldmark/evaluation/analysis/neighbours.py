"""What lies next to an image in the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.ranking import pooled_ranking
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.shapes import Float, Tensor


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of some queries.

    Attributes:
        queries: ``(Q,)`` numbers of the images that asked.
        nearest: ``(Q, k)`` numbers of their nearest images, the nearest first; never the query itself.
        similarities: ``(Q, k)`` cosines.
    """

    queries: np.ndarray
    nearest: np.ndarray
    similarities: np.ndarray

    def hits(self, labels: np.ndarray) -> np.ndarray:
        """``(Q, k)`` whether the neighbour is of the query's class."""
        return np.asarray(labels)[self.nearest] == np.asarray(labels)[self.queries][:, None]

    def to_dict(self, labels: np.ndarray) -> dict[str, Any]:
        """As JSON values."""
        return {
            "queries": self.queries.tolist(),
            "nearest": self.nearest.tolist(),
            "similarities": self.similarities.round(6).tolist(),
            "hits": self.hits(labels).tolist(),
        }


def nearest_neighbours(features: Float[Tensor, "M C"], queries: np.ndarray, count: int = 8) -> Neighbours:
    """The images of largest cosine to each query, among all others.

    Source: SCL (Ouali et al. 2021), Figs. 2a and E.1.

    Args:
        features: One vector an image.
        queries: Numbers of the images that ask.
        count: Neighbours of each; no more than there are other images.

    Raises:
        FieldmarkError: For a count or a query out of range.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> nearest_neighbours(features, np.array([0]), 2).nearest
        array([[1, 2]])
    """
    if not 1 <= count < len(features):
        raise FieldmarkError(f"{count} neighbours of {len(features)} images; expected 1 to {len(features) - 1}")
    queries = np.asarray(queries, dtype=np.int64)
    if queries.ndim != 1 or not len(queries) or queries.min() < 0 or queries.max() >= len(features):
        raise FieldmarkError(f"queries must be numbers of images, 0 to {len(features) - 1}; at least one")
    unit = l2_normalise(features)
    asked = torch.from_numpy(queries).to(unit.device)
    nearest = pooled_ranking(unit, asked, count)
    similarities = torch.linalg.vecdot(unit[nearest], unit[asked].unsqueeze(1))
    return Neighbours(queries, nearest.cpu().numpy(), similarities.cpu().numpy())


def choose_queries(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Numbers of some images: of as many classes as possible, drawn at random.

    Args:
        labels: Class of each image.
        count: How many; no more than there are images.
        seed: Of the draw.

    Example:
        >>> np.asarray([0, 0, 1, 1])[choose_queries(np.asarray([0, 0, 1, 1]), 2)].tolist() in ([0, 1], [1, 0])
        True
    """
    labels = np.asarray(labels)
    if not 1 <= count <= len(labels):
        raise FieldmarkError(f"{count} queries of {len(labels)} images; expected 1 to {len(labels)}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    # An image's turn: how many of its class come before it; a first one of every class before any second one.
    turns = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turns[mine] = np.arange(len(mine))
    return order[np.argsort(turns[order], kind="stable")][:count]
