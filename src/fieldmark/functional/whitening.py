"""Whitening by the scatter within images: what varies from place to place of one image says little about its class."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


def within_scatter(sets: Float[Tensor, "*images N C"]) -> Float[Tensor, "C C"]:
    """Mean outer product of what each descriptor differs by from the mean of its image.

    Example:
        >>> within_scatter(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[5.0, 1.0], [5.0, -1.0]]]))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    around = (sets - sets.mean(-2, keepdim=True)).flatten(0, -2)
    return around.mT @ around / max(1, len(around))


def whitening(sets: Float[Tensor, "*images N C"], shrinkage: float = 1.0) -> Float[Tensor, "C C"]:
    """The matrix W with ``W (scatter + shrinkage * mean variance * I) W' = I``; vectors are whitened by ``x @ W.mT``.

    Needs no labels. Source: the within-class whitening of linear discriminant analysis, with an image as the class and
    its places as the samples, which a single photo of a class is enough for; shrunk as by Ledoit and Wolf, by a fixed
    amount.

    Args:
        sets: Descriptors of images. Where they do not vary within images (one descriptor an image, for example) the
            identity comes out.
        shrinkage: How much of the mean variance is added to the variance in every direction; the larger, the less is
            whitened.

    Raises:
        FieldmarkError: For a shrinkage that is not above 0.

    Example:
        >>> sets = torch.tensor([[[2.0, 0.0], [-2.0, 0.0]]])
        >>> whitening(sets, shrinkage=1.0)
        tensor([[0.4082, 0.0000],
                [0.0000, 0.7071]])
        >>> whitening(torch.ones(3, 1, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    if not 0 < shrinkage < float("inf"):
        raise FieldmarkError(f"shrinkage is {shrinkage}; expected a number above 0")
    scatter = within_scatter(sets)
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    scale = float(scatter.detach().diagonal().mean())
    if not scale > 0:
        return identity
    # Cholesky and a triangular system: batched inverses of this size hang on two threads (docs/decisions).
    factor = torch.linalg.cholesky(scatter + shrinkage * scale * identity)
    return torch.linalg.solve_triangular(factor, identity, upper=False)
