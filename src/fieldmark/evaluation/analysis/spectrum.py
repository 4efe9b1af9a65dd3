"""How many directions an embedding uses: singular values of the centred feature matrix, and the variance explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


@dataclass(frozen=True)
class Spectrum:
    """Spectrum of a centred feature matrix.

    Attributes:
        singular_values: ``(min(M, C),)`` falling.
        images: M, the rows of the matrix.
        channels: C, its columns.
    """

    singular_values: np.ndarray
    images: int
    channels: int

    @property
    def explained(self) -> np.ndarray:
        """Share of the variance along each principal component, falling; sums to 1."""
        squares = np.square(self.singular_values)
        return squares / squares.sum()

    @property
    def cumulative(self) -> np.ndarray:
        """Share of the variance that the first 1, 2, ... components explain together."""
        return np.cumsum(self.explained)

    def components_for(self, share: float) -> int:
        """How many components explain at least a share of the variance.

        Raises:
            FieldmarkError: If the share is not above 0 and at most 1.

        Example:
            >>> Spectrum(np.array([2.0, 1.0, 1.0]), 4, 3).components_for(0.8)
            2
        """
        if not 0 < share <= 1:
            raise FieldmarkError(f"share is {share}; expected a number above 0 and at most 1")
        # Rounding may leave the whole just below 1.
        return int(np.searchsorted(self.cumulative, share - 1e-12) + 1)

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the singular values that are scaled to sum 1 (Roy and Vetterli 2007).

        1 where one direction holds everything; the number of channels where all are used alike.
        """
        shares = self.singular_values / self.singular_values.sum()
        shares = shares[shares > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "images": self.images,
            "channels": self.channels,
            "effective_rank": self.effective_rank,
            "components_for_80_percent": self.components_for(0.8),
            "components_for_95_percent": self.components_for(0.95),
            "singular_values": self.singular_values.tolist(),
            "explained_variance": self.explained.tolist(),
        }


def spectrum(features: Float[Tensor, "M C"]) -> Spectrum:
    """Singular values of the features less their mean, in float64.

    Source: SCL (Ouali et al. 2021), Figs. 3 and E.2.

    Args:
        features: One vector an image, as they are (not scaled to unit length).

    Raises:
        FieldmarkError: For fewer than two images, features that are not finite, or images that are all the same.

    Example:
        >>> found = spectrum(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
        >>> found.singular_values.round(3).tolist(), found.components_for(0.99)
        ([1.414, 0.0], 1)
    """
    if features.ndim != 2 or len(features) < 2:
        raise FieldmarkError(f"features have shape {tuple(features.shape)}; expected (M, C) with at least 2 images")
    matrix = features.double()
    if not bool(torch.isfinite(matrix).all()):
        raise FieldmarkError("features are not finite; look for NaN, infinity or overflow in the backbone's output")
    values = torch.linalg.svdvals(matrix - matrix.mean(0)).cpu().numpy()
    if not values[0] > 1e-12 * float(matrix.abs().max()):
        raise FieldmarkError("all images have the same features; there is no variance to explain")
    return Spectrum(values, *features.shape)
