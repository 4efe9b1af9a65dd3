"""Every local descriptor compared with every other, without a matching."""

from __future__ import annotations

import torch

from fieldmark.functional.emd_similarity import Weighting, check_sets, check_temperature, directions
from fieldmark.functional.weights import Variant, cross_reference_weights, normalise_weights
from fieldmark.shapes import Float, Tensor


def dense_similarity(
    query: Float[Tensor, "*batch Q N C"],
    support: Float[Tensor, "*batch S M C"],
    *,
    variant: Variant = "code",
    centre: bool | None = None,
    weights: Weighting = "cross_reference",
    temperature: float = 12.5,
) -> Float[Tensor, "*batch Q S"]:
    """Weighted mean of the cosines of all pairs of descriptors: ``temperature * sum_ij a_i b_j cos(u_i, v_j)``.

    Source: "dense connections" in DeepEMD's Table 2. The weights a and b sum to 1, so it runs from -temperature to
    temperature, as :func:`fieldmark.functional.emd_similarity` does, whose flow x_ij / N is here a_i b_j.

    Args:
        query: N descriptors of each query.
        support: M descriptors of each support set.
        variant: As for :func:`fieldmark.functional.emd_similarity`.
        centre: Likewise.
        weights: ``"cross_reference"`` or ``"equal"``.
        temperature: Factor on the mean.

    Raises:
        FieldmarkError: For shapes that do not fit, empty sets, or an unknown option.

    Example:
        >>> dense_similarity(torch.eye(2)[None], torch.eye(2)[None], weights="equal", centre=False, temperature=1.0)
        tensor([[0.5000]])
    """
    check_temperature(temperature)
    check_sets(query, support, None, variant, weights)
    centred = variant == "code" if centre is None else centre
    query_unit, support_unit = directions(query, centred), directions(support, centred)
    if weights == "equal":
        return temperature * (query_unit.mean(-2) @ support_unit.mean(-2).mT)
    pair = cross_reference_weights(query, support, variant)
    # The double sum is the product of two weighted sums, so no table of all pairs of nodes is needed.
    mine = normalise_weights(pair.query, 1) @ query_unit
    theirs = normalise_weights(pair.support, 1).transpose(-3, -2) @ support_unit
    return temperature * torch.einsum("...qsc,...sqc->...qs", mine, theirs)
