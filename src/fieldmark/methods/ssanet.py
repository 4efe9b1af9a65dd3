"""SSANET: parts that mean the same in every image, with aligned scales and orientations."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch.nn import functional as F

from fieldmark import classifiers
from fieldmark.classifiers.ssanet import SSANetClassifier
from fieldmark.errors import unknown_name
from fieldmark.functional.part_losses import mac_loss, ranking_loss
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.methods.nts import check_weight, confidences, detached, part_cross_entropy, share_right
from fieldmark.shapes import Tensor

Reduction = Literal["mean", "paper_sum"]


@OBJECTIVES.add(
    "ssanet", "parts with aligned meaning (MAC), scales (DSM) and orientations (OP)", source="SSANET, eq. 1 to 13"
)
class SSANet(Objective):
    """Ranking loss of the navigator, cross-entropies of parts, scales and orientations, and the MAC loss.

    Source: SSANET, eq. 1 for the proposals, and a cross-entropy each for DSM (eq. 7) and OP (eq. 13). The classifier is
    ``"ssanet"``. There is no switch for the paper's stages: the losses are those of the parts that the classifier has
    (``dsm``, ``pooling``), and what a recipe's stage freezes learns nothing. All in one stage is the paper's joint
    variant.

    Args:
        mac_weight: lambda, at least 0.
        reduction: Of eq. 1: ``"mean"`` over images and parts, and over pairs of images; ``"paper_sum"``, as printed.
        ranking_weight: Of the ranking loss, at least 0.
        options: Of the classifier (:class:`fieldmark.classifiers.SSANetClassifier`): ``parts`` ...

    Raises:
        FieldmarkError: For an unknown option or a value out of range.

    Example:
        >>> objective = SSANet(dsm="none", pooling="gap")  # ResNet-50(P) + MAC of Table 3
        >>> objective.setup(channels=8, classes=3)
        >>> batch = ImageBatch(torch.zeros(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))
        >>> sorted(objective(lambda images: torch.rand(len(images), 8, 2, 2), batch))
        ['accuracy', 'loss', 'mac', 'parts', 'ranking']
    """

    classifier: SSANetClassifier

    def __init__(
        self, mac_weight: float = 0.5, reduction: Reduction = "mean", ranking_weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__()
        check_weight("mac_weight", "ssanet", mac_weight)
        check_weight("ranking_weight", "ssanet", ranking_weight)
        if reduction not in get_args(Reduction):
            raise unknown_name("reduction of objective ssanet", reduction, get_args(Reduction))
        self.mac_weight, self.reduction, self.ranking_weight = mac_weight, reduction, ranking_weight
        self.classifier = classifiers.create("ssanet", **options)  # type: ignore[assignment]

    def setup(self, channels: int, classes: int) -> None:
        """Build the classifier."""
        self.classifier.setup(channels, classes)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss, its parts, and the accuracy of the sum of all scores."""
        assert isinstance(batch, ImageBatch)
        labels, network = batch.labels, self.classifier
        found = network.look(encode, batch.images, labels, network.proposals)
        best = found.parts[:, : network.parts]
        weights = {"ranking": self.ranking_weight, "mac": self.mac_weight}
        losses = {
            "ranking": ranking_loss(found.found.scores, confidences(found.parts, labels)),
            "parts": part_cross_entropy(best, labels) * (1 if self.reduction == "mean" else best[..., 0].numel()),
        }
        if self.mac_weight:
            losses["mac"] = mac_loss(found.vectors, self.reduction)
        for name, scores in (("scale", found.scale), ("oriented", found.oriented)):
            if scores is not None:
                losses[name] = F.cross_entropy(scores, labels)
        loss = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return {"loss": loss, "accuracy": share_right(found.logits, labels), **detached(losses)}
