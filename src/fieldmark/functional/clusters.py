"""Clusters of the local descriptors of many images at once.

Both algorithms run in the space of inner products: a centre is always a mean of nodes, so every distance they need
follows from the products of the nodes with each other, and no iteration touches the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Bool, Float, Int, Tensor

# Products of nodes held at a time.
_BYTES_AT_ONCE = 16 * 2**20
# Channels that decide between centres with equally many nodes.
_CHANNELS_OF_ORDER = 16


class Clusters(NamedTuple):
    """The clusters of every set; those that a set does not need have size 0.

    Attributes:
        means: ``(B, K, C)`` mean of the members; differentiable, the membership is a constant.
        sizes: ``(B, K)`` number of members, in the type of the means.
        labels: ``(B, N)`` cluster of each node; -1 for padding.
    """

    means: Float[Tensor, "B K C"]
    sizes: Float[Tensor, "B K"]
    labels: Int[Tensor, "B N"]


def kmeans(
    sets: Float[Tensor, "B N C"],
    clusters: int,
    *,
    restarts: int = 10,
    iterations: int = 300,
    seed: int = 0,
    real: Bool[Tensor, "B N"] | None = None,
) -> Clusters:
    """k-means of every set: the best of several runs of Lloyd's algorithm from k-means++ starts.

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (greedy, as in scikit-learn); "K-means" in DeepEMD's Table 2. In
    the best run single nodes then change clusters while that helps (Hartigan & Wong 1979), which scikit-learn does not
    do: with few nodes a cluster Lloyd's updates alone stop early. The random numbers are the same for every set, so
    that its clusters do not depend on the other sets. Clusters are numbered in the order of their first nodes.

    Args:
        sets: N nodes each.
        clusters: How many; sets with fewer nodes get one a node.
        restarts: Starts, of which the one with the smallest sum of squared distances wins.
        iterations: Most updates of a run; it stops before when nothing changes.
        seed: Seed of the starts.
        real: Which nodes exist; the others are padding.

    Raises:
        FieldmarkError: For numbers below 1.

    Example:
        >>> found = kmeans(torch.tensor([[[0.0], [1.0], [10.0]]]), 2)
        >>> sorted(zip(found.means[0, :, 0].tolist(), found.sizes[0].tolist()))
        [(0.5, 2.0), (10.0, 1.0)]
    """
    if min(clusters, restarts, iterations) < 1:
        raise FieldmarkError(
            f"clusters, restarts and iterations of kmeans are {clusters}, {restarts} and {iterations};"
            " expected at least 1"
        )
    clusters = min(clusters, sets.shape[1])

    def labels_of(products: Tensor, real: Tensor, _: Tensor) -> Tensor:
        # Each set draws the same numbers, so every part of the batch starts the generator anew.
        generator = torch.Generator().manual_seed(seed)
        return _lloyd(products, real, clusters, restarts, iterations, generator)

    if clusters == 1 or (clusters == sets.shape[1] and real is None):
        return _clusters(sets, _special(sets, real, one=clusters == 1), clusters)
    return _clusters(sets, _in_parts(sets, real, labels_of, restarts * clusters), clusters)


def mean_shift(
    sets: Float[Tensor, "B N C"],
    bandwidth: float | None = None,
    *,
    iterations: int = 300,
    real: Bool[Tensor, "B N"] | None = None,
) -> Clusters:
    """Mean shift of every set, with a flat kernel and every node as a seed.

    Source: Comaniciu & Meer 2002, as in scikit-learn's ``MeanShift`` (whose labels it gives); "Mean-shift" in DeepEMD's
    Table 2. A node of the matching is the mean of the members, not the peak that attracted them.

    Args:
        sets: N nodes each.
        bandwidth: Radius of the kernel. None: estimated for every set as scikit-learn's ``estimate_bandwidth`` does
            (mean distance to the node at 30% of the nodes, by distance). 0: every node is its cluster. Infinity: one.
        iterations: Most moves of a seed.
        real: Which nodes exist; the others are padding.

    Raises:
        FieldmarkError: For a negative bandwidth or less than one iteration.

    Example:
        >>> found = mean_shift(torch.tensor([[[0.0], [1.0], [10.0]]]), 2.0)
        >>> found.means[0, :, 0], found.sizes[0]
        (tensor([ 0.5000, 10.0000]), tensor([2., 1.]))
    """
    if iterations < 1 or (bandwidth is not None and not bandwidth >= 0):
        raise FieldmarkError(
            f"bandwidth and iterations of mean_shift are {bandwidth} and {iterations};"
            " expected 0 or more (or None) and at least 1"
        )
    if bandwidth in (0, math.inf):
        return _clusters(sets, _special(sets, real, one=bandwidth != 0))

    def labels_of(products: Tensor, real: Tensor, order: Tensor) -> Tensor:
        squares = _squared_distances(products)
        radius = _estimated(squares, real) if bandwidth is None else squares.new_full((len(squares),), bandwidth)
        return _shift(products, squares, real, order, radius, iterations)

    return _clusters(sets, _in_parts(sets, real, labels_of, 3 * sets.shape[1]))


def cluster_count(sizes: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """How many clusters each set has; the mean over images is mK of DeepEMD's Table 2.

    Example:
        >>> cluster_count(torch.tensor([[3.0, 1.0], [4.0, 0.0]])).mean()
        tensor(1.5000)
    """
    return (sizes > 0).sum(-1).to(sizes)


def _clusters(sets: Tensor, labels: Tensor, clusters: int | None = None) -> Clusters:
    """Means and sizes of labelled nodes; as many clusters as the set with most of them has, unless told."""
    if clusters is None:
        clusters = max(1, int(labels.max()) + 1) if labels.numel() else 1
    members = _members(labels, clusters, sets.dtype)
    sizes = members.sum(1)
    return Clusters(members.mT @ sets / sizes.clamp_min(1).unsqueeze(-1), sizes, labels)


def _members(labels: Tensor, clusters: int, dtype: torch.dtype) -> Tensor:
    """(*, N) -> (*, N, K) of 0 and 1; a label of -1 belongs nowhere."""
    return (labels.unsqueeze(-1) == torch.arange(clusters, device=labels.device)).to(dtype)


def _special(sets: Tensor, real: Tensor | None, *, one: bool) -> Tensor:
    """All nodes in one cluster, or each in its own."""
    exists = sets.new_ones(sets.shape[:2], dtype=torch.bool) if real is None else real
    own = torch.zeros_like(exists, dtype=torch.long) if one else exists.cumsum(1) - 1
    return own.masked_fill(~exists, -1)


@torch.no_grad()
def _in_parts(
    sets: Tensor, real: Tensor | None, labels_of: Callable[[Tensor, Tensor, Tensor], Tensor], width: int
) -> Tensor:
    """Labels from the products of the nodes of each set, some sets at a time."""
    batch, nodes = sets.shape[:2]
    exists = sets.new_ones((batch, nodes), dtype=torch.bool) if real is None else real
    step = max(1, _BYTES_AT_ONCE // (8 * nodes * max(nodes, width)))
    out = torch.empty((batch, nodes), dtype=torch.long, device=sets.device)
    for start in range(0, batch, step):
        part = slice(start, start + step)
        values, mask = sets[part].double(), exists[part]
        # Products around the mean lose fewer digits in the distances.
        values = (values - _masked_mean(values, mask)) * mask.unsqueeze(-1)
        found = labels_of(values @ values.mT, mask, sets[part, :, :_CHANNELS_OF_ORDER].double())
        out[part] = found.masked_fill(~mask, -1)
    return out


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(values).unsqueeze(-1)
    return (values * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)


def _squared_distances(products: Tensor) -> Tensor:
    own = products.diagonal(dim1=-2, dim2=-1)
    squares = (own.unsqueeze(-1) + own.unsqueeze(-2) - 2 * products).clamp_min(0)
    squares.diagonal(dim1=-2, dim2=-1).zero_()
    return squares


def _lloyd(
    products: Tensor, real: Tensor, clusters: int, restarts: int, iterations: int, generator: torch.Generator
) -> Tensor:
    """Labels (B, N) of the best run."""
    batch, nodes = real.shape
    squares = _squared_distances(products)
    own = products.diagonal(dim1=-2, dim2=-1)
    seeds = _plus_plus(squares, real, clusters, restarts, generator)
    near = squares.unsqueeze(1).expand(-1, restarts, -1, -1).gather(
        3, seeds.unsqueeze(2).expand(-1, -1, nodes, -1)
    )  # (B, R, N, K)  # fmt: skip
    labels = near.argmin(-1)
    # Runs of all sets side by side; those that stand still leave.
    running = torch.arange(batch, device=real.device)
    for _ in range(iterations):
        g, mask = products[running], real[running]
        members = _members(labels[running], clusters, g.dtype) * mask[:, None, :, None]
        distances = _to_means(g, own[running], members)
        new = distances.argmin(-1)
        nearest = distances.amin(-1) * mask.unsqueeze(1)
        new = _fill_empty(new, nearest, mask, clusters)
        moved = ((new != labels[running]) & mask.unsqueeze(1)).any(-1).any(-1)
        labels[running] = new
        running = running[moved]
        if running.numel() == 0:
            break
    members = _members(labels, clusters, products.dtype) * real[:, None, :, None]
    cost = (_to_means(products, own, members).amin(-1) * real.unsqueeze(1)).sum(-1)
    best = cost.argmin(1)[:, None, None].expand(-1, 1, nodes)
    labels = _exchanged(products, own, labels.gather(1, best), real, clusters).squeeze(1)
    return _by_first_node(labels, real, clusters)


def _exchanged(products: Tensor, own: Tensor, labels: Tensor, real: Tensor, clusters: int) -> Tensor:
    """Move single nodes to other clusters, the best move first, as long as the sum of squares falls."""
    running = torch.arange(len(labels), device=real.device)
    least = 1e-12 * own.masked_fill(~real, 0).sum(-1)
    while running.numel():
        mask, now = real[running].unsqueeze(1), labels[running]
        members = _members(now, clusters, products.dtype) * mask.unsqueeze(-1)
        sizes = members.sum(2, keepdim=True)
        distances = _to_means(products[running], own[running], members)
        mine, count = distances.gather(3, now.unsqueeze(-1)), sizes.expand_as(members).gather(3, now.unsqueeze(-1))
        leave = torch.where(count > 1, mine * count / (count - 1).clamp_min(1), 0)
        enter = torch.where(sizes > 0, distances * (sizes / (sizes + 1)), 0)
        change = (enter - leave).scatter(3, now.unsqueeze(-1), torch.inf).masked_fill(~mask.unsqueeze(-1), torch.inf)
        change, move = change.flatten(2).min(-1)
        node, cluster = (move // clusters).unsqueeze(-1), (move % clusters).unsqueeze(-1)
        better = (change < -least[running].unsqueeze(-1)).unsqueeze(-1)
        labels[running] = now.scatter(2, node, torch.where(better, cluster, now.gather(2, node)))
        running = running[better.any(1).squeeze(-1)]
    return labels


def _by_first_node(labels: Tensor, real: Tensor, clusters: int) -> Tensor:
    """Clusters numbered in the order of their first nodes, so that equal partitions have equal labels."""
    members = _members(labels.masked_fill(~real, -1), clusters, torch.bool)
    nodes = torch.arange(labels.shape[1], device=labels.device).unsqueeze(1)
    first = torch.where(members, nodes, labels.shape[1]).amin(1)
    return first.argsort(dim=1, stable=True).argsort(dim=1).gather(1, labels)


def _to_means(products: Tensor, own: Tensor, members: Tensor) -> Tensor:
    """Squared distances (B, R, N, K) of every node to the means of the members (B, R, N, K)."""
    sizes = members.sum(2)
    share = members / sizes.clamp_min(1).unsqueeze(2)
    # All runs of a set in one product.
    flat = share.permute(0, 2, 1, 3).flatten(2)
    along = (products @ flat).unflatten(2, share.shape[1::2]).permute(0, 2, 1, 3)
    length = (along * share).sum(2, keepdim=True)
    distances = own[:, None, :, None] - 2 * along + length
    return distances.masked_fill(sizes.unsqueeze(2) == 0, torch.inf)


def _fill_empty(labels: Tensor, nearest: Tensor, real: Tensor, clusters: int) -> Tensor:
    """Give an empty cluster the node that lies farthest from its mean, as long as there is one away from it."""
    counts = (_members(labels, clusters, nearest.dtype) * real[:, None, :, None]).sum(2)
    if bool((counts > 0).all()):
        return labels
    for cluster in range(clusters):
        empty = (counts[..., cluster] == 0) & (nearest.amax(-1) > 0)
        far = nearest.argmax(-1, keepdim=True)
        old = labels.gather(-1, far)
        alone = counts.gather(-1, old) <= 1
        take = empty.unsqueeze(-1) & ~alone
        labels = labels.scatter(-1, far, torch.where(take, cluster, old))
        counts = counts.scatter_add(-1, old, -take.to(counts))
        counts[..., cluster] += take.squeeze(-1)
        nearest = nearest.scatter(-1, far, torch.where(take, 0, nearest.gather(-1, far)))
    return labels


def _plus_plus(squares: Tensor, real: Tensor, clusters: int, restarts: int, generator: torch.Generator) -> Tensor:
    """Starting nodes (B, R, K): each the best of a few drawn in proportion to the squared distance to those before."""
    batch, nodes = real.shape
    trials = 2 + int(math.log(clusters))
    draws = torch.rand(clusters, restarts, trials, generator=generator, dtype=torch.float64).to(squares.device)
    weight = real.to(squares)
    seeds = torch.empty((batch, restarts, clusters), dtype=torch.long, device=squares.device)
    seeds[:, :, 0] = _drawn(weight.unsqueeze(1).expand(-1, restarts, -1), draws[0, :, :1])[..., 0]
    table = squares.unsqueeze(1).expand(-1, restarts, -1, -1)
    nearest = table.gather(2, seeds[:, :, :1, None].expand(-1, -1, -1, nodes)).squeeze(2)
    for cluster in range(1, clusters):
        # Where every node is a seed already, any real one will do.
        chance = nearest * weight.unsqueeze(1)
        chance = torch.where(chance.sum(-1, keepdim=True) > 0, chance, weight.unsqueeze(1))
        candidates = _drawn(chance, draws[cluster])
        after = table.gather(2, candidates.unsqueeze(-1).expand(-1, -1, -1, nodes))
        after = torch.minimum(after, nearest.unsqueeze(2))
        best = (after * weight[:, None, None]).sum(-1).argmin(-1, keepdim=True)
        seeds[:, :, cluster] = candidates.gather(-1, best).squeeze(-1)
        nearest = after.gather(2, best.unsqueeze(-1).expand(-1, -1, -1, nodes)).squeeze(2)
    return seeds


def _drawn(chance: Tensor, draws: Tensor) -> Tensor:
    """Nodes (B, R, trials) by inversion of the chances (B, R, N), with the draws (R, trials) from [0, 1)."""
    running = chance.cumsum(-1)
    place = (draws.unsqueeze(0) * running[..., -1:]).contiguous()
    # Right-hand side: a node without chance is never drawn.
    found = torch.searchsorted(running.contiguous(), place, right=True)
    return found.clamp_max(chance.shape[-1] - 1)


def _estimated(squares: Tensor, real: Tensor) -> Tensor:
    """Bandwidth (B): mean over the nodes of the distance to the node at 30% of all, the node itself counted."""
    counts = real.sum(1)
    ranks = torch.tensor([max(1, int(0.3 * n)) for n in range(real.shape[1] + 1)], device=real.device)[counts]
    far = squares.masked_fill(~real.unsqueeze(1), torch.inf).sort(-1).values
    reach = far.gather(2, (ranks - 1)[:, None, None].expand(-1, real.shape[1], 1)).squeeze(2).sqrt()
    return reach.masked_fill(~real, 0).sum(1) / counts.clamp_min(1)


def _shift(products: Tensor, squares: Tensor, real: Tensor, order: Tensor, radius: Tensor, iterations: int) -> Tensor:
    """Labels (B, N): every node climbs to its peak, peaks within the radius of a better one are dropped."""
    own = products.diagonal(dim1=-2, dim2=-1)
    reach = radius[:, None, None]
    seeds = torch.eye(real.shape[1], dtype=squares.dtype, device=real.device).expand_as(squares).clone()
    intensity = squares.new_zeros(real.shape)
    moving = real.clone()
    for _ in range(iterations + 1):
        # A seed is the mean of the nodes in its row.
        along = seeds @ products
        length = (along * seeds).sum(-1, keepdim=True)
        distance = (own.unsqueeze(1) - 2 * along + length).clamp_min(0).sqrt()
        inside = ((distance <= reach) & real.unsqueeze(1)).to(squares)
        count = inside.sum(-1)
        moved = inside / count.clamp_min(1).unsqueeze(-1)
        step = moved - seeds
        length = ((step @ products) * step).sum(-1).clamp_min(0).sqrt()
        active = moving & (count > 0)
        seeds = torch.where(active.unsqueeze(-1), moved, seeds)
        intensity = torch.where(active, count, intensity)
        moving = active & (length > 1e-3 * radius.unsqueeze(-1))
        if not bool(moving.any()):
            break
    along = seeds @ products
    lengths = (along * seeds).sum(-1)
    apart = (lengths.unsqueeze(-1) + lengths.unsqueeze(-2) - 2 * along @ seeds.mT).clamp_min(0).sqrt()
    kept = _peaks(apart, intensity.masked_fill(~real, -1), seeds @ order, real, radius)
    from_peak = (own.unsqueeze(1) - 2 * along + lengths.unsqueeze(-1)).masked_fill(kept.unsqueeze(-1) < 0, torch.inf)
    nearest = kept.gather(1, from_peak.argmin(1))
    # A radius of 0 (estimated where nodes coincide): every node is its own cluster.
    return torch.where(radius.unsqueeze(-1) > 0, nearest, real.cumsum(1) - 1)


def _peaks(apart: Tensor, intensity: Tensor, order: Tensor, real: Tensor, radius: Tensor) -> Tensor:
    """Number (B, N) of each peak that stays, best first; -1 for those dropped.

    The better one has more nodes, then the larger coordinates, as in scikit-learn; so the order of the nodes decides
    nothing.
    """
    batch, nodes = intensity.shape
    differ = order.unsqueeze(2) != order.unsqueeze(1)
    first = differ.to(torch.uint8).argmax(-1, keepdim=True)
    larger = (order.unsqueeze(2) - order.unsqueeze(1)).gather(-1, first).squeeze(-1)
    more = intensity.unsqueeze(2) - intensity.unsqueeze(1)
    index = torch.arange(nodes, device=real.device)
    before = (index.unsqueeze(1) < index).expand_as(more)
    better = (more > 0) | ((more == 0) & ((larger > 0) | ((larger == 0) & before)))
    rank = better.sum(1)
    sequence = rank.argsort(1)
    close = apart <= radius[:, None, None]
    alive = real.clone()
    rows = torch.arange(batch, device=real.device)
    for place in range(nodes):
        one = sequence[:, place]
        wins = alive[rows, one].unsqueeze(-1)
        drop = close[rows, one] & wins
        drop[rows, one] = False
        alive &= ~drop
    number = torch.zeros_like(rank).scatter(1, sequence, alive.gather(1, sequence).cumsum(1) - 1)
    return number.masked_fill(~alive, -1)
