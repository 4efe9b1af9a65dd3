"""Prices that do not depend on the order of the nodes, where the optimum leaves a choice."""

from __future__ import annotations

import numpy as np
from numba import njit

from fieldmark.functional.transport.simplex_kernel import OPTIONS

EMPTY = 1e-12  # arcs with less than this part of the whole flow carry nothing but rounding


@njit(**OPTIONS)
def find(group, node):
    """Representative of a node's component, halving the path to it."""
    while group[node] != node:
        group[node] = group[group[node]]
        node = group[node]
    return node


@njit(**OPTIONS)
def components(nodes, parent, arcs, root, group):
    """Number of parts that are joined by arcs with flow; ``group`` becomes each node's part."""
    total = 0.0
    for node in range(nodes):
        group[node] = node
        if node != root:
            total += arcs[node]
    for node in range(nodes):
        if node != root and arcs[node] > EMPTY * total:
            group[find(group, node)] = find(group, parent[node])
    count = 0
    names = np.full(nodes, -1, np.int64)
    for node in range(nodes):
        top = find(group, node)
        if names[top] < 0:
            names[top] = count
            count += 1
    for node in range(nodes):
        group[node] = find(group, node)
    for node in range(nodes):
        group[node] = names[group[node]]
    return count


@njit(**OPTIONS)
def centre_prices(n, m, width, cost, parent, arcs, root, u, v):
    """Shift the prices of each part to the middle of what keeps all reduced costs from being negative.

    At a degenerate optimum the arcs with flow do not join all nodes: the prices of one part can move against those of
    another, and the simplex leaves them wherever its last tree put them, which depends on the order of the nodes. With
    ``w_pq`` the smallest reduced cost from rows of p to columns of q and d its shortest distances, every ``d(., r)``
    and ``-d(r, .)`` is a valid shift; their mean over all r knows no order. Every such price is a subgradient.
    """
    group = np.empty(n + m, np.int64)
    count = components(n + m, parent, arcs, root, group)
    if count == 1:
        return
    distance = np.full((count, count), np.inf)
    for i in range(n):
        p = group[m + i]
        for j in range(m):
            reduced = max(cost[i * width + j] - u[i] - v[j], 0.0)
            q = group[j]
            if reduced < distance[p, q]:
                distance[p, q] = reduced
    for p in range(count):
        distance[p, p] = 0.0
    for k in range(count):
        for p in range(count):
            through = distance[p, k]
            for q in range(count):
                distance[p, q] = min(distance[p, q], through + distance[k, q])
    shift = np.zeros(count)
    for p in range(count):
        for r in range(count):
            shift[p] += (distance[p, r] - distance[r, p]) / (2 * count)
    for i in range(n):
        u[i] += shift[group[m + i]]
    for j in range(m):
        v[j] -= shift[group[j]]
