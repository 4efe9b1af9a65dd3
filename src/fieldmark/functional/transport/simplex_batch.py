"""Batches of transport problems through the simplex kernel: packing, the threads' share, answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types

from fieldmark.functional.transport.order_free import centre_prices
from fieldmark.functional.transport.simplex_kernel import (
    FAR,
    NOTHING,
    OPTIONS,
    begin,
    grow,
    leaves_first,
    optimise,
    potentials,
    replay,
)
from fieldmark.functional.transport.vector import LANES, array_at, fetch_add, take_row

TOLERANCE = 1e-12  # reduced costs above minus this part of the largest cost count as not negative
ALL_DONE, STUCK, NOT_FINITE = 0, 1, 2
RECKONED = 200  # pivots after which the prices, changed by each of them, are reckoned anew from the tree

# What the C functions are handed: the address of an array of these, arrays by their addresses.
SLOTS = 16
(
    COUNT, N, M, KEPT, CHUNK, UNIQUE, COST, SUPPLY, DEMAND, FLOW, PRICES, VALUE, TAKEN, NUMBERS, TREES, STATUS,
) = range(SLOTS)  # fmt: skip


@njit(**OPTIONS)
def pack_weights(supply, demand, a, b, rows, columns):
    """Nodes that have weight, and their weights with the demand scaled to the supply's total; returns both counts."""
    n = 0
    total = 0.0
    for i in range(len(supply)):
        if supply[i] > 0:
            a[n] = supply[i]
            rows[n] = i
            total += a[n]
            n += 1
    m = 0
    other = 0.0
    for j in range(len(demand)):
        if demand[j] > 0:
            b[m] = demand[j]
            columns[m] = j
            other += b[m]
            m += 1
    for j in range(m):
        b[j] *= total / other
    return n, m


@njit(fastmath={"reassoc"}, **OPTIONS)
def is_finite(cost):
    """Whether all costs are finite, told by their sum."""
    total = 0.0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            total += cost[i, j]
    return np.isfinite(total)


@njit(**OPTIONS)
def pack_costs(cost, swap, rows, columns, n, m, width, packed, row_means, row_start, column_means):
    """Costs between the nodes that have weight, each row padded to the width, with the means of rows and columns.

    Returns the largest absolute cost, or NaN where a cost, of whatever node, is not finite.
    """
    whole = n * m == cost.size and not swap
    flat = cost.reshape(cost.size)
    vectors = m // LANES * LANES if whole else 0
    largest = 0.0
    check = 0.0
    for j in range(width):
        column_means[j] = 0.0
    for i in range(n):
        total, most = take_row(flat, i * m, packed, i * width, column_means, vectors)
        largest = max(largest, most)
        for j in range(vectors, m):
            if whole:
                c = np.float64(cost[i, j])
            else:
                c = np.float64(cost[columns[j], rows[i]] if swap else cost[rows[i], columns[j]])
            packed[i * width + j] = c
            column_means[j] += c
            total += c
            largest = max(largest, abs(c))
        for j in range(m, width):
            packed[i * width + j] = FAR
        row_means[row_start + i] = total / m
        check += total
    for j in range(m):
        column_means[j] /= n
    # The costs of nodes without weight matter to nothing, but what is not finite is to be refused.
    good = np.isfinite(check) and (n * m == cost.size or is_finite(cost))
    return largest if good else np.nan


@njit(**OPTIONS)
def price_absent(cost, prices, weighted_supply, weighted_demand):
    """Prices of the nodes without weight: as high as their cheapest partner allows."""
    n, m = cost.shape
    for j in range(m):
        if not weighted_demand[j] > 0:
            prices[n + j] = np.inf
            for i in range(n):
                if weighted_supply[i] > 0:
                    prices[n + j] = min(prices[n + j], cost[i, j] - prices[i])
            if prices[n + j] == np.inf:
                prices[n + j] = 0.0
    for i in range(n):
        if not weighted_supply[i] > 0:
            prices[i] = np.inf
            for j in range(m):
                prices[i] = min(prices[i], cost[i, j] - prices[n + j])


@njit(**OPTIONS)
def unpack(n, m, width, packed, swap, rows, columns, parent, arcs, root, u, v, flow, prices):
    """Write flow and prices of the nodes that have weight; returns the value.

    The constant that can move between the two sides' prices is chosen so that each side accounts for half the value.
    """
    total = 0.0
    for i in range(flow.shape[0]):
        for j in range(flow.shape[1]):
            flow[i, j] = 0.0
    share = 0.0
    weight = 0.0
    for node in range(n + m):
        if node == root:
            continue
        above = parent[node]
        i = node - m if node >= m else above - m
        j = above if node >= m else node
        x = arcs[node]
        total += x * packed[i * width + j]
        share += x * u[i]
        weight += x
        if swap:
            flow[columns[j], rows[i]] = x
        else:
            flow[rows[i], columns[j]] = x
    shift = (total / 2 - share) / weight
    first_rows = flow.shape[0] if swap else 0
    first_columns = 0 if swap else flow.shape[0]
    for i in range(n):
        prices[first_rows + rows[i]] = u[i] + shift
    for j in range(m):
        prices[first_columns + columns[j]] = v[j] - shift
    return total


@njit(**OPTIONS)
def solve_batch(cost, supply, demand, flow, prices, value, slots, chunk, unique, numbers, trees):
    """Solve problems until the counter in the shared slots runs past the last; returns ``ALL_DONE`` or why it stopped.

    Several threads run this on the same arrays: each takes ``chunk`` problems at a time. ``trees`` (K, 2, nodes)
    remembers parents and orders of K problems that are solved again and again, and ``numbers`` says which these are;
    without trees K is 0.
    """
    count, n_all, m_all = cost.shape
    swap = m_all > n_all  # the side with fewer nodes makes the columns: shorter rows and bitsets
    most = max(n_all, m_all)
    fewest = min(n_all, m_all)
    nodes = most + fewest
    most_padded = (most + 7) // 8 * 8
    fewest_padded = (fewest + 7) // 8 * 8
    tags = 63
    while tags < most:
        tags = 2 * tags + 1
    a, b = np.empty(most), np.empty(fewest)
    rows, columns = np.empty(most, np.int64), np.empty(fewest, np.int64)
    packed = np.empty(most * fewest_padded)
    parent, order, choice = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    arcs = np.empty(nodes)
    words_all = (fewest + 63) // 64
    subtree, moved = np.empty(nodes * words_all, np.uint64), np.empty(2 * words_all + 8, np.uint64)
    keys, centre = np.empty(2 * most_padded), np.empty(fewest_padded)
    u, v = np.empty(most), np.zeros(fewest_padded)
    while True:
        first = fetch_add(slots, TAKEN, chunk)
        if first >= count:
            return ALL_DONE
        for problem in range(first, min(first + chunk, count)):
            rows_weight = demand[problem] if swap else supply[problem]
            columns_weight = supply[problem] if swap else demand[problem]
            n, m = pack_weights(rows_weight, columns_weight, a, b, rows, columns)
            if n == 0 or m == 0:  # nothing to move
                if not is_finite(cost[problem]):
                    return NOT_FINITE
                flow[problem] = 0.0
                value[problem] = 0.0
                price_absent(cost[problem], prices[problem], supply[problem], demand[problem])
                continue
            width = (m + 7) // 8 * 8
            words = (m + 63) // 64
            largest = pack_costs(
                cost[problem], swap, rows, columns, n, m, width, packed, keys, (n + 7) // 8 * 8, centre
            )
            if np.isnan(largest):
                return NOT_FINITE
            begin(n, m, words, parent, subtree)
            done = 0
            remember = len(trees) > 0 and n + m == nodes
            if remember and trees[numbers[problem], 0, 0] != NOTHING - 1:
                old = trees[numbers[problem]]
                done = replay(n, m, words, a, b, parent, arcs, subtree, order, old[0], old[1])
            root = grow(
                n, m, width, words, packed, largest, a, b, parent, arcs, subtree, order, done, keys, choice, centre,
                tags,
            )  # fmt: skip
            potentials(m, width, packed, parent, order, n + m - 1, root, v, u)
            limit = 1000 + 20 * n * m
            pivots = optimise(
                n, m, width, words, packed, v, parent, arcs, subtree, moved, order, TOLERANCE * largest, limit
            )
            if pivots < 0:
                return STUCK
            if remember or pivots > RECKONED:
                leaves_first(n + m, parent, root, order, choice)
            if pivots > RECKONED:
                potentials(m, width, packed, parent, order, n + m - 1, root, v, u)
            else:
                for i in range(n):
                    u[i] = packed[i * width + parent[m + i]] - v[parent[m + i]]
            if remember:
                for k in range(nodes):
                    trees[numbers[problem], 0, k] = parent[k]
                    trees[numbers[problem], 1, k] = order[k]
            if unique:
                centre_prices(n, m, width, packed, parent, arcs, root, u, v)
            value[problem] = unpack(
                n, m, width, packed, swap, rows, columns, parent, arcs, root, u, v, flow[problem], prices[problem]
            )
            if n + m < nodes:
                price_absent(cost[problem], prices[problem], supply[problem], demand[problem])


@njit(**OPTIONS)
def enter(slots, kind):
    """Solve what the slots describe; ``kind`` is the type of cost, supply, demand and flow."""
    count, n, m = slots[COUNT], slots[N], slots[M]
    status = solve_batch(
        carray(array_at(slots[COST], kind), (count, n, m)),
        carray(array_at(slots[SUPPLY], kind), (count, n)),
        carray(array_at(slots[DEMAND], kind), (count, m)),
        carray(array_at(slots[FLOW], kind), (count, n, m)),
        carray(array_at(slots[PRICES], types.float64), (count, n + m)),
        carray(array_at(slots[VALUE], types.float64), (count,)),
        slots,
        slots[CHUNK],
        slots[UNIQUE] != 0,
        carray(array_at(slots[NUMBERS], types.int64), (count,)),
        carray(array_at(slots[TREES], types.int32), (slots[KEPT], 2, n + m)),
    )
    if status != ALL_DONE:
        slots[STATUS] = status


def _sources() -> str:
    """A sum over the code that is compiled."""
    names = ("simplex_batch", "simplex_kernel", "order_free", "vector")
    return hashlib.sha256(b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in names)).hexdigest()


def _entry(kind: Any, sources: str) -> Any:
    """The kernel for one type of numbers, as a C function that is compiled once and kept on disk."""

    def solve(data):
        sources  # noqa: B018 - numba renews what it kept when this file or this value changes, not for other files
        enter(carray(data, (SLOTS,)), kind)

    signature = types.void(types.CPointer(types.int64))
    try:
        return cfunc(signature, cache=True)(solve)
    except (RuntimeError, OSError):  # neither beside the package nor in the user's cache: compile in every process
        return cfunc(signature)(solve)


solve_single = _entry(types.float32, _sources())
solve_double = _entry(types.float64, _sources())
