"""Transportation simplex on a spanning tree whose subtrees are bitsets, compiled by numba.

Nodes: columns 0 .. m-1, rows m .. m+n-1; the tree's root is a column. Of every other node it holds the parent, the
flow on the arc to the parent, and the set of columns in its subtree as 64-bit words. Only the columns' potentials v are
kept: a row's is ``cost[row, parent] - v[parent]``, so that arcs to parents have reduced cost exactly 0.
What was measured, and what lost: docs/decisions/0005.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fieldmark.functional.transport.vector import (
    add_where,
    item,
    least,
    least_difference,
    least_tagged,
    place_of,
    put,
    tag_of,
    tagged,
)

BLOCK, FEW = 8, 64  # rows priced before the best of them enters; half as many where there are more than a few
NOTHING = -1
AWAY = 1e-290
FAR = 1e300  # beyond every cost; not infinite, as a number with a tag must stay one


OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


@njit(forceinline=True, **OPTIONS)
def join(subtree, under, node, words):
    """Add a node's subtree to that of the node it is hung under."""
    for w in range(words):
        subtree[under * words + w] |= subtree[node * words + w]


@njit(**OPTIONS)
def begin(n, m, words, parent, subtree):
    """A forest of single nodes."""
    for node in range(m + n):
        parent[node] = NOTHING
        for w in range(words):
            subtree[node * words + w] = np.uint64(0)
    for column in range(m):
        subtree[column * words + (column >> 6)] = np.uint64(1) << np.uint64(column & 63)


@njit(**OPTIONS)
def replay(n, m, words, supply, demand, parent, flow, subtree, order, old_parent, old_order):
    """Hang again, leaves first, the nodes of an earlier tree whose arcs still can carry what is left at them.

    All but the last row, under which :func:`finish` hangs what rounding has left over. Returns how many; ``order`` and
    the rest are as :func:`grow` leaves them, which goes on from here.
    """
    done = 0
    rows = n
    for k in range(m + n - 1):
        node = old_order[k]
        above = old_parent[node]
        if node >= m:
            # Strictly less: a column that keeps nothing would later be hung by an arc without flow (see `grow`).
            if rows == 1 or supply[node - m] >= demand[above]:
                continue
            rows -= 1
            flow[node] = supply[node - m]
            demand[above] -= flow[node]
        else:
            if demand[node] > supply[above - m]:
                continue
            flow[node] = demand[node]
            supply[above - m] -= flow[node]
        parent[node] = above
        join(subtree, above, node, words)
        order[done] = node
        done += 1
    return done


@njit(**OPTIONS)
def grow(
    n, m, width, words, cost, largest, supply, demand, parent, flow, subtree, order, done, keys, choice, centre, tags
):
    """Complete the tree by the matrix minimum of the double-centred cost; uses up supply and demand.

    Each step takes the cheapest pair and hangs the one that runs out under the other; it is a leaf at that moment,
    so its subtree is complete and ``order`` (leaves first) comes free. On a tie the column goes: arcs without flow
    then lead from a row up to a column, which is what keeps :func:`pivot` from cycling. Returns the root.
    """
    rows = n
    columns = m
    padded = (n + 7) // 8 * 8
    # Far from 0: the tag of a 0 would be a denormal number, which the processor may be set to take for 0.
    away = max(4 * largest, AWAY)
    for j in range(m):
        centre[j] -= away
    for k in range(done):
        if order[k] < m:
            centre[order[k]] = -FAR
            columns -= 1
        else:
            rows -= 1
    for i in range(n, padded):
        keys[i] = FAR
    for i in range(n):
        if parent[m + i] != NOTHING:
            keys[i] = FAR
            continue
        nearest = least_tagged(cost, i * width, centre, width, tags)
        choice[i] = tag_of(nearest, tags)
        keys[i] = tagged(nearest - keys[padded + i], i, tags)
    while rows > 1 and columns > 1:
        i = tag_of(least(keys, padded), tags)
        j = item(choice, i)
        left = item(demand, j)
        if item(centre, j) > -FAR:
            offer = item(supply, i)
            row_goes = offer < left
            node = m + i if row_goes else j
            above = j if row_goes else m + i
            flow[node] = offer if row_goes else left
            parent[node] = above
            for w in range(words):
                subtree[above * words + w] |= item(subtree, node * words + w)
            order[done] = node
            done += 1
            if row_goes:
                demand[j] = left - offer
                put(keys, i, FAR)
                rows -= 1
                continue
            supply[i] = offer - left
            put(centre, j, -FAR)
            columns -= 1
        nearest = least_tagged(cost, i * width, centre, width, tags)
        choice[i] = tag_of(nearest, tags)
        put(keys, i, tagged(nearest - item(keys, padded + i), i, tags))
    return finish(n, m, words, rows, supply, demand, parent, flow, subtree, order, done)


@njit(**OPTIONS)
def finish(n, m, words, rows, supply, demand, parent, flow, subtree, order, done):
    """Hang the rest when one column or one row is left; rounding goes into the last arcs. Returns the root."""
    root = NOTHING
    last = NOTHING
    for i in range(n):
        if parent[m + i] == NOTHING:
            last = m + i
    if rows == 1:  # its columns, all but the one that becomes the root
        for j in range(m):
            if parent[j] == NOTHING:
                if root != NOTHING:
                    parent[root] = last
                    flow[root] = demand[root]
                    supply[last - m] -= demand[root]
                    join(subtree, last, root, words)
                    order[done] = root
                    done += 1
                root = j
    else:
        for j in range(m):
            if parent[j] == NOTHING:
                root = j
    for i in range(n):
        if parent[m + i] == NOTHING:
            parent[m + i] = root
            flow[m + i] = max(supply[i], 0.0) if rows > 1 else max(demand[root], 0.0)
            join(subtree, root, m + i, words)
            order[done] = m + i
            done += 1
    return root


@njit(**OPTIONS)
def potentials(m, width, cost, parent, order, count, root, v, u):
    """Prices of all nodes from the tree, root first, with 0 at the root."""
    v[root] = 0.0
    for k in range(count - 1, -1, -1):
        node = order[k]
        above = parent[node]
        if node >= m:
            u[node - m] = cost[(node - m) * width + above] - v[above]
        else:
            v[node] = cost[(above - m) * width + node] - u[above - m]


@njit(**OPTIONS)
def leaves_first(nodes, parent, root, order, depth):
    """Fill ``order`` with all nodes but the root, every node before the one it hangs under."""
    for node in range(nodes):
        depth[node] = 0
    for node in range(nodes):
        if node != root:
            depth[parent[node]] += 1  # children that are still to come
    count = 0
    for node in range(nodes):
        if node != root and depth[node] == 0:
            order[count] = node
            count += 1
    k = 0
    while k < count:
        above = parent[order[k]]
        depth[above] -= 1
        if depth[above] == 0 and above != root:
            order[count] = above
            count += 1
        k += 1


@njit(**OPTIONS)
def optimise(n, m, width, words, cost, v, parent, flow, subtree, moved, path, tolerance, limit):
    """Pivots until no row has a negative reduced cost; returns their number, or -1 at the limit."""
    pivots = 0
    clean = 0
    row = 0
    block = BLOCK if n <= FEW else BLOCK // 2
    while clean < n:
        best = -tolerance
        enter = NOTHING
        lowest = 0.0
        stop = min(row + block, n)
        for i in range(row, stop):
            above = item(parent, m + i)
            price = item(cost, i * width + above) - item(v, above)
            nearest = least_difference(cost, i * width, v, width)
            if nearest - price < best:
                best = nearest - price
                lowest = nearest
                enter = i
        clean += stop - row
        row = stop if stop < n else 0
        if enter == NOTHING:
            continue
        clean = 0
        column = place_of(cost, enter * width, v, width, lowest)
        pivot(m, width, words, enter, column, best, v, parent, flow, subtree, moved, path)
        pivots += 1
        if pivots >= limit:
            return -1
    return pivots


@njit(forceinline=True, **OPTIONS)
def pivot(m, width, words, enter, column, reduced, v, parent, flow, subtree, moved, path):
    """Bring the arc from a row to a column into the tree, and the first that runs empty out of it.

    Of several the last on the cycle, seen from its top along the new arc's direction (Cunningham 1976): strict on the
    row's side, which is climbed against that direction, not strict on the column's. The nodes below the top are
    noted in ``path`` in one climb, the row's side first.
    """
    theta = np.inf
    leave = NOTHING
    node = m + enter
    word = column >> 6
    bit = np.uint64(1) << np.uint64(column & 63)
    length = 0
    while item(subtree, node * words + word) & bit == np.uint64(0):
        if node >= m and item(flow, node) < theta:
            theta = item(flow, node)
            leave = length
        path[length] = node
        length += 1
        node = item(parent, node)
    top = node
    row_length = length
    node = column
    while node != top:
        if node < m and item(flow, node) <= theta:
            theta = item(flow, node)
            leave = length
        path[length] = node
        length += 1
        node = item(parent, node)
    rows_side = leave < row_length
    # The side that is cut: from its end up to the leaving node the arcs turn round.
    first = 0 if rows_side else row_length
    end = row_length if rows_side else length
    gone = path[leave]
    for w in range(words):
        moved[w] = item(subtree, gone * words + w)
        moved[words + w] = np.uint64(0)
    above = column if rows_side else m + enter
    carried = theta
    # Arcs of the new arc's own kind (even places) lose, the others gain.
    change = -theta
    for k in range(first, leave + 1):
        node = item(path, k)
        parent[node] = above
        old_flow = item(flow, node) + change
        flow[node] = carried
        carried = old_flow
        change = -change
        for w in range(words):
            old = item(subtree, node * words + w)
            subtree[node * words + w] = moved[w] & ~moved[words + w]
            moved[words + w] = old
        above = node
    for k in range(leave + 1, end):
        node = item(path, k)
        flow[node] += change
        change = -change
        for w in range(words):
            subtree[node * words + w] &= ~moved[w]
    change = -theta
    for k in range(row_length if rows_side else 0, length if rows_side else row_length):
        node = item(path, k)
        flow[node] += change
        change = -change
        for w in range(words):
            subtree[node * words + w] |= moved[w]
    add_where(v, moved, -reduced if rows_side else reduced, width)
