"""Which place of one image corresponds to which of another, softly, by their cosines."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.shapes import Float, Tensor


def correspondence(
    query: Float[Tensor, "*batch N C"], support: Float[Tensor, "*batch M C"], temperature: float = 1.0
) -> Float[Tensor, "*batch N M"]:
    """Weights over the places of the support image, for every place of the query image.

    Source: LSSA (long-range semantic correspondence), eq. 4 and 5: the softmax over the support's places j of
    ``cos(query_i, support_j) / temperature``. Eq. 5 is printed with its sum over the query's places; we sum over the
    support's, so that every row sums to 1, as the text says and eq. 6 needs. The paper has no temperature (1): the
    weights of a row then differ by a factor of at most ``e^2``, 7.4.

    Half precision is computed, and returned, in float32. Any temperature above 0 is safe: towards 0 a row goes to all
    on its largest cosine.

    Args:
        query: Vectors of the N places of a query image.
        support: Vectors of the M places of a support image.
        temperature: Divides the cosines.

    Raises:
        FieldmarkError: The temperature is not above 0.

    Example:
        >>> correspondence(torch.eye(2), torch.eye(2).flip(0), temperature=0.005)
        tensor([[0., 1.],
                [1., 0.]])
    """
    with torch.autocast(query.device.type, enabled=False):
        unit_query, unit_support = correspondence_keys(query, support, temperature)
        return torch.softmax(unit_query @ unit_support.mT, dim=-1)


def correspondence_keys(
    query: Float[Tensor, "*queries C"], support: Float[Tensor, "*supports C"], temperature: float = 1.0
) -> tuple[Float[Tensor, "*queries C"], Float[Tensor, "*supports C"]]:
    """Vectors whose products are cosines over the temperature: what many pairs need once an image.

    Raises:
        FieldmarkError: The temperature is not above 0.

    Example:
        >>> correspondence_keys(torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]]), temperature=0.5)
        (tensor([[0., 2.]]), tensor([[1., 0.]]))
    """
    if not temperature > 0:
        raise FieldmarkError(f"temperature is {temperature}; expected a number above 0")
    query, support = (one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in (query, support))
    # Differences of two products stay finite.
    scale = min(1 / temperature, torch.finfo(query.dtype).max / 8)
    return l2_normalise(query) * scale, l2_normalise(support)
