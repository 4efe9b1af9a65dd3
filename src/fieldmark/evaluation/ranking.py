"""Rankings of a gallery: by pooled embeddings, and the first of them anew by a similarity of local descriptors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fieldmark.shapes import Float, Int, Tensor

# What re-ranking holds at a time: descriptors, and the tables of all pairs of nodes in the solver.
_BYTES_AT_ONCE = 256 * 2**20

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Sets ``(*, Q, N, C)`` and ``(*, S, N, C)`` to ``(*, Q, S)``, large means near."""


def top_ranked(scores: Float[Tensor, "Q M"], k: int) -> Int[Tensor, "Q k"]:
    """Numbers of the k largest scores of each row, largest first; of equal scores the first comes first.

    ``torch.topk`` leaves the order of equal scores open, and which of them are in; a measure that depends on that is
    not repeatable.

    Args:
        scores: Any scores but NaN.
        k: At most M.

    Example:
        >>> top_ranked(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3)
        tensor([[1, 0, 2]])
    """
    values, index = scores.topk(k, dim=1)
    last = values[:, -1:]
    index, order = index.sort(dim=1)
    values = values.gather(1, order)
    index = index.gather(1, values.argsort(dim=1, descending=True, stable=True))
    cut = (scores >= last).sum(1) > k  # equal scores on both sides of rank k
    if bool(cut.any()):
        index[cut] = scores[cut].argsort(dim=1, descending=True, stable=True)[:, :k]
    return index


def pooled_ranking(gallery: Float[Tensor, "M C"], queries: Int[Tensor, "Q"], depth: int) -> Int[Tensor, "Q depth"]:
    """The ``depth`` images of largest cosine to each query, without the query itself.

    Args:
        gallery: Embeddings of length 1.
        queries: Numbers of the images that ask.
        depth: At most M - 1.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> pooled_ranking(gallery, torch.tensor([0, 1]), 2)
        tensor([[1, 2],
                [2, 0]])
    """
    queries = queries.to(gallery.device)
    scores = gallery[queries] @ gallery.T
    scores[torch.arange(len(queries), device=gallery.device), queries] = -torch.inf
    return top_ranked(scores, depth)


def rerank(
    similarity: Similarity,
    sets: Float[Tensor, "M N C"],
    queries: Int[Tensor, "Q"],
    ranking: Int[Tensor, "Q K"],
    shortlist: int,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "Q K"]:
    """Order the first ``shortlist`` images of each ranking by a similarity of local descriptors.

    Args:
        similarity: As :data:`Similarity`.
        sets: Local descriptors of all images.
        queries: Numbers of the images that ask.
        ranking: Their rankings, nearest first.
        shortlist: How many to order anew; the others stay behind these, in their order. Equal ones keep theirs.
        device: Where the similarity is computed.

    Example:
        >>> sets = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]], [[0.0, 1.0]], [[0.8, 0.6]]])
        >>> dot = lambda query, support: (query * support).sum((-2, -1)).unsqueeze(-2)
        >>> rerank(dot, sets, torch.tensor([0]), torch.tensor([[2, 1, 3]]), 2)
        tensor([[1, 2, 3]])
    """
    nodes, channels = sets.shape[1:]
    length = min(shortlist, ranking.shape[1])
    pairs = max(1, _BYTES_AT_ONCE // (4 * nodes * (channels + 8 * nodes)))
    rows, columns = max(1, pairs // length), min(length, pairs)
    out = ranking.clone()
    for start in range(0, len(queries), rows):
        part = slice(start, start + rows)
        asked = sets[queries[part]].unsqueeze(1).to(device)
        pieces = ranking[part, :length].split(columns, dim=1)
        scores = torch.cat([similarity(asked, sets[piece].to(device)).squeeze(1).cpu() for piece in pieces], dim=1)
        order = scores.argsort(dim=1, descending=True, stable=True)
        out[part, :length] = ranking[part, :length].gather(1, order)
    return out
