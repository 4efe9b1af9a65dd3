"""SCL: classification with contrastive losses beside it, on pooled vectors and on spatially aligned maps."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.methods.contrast import (
    Aggregation,
    GlobalContrast,
    Positives,
    SpatialContrast,
    Variant,
    check_contrast,
)
from fieldmark.methods.metric_learning import precision_in_batch
from fieldmark.shapes import Tensor


@OBJECTIVES.add(
    "scl", "classification with spatial and global contrastive losses", source="Ouali et al. 2021 (SCL), eq. 4 to 8"
)
class SCL(Objective):
    """Weighted sum of cross-entropy, spatial contrastive loss and global contrastive loss.

    Source: "Spatial contrastive learning for few-shot classification" (Ouali et al. 2021), eq. 8:
    ``L = ce * L_CE + sc * L_SC + gc * L_GC``. All three are means over all views of all images. A part of weight 0 is
    not built and costs nothing. The stage's ``second_view`` makes the second half of the batch; without it supervised
    losses compare the images of one class within the batch, and self-supervised ones have no positives.

    The rows of the paper's Table 1 are weights: CE (1, 0, 0); CE + GC (1, 0, 1); CE + SC (1, 1, 0); CE + GC + SC
    (1, 0.5, 0.5); with ``positives="self_supervised"`` the SS- rows.

    Args:
        ce: Weight of the cross-entropy of a linear classifier on pooled features.
        sc: Weight of the spatial contrastive loss.
        gc: Weight of the global contrastive loss.
        positives: ``"supervised"``: images of the class; ``"self_supervised"``: other views of the image.
        temperature: Of both contrastive losses, above 0.
        inner: Values of a projection, query, key and value.
        aggregation: ``"mean"``, ``"sum"``, ``"max"`` or ``"logsumexp"`` over the places (Table 3).
        variant: ``"code"``: values are aligned, then compared by cosine, as in the official code; ``"paper"``: values
            are normalised, aligned, then multiplied, as printed.
        pool: Average the maps to ``pool`` x ``pool`` places before the alignment; None: all places.
        scale: Sharpness of ``"logsumexp"``.

    Raises:
        FieldmarkError: For an unknown value, a number out of range, or no weight above 0.

    Example:
        >>> import torch
        >>> objective = SCL(gc=1.0)
        >>> objective.setup(channels=8, classes=3)
        >>> maps = torch.rand(6, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> batch = ImageBatch(torch.zeros(6, 3, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2]), views=2)
        >>> sorted(objective(lambda images: maps, batch))
        ['accuracy', 'cross_entropy', 'global_contrast', 'loss', 'spatial_contrast']
    """

    classifier: nn.Linear
    spatial: SpatialContrast
    pooled: GlobalContrast

    def __init__(
        self,
        ce: float = 1.0,
        sc: float = 1.0,
        gc: float = 0.0,
        positives: Positives = "supervised",
        temperature: float = 0.1,
        inner: int = 80,
        aggregation: Aggregation = "mean",
        variant: Variant = "code",
        pool: int | None = None,
        scale: float = 6.0,
    ) -> None:
        super().__init__()
        check_contrast("objective scl", positives, aggregation, variant, inner, temperature, scale, pool)
        for name, weight in (("ce", ce), ("sc", sc), ("gc", gc)):
            if not weight >= 0:
                raise FieldmarkError(f"{name} of objective scl is {weight}; expected 0 or more")
        if not ce + sc + gc > 0:
            raise FieldmarkError("ce, sc and gc of objective scl are all 0; give one of them a weight above 0")
        self.ce, self.sc, self.gc = ce, sc, gc
        self.positives, self.temperature, self.inner = positives, temperature, inner
        self.aggregation, self.variant, self.pool, self.scale = aggregation, variant, pool, scale

    def setup(self, channels: int, classes: int) -> None:
        """Build the classifier and the heads of the losses that have a weight."""
        if self.ce:
            self.classifier = nn.Linear(channels, classes)
        if self.sc:
            self.spatial = SpatialContrast(
                channels, self.positives, self.inner, self.temperature, self.aggregation, self.variant, self.pool,
                self.scale,
            )  # fmt: skip
        if self.gc:
            self.pooled = GlobalContrast(channels, self.positives, self.inner, self.temperature)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """The loss, each of its parts before weighting, and the accuracy on the training classes.

        Without a classifier the accuracy is the share of images whose nearest other image in the batch is of their
        class.
        """
        assert isinstance(batch, ImageBatch)
        maps = encode(batch.images)
        features = maps.mean((-2, -1))
        parts: list[tuple[str, float, Tensor]] = []
        if self.ce:
            scores = self.classifier(features)
            parts.append(("cross_entropy", self.ce, F.cross_entropy(scores, batch.labels)))
            accuracy = (scores.detach().argmax(-1) == batch.labels).float().mean()
        else:
            accuracy = precision_in_batch(features.detach().float(), batch.labels)
        if self.sc:
            parts.append(("spatial_contrast", self.sc, self.spatial(maps, batch.labels, batch.views)))
        if self.gc:
            parts.append(("global_contrast", self.gc, self.pooled(maps, batch.labels, batch.views)))
        loss = sum((weight * value for _, weight, value in parts), features.new_zeros(()))
        return {"loss": loss, "accuracy": accuracy, **{name: value.detach() for name, _, value in parts}}
