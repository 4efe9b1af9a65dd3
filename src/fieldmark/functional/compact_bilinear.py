"""Compact bilinear pooling: all products of two vectors' values, hashed into few numbers."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Int, Tensor


def count_sketch(
    features: Float[Tensor, "*batch D"], places: Int[Tensor, " D"], signs: Float[Tensor, " D"], size: int
) -> Float[Tensor, "*batch S"]:
    """Add every value, with its sign, to its place among ``size`` numbers.

    Source: Gao et al. 2016, Algorithm 2 (Charikar et al. 2002).

    Args:
        features: Vectors.
        places: Of each of their values, 0 to ``size - 1``.
        signs: 1 or -1 for each value.
        size: Numbers S in the result.

    Example:
        >>> count_sketch(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), torch.tensor([1.0, -1.0, 1.0]), 2)
        tensor([ 5., -2.])
    """
    return features.new_zeros(*features.shape[:-1], size).index_add(-1, places, features * signs.to(features.dtype))


def compact_bilinear(
    first: Float[Tensor, "*batch D"],
    second: Float[Tensor, "*batch D"],
    places: Int[Tensor, "2 D"],
    signs: Float[Tensor, "2 D"],
    size: int,
) -> Float[Tensor, "*batch S"]:
    """Tensor sketch of the outer product of two vectors: the circular convolution of their count sketches.

    Source: "Compact bilinear pooling" (Gao et al. 2016), Algorithm 2. It is the count sketch of all ``D * D`` products,
    value (i, j) at place ``(places[0, i] + places[1, j]) mod S`` with the product of the signs, and is computed by
    Fourier transforms without ever making them. Neither roots nor norms are taken of it.

    Args:
        first: Vectors.
        second: As many.
        places: Of the values of the first and of the second.
        signs: Likewise, 1 or -1.
        size: Numbers S in the result.

    Raises:
        FieldmarkError: If the vectors do not fit together.

    Example:
        >>> one = torch.ones(1, dtype=torch.long)
        >>> places, signs = torch.stack([one, 2 * one]), torch.ones(2, 1)
        >>> compact_bilinear(torch.tensor([3.0]), torch.tensor([5.0]), places, signs, 4).round(decimals=4) + 0
        tensor([ 0.,  0.,  0., 15.])
    """
    if first.shape != second.shape:
        raise FieldmarkError(f"vectors of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected equal ones")
    dtype = first.dtype
    if dtype in (torch.float16, torch.bfloat16):  # these have no Fourier transform of any length
        first, second = first.float(), second.float()
    with torch.autocast(first.device.type, enabled=False):
        spectra = [
            torch.fft.rfft(count_sketch(one, place, sign, size))
            for one, place, sign in zip((first, second), places, signs, strict=True)
        ]
        return torch.fft.irfft(spectra[0] * spectra[1], n=size).to(dtype)
