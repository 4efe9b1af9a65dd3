"""Copies of a picture: the same pixels in another file, or nearly the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fieldmark.data.check.files import THUMB, Fact
from fieldmark.data.check.report import Problem, Severity

_MOST_PAIRS = 3_000_000  # candidates for near-identical pairs; beyond it the images are all alike, blank for example


def find_copies(facts: dict[str, Fact], where: dict[str, tuple[str, str]]) -> list[Problem]:
    """Files with the same pixels, and then, among one file of each such group, those that almost have."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, fact in facts.items():
        if fact.failure is None:
            groups[fact.digest].append(name)
    problems = [_duplicate(names, where, near=False) for names in groups.values() if len(names) > 1]
    firsts = [names[0] for names in groups.values()]
    pairs, all_alike = _near_pairs([facts[name].thumb for name in firsts], [facts[name].size for name in firsts])
    if all_alike:
        text = "so many images are alike (blank?) that near-identical ones were not looked for"
        problems.append(Problem("note", "near-skipped", firsts[0], text))
    for members in _connected(len(firsts), pairs):
        names = [name for i in members for name in groups[facts[firsts[i]].digest]]
        problems.append(_duplicate(names, where, near=True))
    return problems


def _duplicate(names: Sequence[str], where: dict[str, tuple[str, str]], near: bool) -> Problem:
    word, same = ("near", "almost the same picture") if near else ("duplicate", "the same picture")
    splits = {where[name][0] for name in names}
    classes = {where[name][1] for name in names}
    rest = tuple(names[1:])
    copies = f"{same} as {rest[0]}" + (f" and {len(rest) - 1} more" if len(rest) > 1 else "")
    serious: Severity = "warning" if near else "error"
    if len(splits) > 1:
        text = f"{copies}, in {' and '.join(sorted(splits))}: the test would know the answer; keep one"
        return Problem(serious, f"{word}-across-splits", names[0], text, rest)
    if len(classes) > 1:
        text = f"{copies}, in the classes {', '.join(sorted(classes)[:4])}; keep the right one"
        return Problem(serious, f"{word}-across-classes", names[0], text, rest)
    mild: Severity = "note" if near else "warning"
    return Problem(mild, word, names[0], f"{copies}, in the same class; keep one", rest)


def _near_pairs(thumbs: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, bool]:
    """Pairs of images that look the same after another compression or scaling: ``(P, 2)``; True if there are too many.

    A tree over coarse brightness finds the candidates without comparing all pairs; thumbnails decide.
    """
    from scipy.spatial import cKDTree

    none = np.zeros((0, 2), np.int64)
    if len(thumbs) < 2:
        return none, False
    stack = np.stack(thumbs).astype(np.float32)
    coarse = stack.mean(-1).reshape(-1, 4, THUMB // 4, 4, THUMB // 4).mean((2, 4)).reshape(len(stack), -1)
    tree = cKDTree(coarse)
    if (tree.count_neighbors(tree, 2.0, p=np.inf) - len(stack)) // 2 > _MOST_PAIRS:
        return none, True
    pairs = tree.query_pairs(2.0, p=np.inf, output_type="ndarray")
    keep = np.zeros(len(pairs), bool)
    shape = np.log([width / height for width, height in sizes])
    for start in range(0, len(pairs), 50_000):
        a, b = pairs[start : start + 50_000].T
        difference = np.abs(stack[a] - stack[b]).reshape(len(a), -1)
        alike = (difference.mean(1) < 2.0) & (difference.max(1) < 16.0) & (np.abs(shape[a] - shape[b]) < 0.05)
        keep[start : start + 50_000] = alike
    return pairs[keep], False


def _connected(count: int, pairs: np.ndarray) -> list[list[int]]:
    """Groups of two and more that hang together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
    groups: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(connected_components(graph, directed=False)[1]):
        groups[label].append(i)
    return [members for members in groups.values() if len(members) > 1]
