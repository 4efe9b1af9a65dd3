"""Classification of the training classes: the pre-training under most few-shot systems."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.shapes import Float, Int, Tensor

Rotation = Literal["none", "augment", "self_supervised"]
Angles = Literal["one", "all"]


@OBJECTIVES.add(
    "cross_entropy",
    "softmax classification of the training classes, with an optional rotation head",
    source="Tian et al. 2020 (RFS), eq. 2; Gidaris et al. 2018 and DeepEMD, Table 4 (rotation)",
)
class CrossEntropy(Objective):
    """Softmax cross-entropy of a linear classifier on pooled features.

    Source: "Rethinking few-shot image classification" (Tian et al. 2020), eq. 2:
    ``L = -mean_i log softmax(W f(x_i) + b)[y_i]`` with f the mean of the map over its positions. The rotation task is
    that of Gidaris et al. 2018, as DeepEMD uses it in pre-training (Table 4): a second, 4-way linear classifier names
    the angle, and its cross-entropy is added with ``rotation_weight`` 0.5.

    Args:
        rotation: ``"none"``; ``"augment"``: images are turned by 0, 90, 180 or 270 degrees and keep their class;
            ``"self_supervised"``: turned likewise, and the second classifier has to name the angle.
        angles: ``"one"`` random angle an image, or ``"all"`` four of each (the batch is then four times as large).
        rotation_weight: Weight of the rotation loss, above 0.

    Raises:
        FieldmarkError: For an unknown value, or a weight that is not positive.

    Example:
        >>> objective = CrossEntropy()
        >>> objective.setup(channels=8, classes=3)
        >>> batch = ImageBatch(torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
        >>> sorted(objective(lambda images: torch.ones(len(images), 8, 2, 2), batch))
        ['accuracy', 'loss']
    """

    classifier: nn.Linear
    rotation_classifier: nn.Linear

    def __init__(self, rotation: Rotation = "none", angles: Angles = "one", rotation_weight: float = 0.5) -> None:
        super().__init__()
        if rotation not in get_args(Rotation):
            raise unknown_name("rotation of objective cross_entropy", rotation, get_args(Rotation))
        if angles not in get_args(Angles):
            raise unknown_name("angles of objective cross_entropy", angles, get_args(Angles))
        if not rotation_weight > 0:
            raise FieldmarkError(
                f"rotation_weight of objective cross_entropy is {rotation_weight}; expected a number above 0 "
                "(for no rotation loss choose rotation: none or augment)"
            )
        self.rotation, self.angles, self.rotation_weight = rotation, angles, rotation_weight

    def setup(self, channels: int, classes: int) -> None:
        """Build the classifiers."""
        self.classifier = nn.Linear(channels, classes)
        if self.rotation == "self_supervised":
            self.rotation_classifier = nn.Linear(channels, 4)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss and accuracy on the training classes; with the rotation head, its accuracy as well."""
        assert isinstance(batch, ImageBatch)
        images, labels, turns = batch.images, batch.labels, None
        if self.rotation != "none":
            images, labels, turns = self._turned(images, labels)
        features = encode(images).mean((-2, -1))
        scores = self.classifier(features)
        loss = F.cross_entropy(scores, labels)
        out = {"loss": loss, "accuracy": _accuracy(scores, labels)}
        if self.rotation == "self_supervised":
            assert turns is not None
            guess = self.rotation_classifier(features)
            rotation_loss = F.cross_entropy(guess, turns)
            out["loss"] = loss + self.rotation_weight * rotation_loss
            out["rotation_loss"] = rotation_loss.detach()
            out["rotation_accuracy"] = _accuracy(guess, turns)
        return out

    def _turned(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.angles == "all":
            turns = torch.arange(4, device=images.device).repeat_interleave(len(images))
            return rotate_by_90(images.repeat(4, 1, 1, 1), turns), labels.repeat(4), turns
        turns = torch.randint(4, (len(images),), device=images.device)
        return rotate_by_90(images, turns), labels, turns


def rotate_by_90(images: Float[Tensor, "B C S S"], turns: Int[Tensor, "B"]) -> Float[Tensor, "B C S S"]:
    """Turn every image counter-clockwise by its own number of quarter turns.

    Args:
        images: Square images.
        turns: 0 to 3 for each.

    Raises:
        FieldmarkError: If the images are not square.

    Example:
        >>> corner = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> rotate_by_90(corner, torch.tensor([1]))
        tensor([[[[0., 0.],
                  [1., 0.]]]])
    """
    if images.shape[-1] != images.shape[-2]:
        raise FieldmarkError(f"images are {tuple(images.shape[-2:])}; turning by 90 degrees needs square ones")
    # Four whole-batch copies and a choice: no synchronisation with the device, unlike picking by a mask.
    every = torch.stack([torch.rot90(images, k, (-2, -1)) for k in range(4)])
    return every[turns, torch.arange(len(images), device=images.device)]


def _accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.detach().argmax(-1) == labels).float().mean()
