"""Which photos of every class are enrolled and which are asked about, drawn several times."""

from __future__ import annotations

import numpy as np

from fieldmark.data import EpisodeIndex
from fieldmark.errors import FieldmarkError


def draw_supports(
    labels: np.ndarray,
    shot: int,
    queries: int | None = None,
    draws: int = 5,
    seed: int = 0,
    query_labels: np.ndarray | None = None,
) -> EpisodeIndex:
    """All classes, up to ``shot`` support images of each, drawn so that fewer shots are a part of more.

    Args:
        labels: ``(N,)`` class numbers.
        shot: Support images a class; of a class with fewer all there are (all but one where the queries are from here).
        queries: Images to ask about, a class, the same for every shot; None: all others.
        draws: How many.
        seed: Of the draws.
        query_labels: ``(M,)`` class numbers of other images that the queries are drawn from.

    Raises:
        FieldmarkError: For numbers below 1, fewer than two classes, or a class without images for both.

    Example:
        >>> one, two = (draw_supports(np.array([0, 0, 0, 1, 1]), shot, draws=1) for shot in (1, 2))
        >>> set(one.support[0]) <= set(two.support[0]), two.support_labels.tolist(), two.query.shape
        (True, [[0, 0, 1]], (1, 2))
    """
    for name, value in (("shot", shot), ("draws", draws), ("queries", queries)):
        if value is not None and value < 1:
            raise FieldmarkError(f"{name} is {value}; expected at least 1")
    own, labels = query_labels is None, np.asarray(labels)
    asked = labels if query_labels is None else np.asarray(query_labels)
    classes = np.intersect1d(labels, asked)
    if len(classes) < 2:
        raise FieldmarkError(f"support and queries have {len(classes)} classes in common; expected at least 2")
    pools = [np.flatnonzero(labels == label) for label in classes]
    others = pools if own else [np.flatnonzero(asked == label) for label in classes]
    if own and min(map(len, pools)) < 2:
        raise FieldmarkError("a class has one image; expected two: one to learn from, one to ask about")
    support: list[list[np.ndarray]] = []
    query: list[list[np.ndarray]] = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        orders = [rng.permutation(pool) for pool in pools]
        asked_orders = orders if own else [rng.permutation(pool) for pool in others]
        kept = [min(queries or 1, len(order) - 1) if own else 0 for order in orders]
        support.append([order[: min(shot, len(order) - keep)] for order, keep in zip(orders, kept, strict=True)])
        taken = [len(one) if own else 0 for one in support[-1]]
        query.append([
            order[start:] if queries is None else order[max(start, len(order) - queries) :]
            for order, start in zip(asked_orders, taken, strict=True)
        ])  # fmt: skip
    return EpisodeIndex(
        classes=np.tile(classes, (draws, 1)),
        support=np.stack([np.concatenate(one) for one in support]),
        support_labels=np.tile(np.repeat(np.arange(len(classes)), [len(one) for one in support[0]]), (draws, 1)),
        query=np.stack([np.concatenate(one) for one in query]),
        query_labels=np.tile(np.repeat(np.arange(len(classes)), [len(one) for one in query[0]]), (draws, 1)),
        facts={"way": len(classes), "shot": shot, "queries": queries, "draws": draws, "seed": seed},
    )
