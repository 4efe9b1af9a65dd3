"""How good is a ranking: precision at 1, R-precision and mean average precision at R."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Bool, Float, Int, Tensor


class RetrievalMeasures(NamedTuple):
    """Measures of every query, 0 to 1.

    Attributes:
        precision_at_1: ``(Q,)`` whether the nearest image is of the query's class.
        r_precision: ``(Q,)`` share of the R nearest that are.
        map_at_r: ``(Q,)`` average precision over the R nearest.
    """

    precision_at_1: Float[Tensor, "Q"]
    r_precision: Float[Tensor, "Q"]
    map_at_r: Float[Tensor, "Q"]


def retrieval_measures(relevant: Bool[Tensor, "Q K"], counts: Int[Tensor, "Q"]) -> RetrievalMeasures:
    """Precision at 1, R-precision and MAP@R of rankings.

    Source: "A Metric Learning Reality Check" (Musgrave et al. 2020), section 3.2. With R the number of relevant images
    in the gallery: R-precision is the share of relevant ones among the first R; MAP@R is
    ``1/R sum_{i=1..R} P(i)``, where P(i) is the precision at rank i if image i is relevant and 0 otherwise. What comes
    after rank R counts nowhere.

    Args:
        relevant: Whether the image at each rank, nearest first, is of the query's class; the query itself is not in
            its ranking.
        counts: R of every query, 1 to K.

    Returns:
        The three measures of every query, in float64.

    Raises:
        FieldmarkError: For a query without relevant images, or with more than there are ranks.

    Example:
        >>> relevant = torch.tensor([[True, False, True], [False, True, True]])
        >>> measures = retrieval_measures(relevant, torch.tensor([3, 2]))
        >>> measures.precision_at_1.tolist(), measures.r_precision[1].item(), measures.map_at_r[1].item()
        ([1.0, 0.0], 0.5, 0.25)
    """
    ranks = relevant.shape[1]
    if len(counts) and not (int(counts.min()) >= 1 and int(counts.max()) <= ranks):
        raise FieldmarkError(
            f"counts of retrieval_measures are {int(counts.min())} to {int(counts.max())}; expected 1 to {ranks}, the "
            "number of ranks (leave out queries without relevant images)"
        )
    place = torch.arange(1, ranks + 1, device=relevant.device)
    hits = relevant & (place <= counts.unsqueeze(1))
    found = hits.cumsum(1)
    precision = torch.where(hits, found.double() / place, 0.0)
    return RetrievalMeasures(relevant[:, 0].double(), found[:, -1].double() / counts, precision.sum(1) / counts)
