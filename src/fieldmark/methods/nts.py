"""NTS-Net: a navigator learns which parts tell the classes apart, and a classifier decides by them."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from fieldmark import classifiers
from fieldmark.classifiers.nts import NTSClassifier
from fieldmark.errors import FieldmarkError
from fieldmark.functional.part_losses import ranking_loss
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.shapes import Float, Int, Tensor


@OBJECTIVES.add("nts", "whole image and parts by a navigator that learns their order", source="Yang et al. 2018")
class NTS(Objective):
    """Cross-entropies of whole image, parts and both together, and the ranking loss of the navigator.

    Source: "Learning to navigate for fine-grained classification" (Yang et al. 2018), eq. 2 to 5; the base of SSANET.
    The classifier is ``"nts"``. The confidence of a part is the log-probability of the true class that it gives alone.

    Args:
        ranking_weight: Of the ranking loss, at least 0.
        options: Of the classifier (:class:`fieldmark.classifiers.NTSClassifier`): ``parts`` ...

    Raises:
        FieldmarkError: For an unknown option or a value out of range.

    Example:
        >>> import torch
        >>> objective = NTS()
        >>> objective.setup(channels=8, classes=3)
        >>> batch = ImageBatch(torch.zeros(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))
        >>> sorted(objective(lambda images: torch.rand(len(images), 8, 2, 2), batch))
        ['accuracy', 'cross_entropy', 'loss', 'parts', 'ranking', 'whole']
    """

    classifier: NTSClassifier

    def __init__(self, ranking_weight: float = 1.0, **options: Any) -> None:
        super().__init__()
        check_weight("ranking_weight", "nts", ranking_weight)
        self.ranking_weight = ranking_weight
        self.classifier = classifiers.create("nts", **options)  # type: ignore[assignment]

    def setup(self, channels: int, classes: int) -> None:
        """Build the classifier."""
        self.classifier.setup(channels, classes)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss, its parts, and the accuracy of whole image and parts together."""
        assert isinstance(batch, ImageBatch)
        found = self.classifier.look(encode, batch.images)
        losses = {
            "cross_entropy": F.cross_entropy(found.logits, batch.labels),
            "whole": F.cross_entropy(found.whole, batch.labels),
            "parts": part_cross_entropy(found.parts, batch.labels),
            "ranking": ranking_loss(found.found.scores, confidences(found.parts, batch.labels)),
        }
        loss = sum(losses.values()) + (self.ranking_weight - 1) * losses["ranking"]
        return {"loss": loss, "accuracy": share_right(found.logits, batch.labels), **detached(losses)}


def part_cross_entropy(scores: Float[Tensor, "B M L"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of parts that are each to tell the class alone.

    Example:
        >>> import torch
        >>> part_cross_entropy(torch.zeros(2, 3, 4), torch.tensor([0, 1]))
        tensor(1.3863)
    """
    return F.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(scores.shape[1]))


def confidences(scores: Float[Tensor, "B M L"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B M"]:
    """The log-probability of the true class that each part gives.

    Example:
        >>> import torch
        >>> confidences(torch.zeros(1, 2, 4), torch.tensor([3]))
        tensor([[-1.3863, -1.3863]])
    """
    every = scores.detach().float().log_softmax(-1)
    return every.gather(2, labels.view(-1, 1, 1).expand(-1, scores.shape[1], 1)).squeeze(2)


def share_right(scores: Float[Tensor, "B L"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """The share of images whose class has the largest score.

    Example:
        >>> import torch
        >>> share_right(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([0, 1]))
        tensor(0.5000)
    """
    return (scores.detach().argmax(1) == labels).float().mean()


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values to be logged."""
    return {name: value.detach() for name, value in values.items()}


def check_weight(option: str, objective: str, value: float) -> None:
    """Refuse weights below 0.

    Example:
        >>> check_weight("mac_weight", "ssanet", -1)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: mac_weight of objective ssanet is -1; expected a number of at least 0
    """
    if not 0 <= value < float("inf"):
        raise FieldmarkError(f"{option} of objective {objective} is {value}; expected a number of at least 0")
