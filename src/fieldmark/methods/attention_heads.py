"""Small networks on top of the maps that only training uses: SCL's projection and attention heads."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


class ProjectionHead(nn.Module):
    """Two layers without biases, a ReLU between them: C to C to ``inner`` values.

    Source: "Spatial contrastive learning for few-shot classification" (Ouali et al. 2021), section 4.1 and Fig. D.1.
    It works on the last dimension, so it takes pooled vectors as well as the places of a map.

    Args:
        channels: Values C that come in.
        inner: Values that come out (the paper: 80; with ProtoNet 64).

    Raises:
        FieldmarkError: If a width is below 1.

    Example:
        >>> import torch
        >>> head = ProjectionHead(640)
        >>> head(torch.zeros(4, 25, 640)).shape
        torch.Size([4, 25, 80])
        >>> [tuple(weight.shape) for weight in head.parameters()]
        [(640, 640), (80, 640)]
    """

    def __init__(self, channels: int, inner: int = 80) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("inner", inner)):
            if value < 1:
                raise FieldmarkError(f"{name} of a projection head is {value}; expected at least 1")
        self.net = nn.Sequential(
            nn.Linear(channels, channels, bias=False), nn.ReLU(inplace=True), nn.Linear(channels, inner, bias=False)
        )

    def forward(self, vectors: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch D"]:
        """The projected vectors; not normalised."""
        return self.net(vectors)


class Aligned(NamedTuple):
    """What attention compares: queries, keys and values, each ``(B, N, D)``."""

    queries: Float[Tensor, "B N D"]
    keys: Float[Tensor, "B N D"]
    values: Float[Tensor, "B N D"]


class AttentionHeads(nn.Module):
    """The three heads h_q, h_k and h_v of the spatial alignment, on every place of a map alike.

    Source: Ouali et al. 2021, section 3.2 (eq. 5) and Fig. D.1.

    Args:
        channels: Channels C of the maps.
        inner: Values d' of a query, a key and a value.

    Example:
        >>> import torch
        >>> found = AttentionHeads(640)(torch.zeros(2, 640, 5, 5))
        >>> found.queries.shape, found.values.shape
        (torch.Size([2, 25, 80]), torch.Size([2, 25, 80]))
    """

    def __init__(self, channels: int, inner: int = 80) -> None:
        super().__init__()
        self.query = ProjectionHead(channels, inner)
        self.key = ProjectionHead(channels, inner)
        self.value = ProjectionHead(channels, inner)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Aligned:
        """Queries, keys and values of the places of every map, row by row."""
        places = maps.flatten(2).mT
        return Aligned(self.query(places), self.key(places), self.value(places))
