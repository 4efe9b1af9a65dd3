"""How much every place of an image looks like the image as a whole."""

from __future__ import annotations

from torch.nn.functional import cosine_similarity

from fieldmark.shapes import Float, Tensor


def foreground_mask(maps: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N"]:
    """A soft mask of the object: 1 where a place points in the direction of the mean vector, 0 where it points away.

    Source: LSSA (foreground object enhancement), eq. 2 and the line below it: ``(cos(mean, place) + 1) / 2``. Maps that
    are nowhere negative, as after a ReLU, give masks of at least 0.5.

    Args:
        maps: Vectors of the N places of every image.

    Example:
        >>> import torch
        >>> foreground_mask(torch.tensor([[2.0, 0.0], [3.0, 0.0], [-1.0, 0.0]]))
        tensor([1., 1., 0.])
    """
    return ((cosine_similarity(maps, maps.mean(-2, keepdim=True), dim=-1, eps=1e-12) + 1) / 2).clamp(0, 1)
