"""Long-range semantic correspondence: a support map laid out as the query's."""

from __future__ import annotations

import torch
from torch import nn

from fieldmark.errors import FieldmarkError
from fieldmark.functional.correspondence import correspondence
from fieldmark.shapes import Float, Tensor


class SemanticCorrespondence(nn.Module):
    """A support map, every place of which is made of the support's places that look like the query's place there.

    Source: LSSA (LSC), section 3.3, eq. 4 to 6: ``T = softmax(cos(g(query), g(support)))`` over the support's places,
    ``aligned = T support``. Only the comparison uses g (1x1 convolution, batch norm, ReLU, 1x1 convolution, to half the
    channels; its width is not in the paper); what is moved are the maps themselves. Query and support go through g in
    one batch.

    Args:
        channels: Of the maps, C.
        reduce: Compare g of the maps; without it the maps themselves, which needs no training.
        temperature: Divides the cosines; 1 in the paper. Untrained, only a low one moves places apart.

    Raises:
        FieldmarkError: For channels below 1 or a temperature not above 0.

    Example:
        >>> query = torch.eye(4).view(1, 4, 2, 2)
        >>> align = SemanticCorrespondence(4, reduce=False, temperature=0.01)
        >>> torch.allclose(align(query, query.flip(-1)), query)
        True
    """

    def __init__(self, channels: int, reduce: bool = True, temperature: float = 1.0) -> None:
        super().__init__()
        if channels < 1:
            raise FieldmarkError(f"channels of the semantic correspondence is {channels}; expected at least 1")
        if not temperature > 0:
            raise FieldmarkError(
                f"temperature of the semantic correspondence is {temperature}; expected a number above 0"
            )
        self.channels, self.temperature = channels, temperature
        inner = max(1, channels // 2)
        # Convolutions of one place, on vectors.
        self.reduction = (
            nn.Sequential(
                nn.Linear(channels, inner, bias=False),
                nn.BatchNorm1d(inner),
                nn.ReLU(inplace=True),
                nn.Linear(inner, inner),
            )
            if reduce
            else None
        )

    def forward(self, query: Float[Tensor, "B C h w"], support: Float[Tensor, "B C y x"]) -> Float[Tensor, "B C h w"]:
        """The aligned support maps, in the layout of the query maps."""
        weights = self.correlation(query, support)
        aligned = weights @ support.flatten(2).mT.to(weights.dtype)
        return aligned.mT.unflatten(-1, query.shape[-2:])

    def correlation(self, query: Float[Tensor, "B C h w"], support: Float[Tensor, "B C y x"]) -> Float[Tensor, "B N M"]:
        """T: for each of the N places of the query, the weights of the M places of the support."""
        if query.dim() != 4 or query.shape[:2] != support.shape[:2] or query.shape[1] != self.channels:
            raise FieldmarkError(
                f"query maps {tuple(query.shape)} and support maps {tuple(support.shape)}; expected"
                f" (B, {self.channels}, h, w) for both, as many of each"
            )
        ours, theirs = self.reduced(query.flatten(2).mT, support.flatten(2).mT)
        return correspondence(ours, theirs, self.temperature)

    def reduced(
        self, query: Float[Tensor, "*queries C"], support: Float[Tensor, "*supports C"]
    ) -> tuple[Float[Tensor, "*queries c"], Float[Tensor, "*supports c"]]:
        """Vectors of any number after g, both sides in one batch; the vectors themselves if there is no g."""
        if self.reduction is None:
            return query, support
        flat = self.reduction(torch.cat([support.flatten(0, -2), query.flatten(0, -2)]))
        first, second = flat.split([support[..., 0].numel(), query[..., 0].numel()])
        return second.view(*query.shape[:-1], -1), first.view(*support.shape[:-1], -1)
