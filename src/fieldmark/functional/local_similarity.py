"""Image-to-class similarity by nearest local descriptors."""

from __future__ import annotations

import torch

from fieldmark.functional.labels import class_counts
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.shapes import Bool, Float, Int, Tensor


def class_slots(labels: Int[Tensor, "E S"], way: int) -> tuple[Int[Tensor, "E way shot"], Bool[Tensor, "E way shot"]]:
    """Where the support images of each class are, padded to the largest class.

    Returns:
        Indices into the support set, and which of them count.

    Example:
        >>> import torch
        >>> index, counts = class_slots(torch.tensor([[1, 0, 1]]), 2)
        >>> index[0, 1], counts[0]
        (tensor([0, 2]), tensor([[ True, False],
                [ True,  True]]))
    """
    counts = class_counts(labels, way)
    order = labels.argsort(dim=1, stable=True)
    starts = counts.cumsum(1) - counts
    offset = torch.arange(int(counts.max()), device=labels.device)
    real = offset < counts.unsqueeze(-1)
    position = torch.where(real, starts.unsqueeze(-1) + offset, 0)
    return order.gather(1, position.flatten(1)).view_as(position), real


def local_similarity(
    query: Float[Tensor, "E Q N C"],
    support: Float[Tensor, "E S M C"],
    labels: Int[Tensor, "E S"],
    way: int,
    k: int = 1,
) -> Float[Tensor, "E Q way"]:
    """Sum, over the query's locations, of the k best cosines in the pool of all descriptors of a class.

    Source: DN4 (Li et al. 2019), eq. 2 (k = 3 there).

    Args:
        query: N local descriptors of each query image.
        support: M local descriptors of each support image.
        labels: Classes of the support images, 0 to way - 1, each with an image; shots may differ.
        way: Number of classes.
        k: Neighbours; at most the size of the smallest pool are taken, so that classes stay comparable.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> query = torch.tensor([[[[1.0, 0.0], [0.6, 0.8]]]])
        >>> local_similarity(query, support, torch.tensor([[0, 1]]), 2)
        tensor([[[1.6000, 0.8000]]])
    """
    episodes, queries, locations, channels = query.shape
    pool = support.shape[2]
    index, real = class_slots(labels, way)
    best = min(k, pool * int(real.sum(-1).min()))
    rows = index.flatten(1)[:, :, None, None].expand(-1, -1, pool, channels)
    keys = l2_normalise(support).gather(1, rows).flatten(1, 2)
    cosines = l2_normalise(query).reshape(episodes, -1, channels) @ keys.mT
    cosines = cosines.view(episodes, queries * locations, way, -1)
    if not bool(real.all()):
        pad = real.logical_not().repeat_interleave(pool, dim=-1).unsqueeze(1)
        cosines = cosines.masked_fill(pad, -torch.inf)
    # The largest alone needs no partial sort.
    near = cosines.amax(-1) if best == 1 else cosines.topk(best, dim=-1, sorted=False).values.sum(-1)
    return near.view(episodes, queries, locations, way).sum(2)
