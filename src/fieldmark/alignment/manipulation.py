"""Short-range spatial manipulation: every place of an aligned support map looks a little beside itself."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.offsets import Padding, sample_at_offsets
from fieldmark.shapes import Float, Tensor


class SpatialManipulation(nn.Module):
    """Support maps moved by offsets that a small network reads from the support and the query map together.

    Source: LSSA (SSM), section 3.4, eq. 7 and 8: ``offsets = tanh(h([aligned, query]))``, with h three 3x3
    convolutions, the first two with batch norm and ReLU. Not in the paper: the width of h (we take C / 2), a start at
    zero for the last convolution, so that the module begins as the identity, and a limit on the offsets other than 1.

    Args:
        channels: Of each map, C.
        max_offset: Largest offset, where the whole width of a map is 2; 1 in the paper: half the map.
        padding: What lies outside the map: ``"zeros"`` or its ``"border"``.
        hidden: Width of h; None: C / 2.

    Raises:
        FieldmarkError: For numbers that are too small or an unknown padding.

    Example:
        >>> aligned, query = torch.randn(2, 2, 8, 5, 5)
        >>> module = SpatialManipulation(8)
        >>> torch.allclose(module(aligned, query), aligned, atol=1e-5)
        True
    """

    def __init__(
        self, channels: int, max_offset: float = 1.0, padding: Padding = "zeros", hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = max(1, channels // 2) if hidden is None else hidden
        for name, value in (("channels", channels), ("hidden", hidden)):
            if value < 1:
                raise FieldmarkError(f"{name} of the spatial manipulation is {value}; expected at least 1")
        if not max_offset > 0:
            raise FieldmarkError(f"max_offset of the spatial manipulation is {max_offset}; expected a number above 0")
        if padding not in get_args(Padding):
            raise unknown_name("padding of the spatial manipulation", padding, get_args(Padding))
        self.channels, self.hidden, self.max_offset, self.padding = channels, hidden, max_offset, padding
        self.first = nn.Conv2d(2 * channels, hidden, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(hidden)
        self.second = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(hidden)
        self.last = nn.Conv2d(hidden, 2, 3, padding=1)
        for convolution in (self.first, self.second):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, aligned: Float[Tensor, "B C h w"], query: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The moved support maps."""
        return sample_at_offsets(aligned, self.offsets(aligned, query), self.padding)

    def offsets(self, aligned: Float[Tensor, "B C h w"], query: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 2 h w"]:
        """Offsets of x and y, up to ``max_offset``; see :func:`fieldmark.functional.sample_at_offsets`."""
        if aligned.dim() != 4 or aligned.shape != query.shape or query.shape[1] != self.channels:
            raise FieldmarkError(
                f"aligned support maps {tuple(aligned.shape)} and query maps {tuple(query.shape)}; expected"
                f" (B, {self.channels}, h, w) for both"
            )
        hidden = self.first_norm(self.first(torch.cat([aligned, query], dim=1))).relu()
        return self.read(self.second_norm(self.second(hidden)).relu())

    def read(self, hidden: Float[Tensor, "B H h w"]) -> Float[Tensor, "B 2 h w"]:
        """Offsets from the values behind the second convolution."""
        return self.max_offset * self.last(hidden).tanh()
