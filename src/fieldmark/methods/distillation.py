"""Distillation: a fresh student learns what a finished teacher says and how it sees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.methods.metric_learning import precision_in_batch
from fieldmark.shapes import Tensor


@OBJECTIVES.add(
    "distillation", "a student learns a teacher's predictions and features", source="Ouali et al. 2021, eq. 10 to 12"
)
class Distillation(Objective):
    """Knowledge distillation beside contrastive distillation.

    Source: "Spatial contrastive learning for few-shot classification" (Ouali et al. 2021), eq. 11 and 12:
    ``L = cd * (alpha * L_global + beta * L_spatial) + kl * L_KL``. L_global is the mean squared distance of the unit
    pooled vectors of teacher and student, L_spatial the same over the places of the maps, L_KL the Kullback-Leibler
    divergence at ``temperature``, times its square (Hinton et al. 2015). No label is used.

    The teacher is a recipe's stage before, or its key ``teacher``; it is frozen and in evaluation mode. The student is
    what the stage trains: with ``start: scratch`` a fresh one, and several such stages are born-again generations.

    Args:
        cd: Weight of the contrastive distillation.
        kl: Weight of the knowledge distillation; it needs the teacher's classifier.
        alpha: Share of the pooled vectors.
        beta: Share of the places of the maps (Table B.3: spatial 0 and 1; both 1 and 1).
        temperature: Of the knowledge distillation, above 0.

    Raises:
        FieldmarkError: For a negative weight, a temperature of 0, nothing to learn, or a teacher that does not fit.

    Example:
        >>> encode = nn.Conv2d(3, 8, 3)
        >>> objective = Distillation()
        >>> objective.setup(channels=8, classes=2)
        >>> objective.set_teacher(encode, objective.state_dict())
        >>> out = objective(encode, ImageBatch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])))
        >>> round(out["loss"].item(), 5)
        0.0
    """

    needs_teacher: ClassVar[bool] = True
    classifier: nn.Linear

    def __init__(
        self, cd: float = 10.0, kl: float = 1.0, alpha: float = 1.0, beta: float = 0.0, temperature: float = 4.0
    ) -> None:
        super().__init__()
        for name, value in (("cd", cd), ("kl", kl), ("alpha", alpha), ("beta", beta)):
            if not value >= 0:
                raise FieldmarkError(f"{name} of objective distillation is {value}; expected 0 or more")
        if not temperature > 0:
            raise FieldmarkError(f"temperature of objective distillation is {temperature}; expected a number above 0")
        if not cd * (alpha + beta) + kl > 0:
            raise FieldmarkError(
                "objective distillation has nothing to learn: kl is 0, and so is cd or both alpha and beta; "
                "give one of them a weight above 0"
            )
        self.cd, self.kl, self.alpha, self.beta, self.temperature = cd, kl, alpha, beta, temperature
        # In a tuple, so that it is no part of the state: checkpoints hold the student, and the teacher has its own.
        self._teacher: tuple[Teacher, ...] = ()

    def setup(self, channels: int, classes: int) -> None:
        """Build the student's classifier."""
        self.channels, self.classes = channels, classes
        if self.kl:
            self.classifier = nn.Linear(channels, classes)

    def set_teacher(self, encoder: nn.Module, learned: Mapping[str, Tensor]) -> None:
        """Take a copy of the teacher: its encoder, and its classifier where predictions are learned.

        Raises:
            FieldmarkError: If it has no classifier and ``kl`` is above 0, or one for another number of classes.
        """
        weights = [learned.get(f"classifier.{name}") for name in ("weight", "bias")] if self.kl else []
        if any(value is None for value in weights):
            raise FieldmarkError(
                "the teacher has no classifier to learn from; use a run whose last stage classifies (cross_entropy, "
                "scl, distillation), or set kl of objective distillation to 0"
            )
        if weights and len(weights[0]) != self.classes:  # type: ignore[arg-type]
            raise FieldmarkError(
                f"the teacher classifies {len(weights[0])} classes and the training split has {self.classes}; "  # type: ignore[arg-type]
                "use a teacher of the same split, or set kl of objective distillation to 0"
            )
        self._teacher = (Teacher(copy.deepcopy(encoder), *weights),)

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher.

        Raises:
            FieldmarkError: If none was given.
        """
        if not self._teacher:
            raise FieldmarkError("objective distillation has no teacher; give it one by set_teacher before training")
        return self._teacher[0]

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """The loss, each of its parts before weighting, and the accuracy of the student on the training classes."""
        assert isinstance(batch, ImageBatch)
        teacher = self.teacher.to(batch.images.device)
        target = teacher.encode(batch.images)
        maps = encode(batch.images)
        if maps.shape != target.shape and (self.cd and (self.beta or maps.shape[1] != target.shape[1])):
            raise FieldmarkError(
                f"the student's maps are {tuple(maps.shape[1:])} and the teacher's {tuple(target.shape[1:])}; "
                "contrastive distillation compares them value by value (set cd to 0, or use the same backbone)"
            )
        features = maps.mean((-2, -1))
        parts: list[tuple[str, float, Tensor]] = []
        if self.cd and self.alpha:
            apart = functional.contrastive_distillation(features.float(), target.mean((-2, -1)).float())
            parts.append(("global_distance", self.cd * self.alpha, apart))
        if self.cd and self.beta:
            apart = functional.contrastive_distillation(*(one.flatten(2).mT.float() for one in (maps, target)))
            parts.append(("spatial_distance", self.cd * self.beta, apart))
        if self.kl:
            scores = self.classifier(features)
            wanted = teacher.classify(target.mean((-2, -1)))
            divergence = functional.knowledge_distillation(scores.float(), wanted.float(), self.temperature)
            parts.append(("divergence", self.kl, divergence))
            accuracy = (scores.detach().argmax(-1) == batch.labels).float().mean()
        else:
            accuracy = precision_in_batch(features.detach().float(), batch.labels)
        loss = sum((weight * value for _, weight, value in parts), features.new_zeros(()))
        return {"loss": loss, "accuracy": accuracy, **{name: value.detach() for name, _, value in parts}}


class Teacher(nn.Module):
    """A finished model that never changes: no gradient, and its batch statistics stay where they are.

    Args:
        encoder: Images to maps; frozen here.
        weight: ``(K, C)`` of its classifier; None: it has none.
        bias: ``(K,)``.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, encoder: nn.Module, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("weight", None if weight is None else weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)``."""
        return self.encoder(images)

    @torch.no_grad()
    def classify(self, features: Tensor) -> Tensor:
        """Logits ``(B, K)`` of pooled features."""
        assert self.weight is not None
        return nn.functional.linear(features, self.weight.to(features.dtype), self.bias)
