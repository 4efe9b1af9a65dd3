"""SCL's two contrastive losses as parts of objectives: a head, a similarity of all pairs, and one loss for both."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark import functional
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.methods.attention_heads import AttentionHeads, ProjectionHead
from fieldmark.shapes import Float, Int, Tensor

Positives = Literal["supervised", "self_supervised"]
Aggregation = Literal["mean", "sum", "max", "logsumexp"]
Variant = Literal["code", "paper"]


class GlobalContrast(nn.Module):
    """Contrastive loss on projected pooled vectors (GC, SS-GC).

    Source: Ouali et al. 2021, eq. 4; Khosla et al. 2020. The similarity is the cosine of the projections.

    Args:
        channels: Channels C of the maps.
        positives: ``"supervised"``: all images of the class; ``"self_supervised"``: the other views of the image.
        inner: Values of a projection.
        temperature: Divides the similarities.

    Example:
        >>> maps = torch.rand(4, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> GlobalContrast(8, "self_supervised", inner=4)(maps, torch.tensor([0, 1, 0, 1]), views=2).ndim
        0
    """

    def __init__(
        self, channels: int, positives: Positives = "supervised", inner: int = 80, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self.positives, self.temperature = positives, temperature
        self.head = ProjectionHead(channels, inner)

    def forward(self, maps: Float[Tensor, "B C h w"], labels: Int[Tensor, "B"], views: int) -> Float[Tensor, ""]:
        """The loss of a batch that is laid out as an :class:`~fieldmark.methods.ImageBatch`."""
        projected = self.head(maps.mean((-2, -1)))
        with torch.autocast(maps.device.type, enabled=False):
            projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
            similarity = functional.cosine(projected, projected)
            return functional.contrastive_loss(similarity, _groups(self.positives, labels, views), self.temperature)


class SpatialContrast(nn.Module):
    """Contrastive loss on maps that are aligned by attention before they are compared (SC, SS-SC).

    Source: Ouali et al. 2021, eq. 5 to 7; the similarity is :func:`fieldmark.functional.spatial_similarity`.

    Args:
        channels: Channels C of the maps.
        positives: As in :class:`GlobalContrast`.
        inner: Values of a query, key and value.
        temperature: Divides the similarities.
        aggregation: How the similarities of the places become one.
        variant: ``"code"``, the official code's similarity, or ``"paper"``, the printed one.
        pool: Average the maps down to ``pool`` x ``pool`` places first; None: as they are.
        scale: Sharpness of the aggregation "logsumexp".

    Example:
        >>> maps = torch.rand(4, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> SpatialContrast(8, inner=4)(maps, torch.tensor([0, 1, 0, 1]), views=2).ndim
        0
    """

    def __init__(
        self,
        channels: int,
        positives: Positives = "supervised",
        inner: int = 80,
        temperature: float = 0.1,
        aggregation: Aggregation = "mean",
        variant: Variant = "code",
        pool: int | None = None,
        scale: float = 6.0,
    ) -> None:
        super().__init__()
        self.positives, self.temperature, self.pool = positives, temperature, pool
        self.aggregation, self.variant, self.scale = aggregation, variant, scale
        self.heads = AttentionHeads(channels, inner)

    def forward(self, maps: Float[Tensor, "B C h w"], labels: Int[Tensor, "B"], views: int) -> Float[Tensor, ""]:
        """The loss of a batch that is laid out as an :class:`~fieldmark.methods.ImageBatch`."""
        if self.pool is not None:
            maps = F.adaptive_avg_pool2d(maps, self.pool)
        seen = self.heads(maps)
        with torch.autocast(maps.device.type, enabled=False):
            similarity = functional.spatial_similarity(
                seen.queries, seen.keys, seen.values, self.aggregation, scale=self.scale, variant=self.variant
            )
            return functional.contrastive_loss(similarity, _groups(self.positives, labels, views), self.temperature)


def _groups(positives: Positives, labels: Tensor, views: int) -> Tensor:
    """What must be equal for two images to be a positive pair: the class, or the image itself."""
    if positives == "supervised":
        return labels
    return torch.arange(len(labels) // views, device=labels.device).repeat(views)


def check_contrast(
    owner: str, positives: str, aggregation: str, variant: str, inner: int, temperature: float, scale: float,
    pool: int | None,
) -> None:  # fmt: skip
    """Refuse options of the contrastive parts that cannot work.

    Raises:
        FieldmarkError: Names the option of ``owner``.
    """
    choices = {"positives": (positives, Positives), "aggregation": (aggregation, Aggregation)}
    choices["variant"] = (variant, Variant)
    for name, (value, known) in choices.items():
        if value not in get_args(known):
            raise unknown_name(f"{name} of {owner}", value, get_args(known))
    for name, number in (("temperature", temperature), ("scale", scale)):
        if not number > 0:
            raise FieldmarkError(f"{name} of {owner} is {number}; expected a number above 0")
    for name, count in (("inner", inner), ("pool", pool)):
        if count is not None and count < 1:
            raise FieldmarkError(f"{name} of {owner} is {count}; expected at least 1")
