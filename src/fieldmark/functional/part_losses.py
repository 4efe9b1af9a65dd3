"""Losses of part proposals: their order, and that a part means the same in every image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Float, Tensor

Reduction = Literal["mean", "paper_sum"]


def ranking_loss(
    scores: Float[Tensor, "B M"], confidences: Float[Tensor, "B M"], margin: float = 1.0
) -> Float[Tensor, ""]:
    """How far the scores of proposals are from the order of their confidences.

    Source: NTS-Net (Yang et al. 2018), eq. 2; in SSANET criterion 1 of the proposals. The sum over pairs of proposals
    of ``relu(margin - (score of the more confident - score of the less confident))``, as a mean over the images.
    Nothing flows into the confidences.

    Args:
        scores: Of the navigator.
        confidences: For example the log-probability of the true class that each proposal gives.
        margin: From which difference on a pair costs nothing.

    Example:
        >>> ranking_loss(torch.tensor([[2.0, 0.0, 0.5]]), torch.tensor([[0.9, 0.1, 0.5]]))
        tensor(0.5000)
    """
    if scores.shape != confidences.shape:
        raise FieldmarkError(
            f"scores have shape {tuple(scores.shape)} and confidences {tuple(confidences.shape)}; expected one (B, M)"
        )
    confidences = confidences.detach()
    above = confidences.unsqueeze(2) > confidences.unsqueeze(1)
    short = F.relu(margin - (scores.unsqueeze(2) - scores.unsqueeze(1)))
    return (short * above).sum((1, 2)).mean()


def mac_loss(parts: Float[Tensor, "B K D"], reduction: Reduction = "mean") -> Float[Tensor, ""]:
    """Morphological alignment: part j of an image has to resemble part j of every image, more than its other parts.

    Source: SSANET, eq. 1 and 2: for images x and t, ``L(x, t) = 1/K sum_j log(1 + sum_{m != j} exp(S_jm - S_jj))`` with
    ``S_jn = cos(f_x,j, f_t,n)``: the cross-entropy of the rows of S, the diagonal being the target.

    Args:
        parts: Features of K parts of B images; their length does not matter.
        reduction: ``"mean"`` over all ordered pairs of images, an image with itself included; ``"paper_sum"``: the sum
            over the pairs, times B, as eq. 1 has it inside its sum over images.

    Raises:
        FieldmarkError: For another reduction.

    Example:
        >>> mac_loss(torch.eye(2).expand(3, 2, 2))  # log(1 + exp(-1)): cosines 1 and 0
        tensor(0.3133)
    """
    if reduction not in get_args(Reduction):
        raise unknown_name("reduction", reduction, get_args(Reduction))
    with torch.autocast(parts.device.type, enabled=False):
        unit = F.normalize(parts.to(torch.promote_types(parts.dtype, torch.float32)), dim=-1)
        cosines = torch.einsum("xjd,tnd->xtjn", unit, unit)
        each = mac_of_cosines(cosines)
    return each.mean() if reduction == "mean" else len(parts) * each.sum()


def mac_of_cosines(cosines: Float[Tensor, "*batch K K"]) -> Float[Tensor, "*batch"]:
    """Eq. 2 of :func:`mac_loss` for given similarities; the gradient is that of eq. 4 and 5, with sign and 1/K.

    Args:
        cosines: Of part j of one image (rows) with part n of another (columns).

    Example:
        >>> mac_of_cosines(torch.zeros(4, 4))  # log 4
        tensor(1.3863)
    """
    diagonal = cosines.diagonal(dim1=-2, dim2=-1)
    return (cosines.logsumexp(-1) - diagonal).mean(-1)
