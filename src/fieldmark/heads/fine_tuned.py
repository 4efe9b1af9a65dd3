"""Linear layers fine-tuned on the support set by gradient descent, all episodes at once.

The gradients are written out, so that the heads work without autograd in evaluation, and remain differentiable where
a graph is wanted. Descent takes the whole support set at each step (the papers draw batches of 4): the result then
depends on no random number and on no order of images or classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.heads.features import Features, kind_of, score_features
from fieldmark.shapes import Tensor

Optimiser = Literal["sgd", "adam"]
Start = Literal["zero", "imprinted"]


class _FineTuned(Head):
    """Options and descent that both layers share."""

    descriptors: Kind = "pooled"
    name: ClassVar[str]

    def __init__(
        self, steps: int, lr: float, optimiser: Optimiser, weight_decay: float, features: Features = "global"
    ) -> None:
        super().__init__()
        self.descriptors = kind_of(self.name, features)
        self.features = features
        if steps < 0 or weight_decay < 0:
            raise FieldmarkError(
                f"steps and weight_decay of head {self.name} are {steps} and {weight_decay}; expected 0 or more"
            )
        check_positive(self.name, lr=lr)
        check_option(self.name, "optimiser", optimiser, get_args(Optimiser))
        self.steps, self.lr, self.optimiser, self.weight_decay = steps, lr, optimiser, weight_decay

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits of the tuned layer; of two layers the logarithm of their joint probability."""
        return score_features(self.features, support, query, lambda s, q: self._tuned(s, labels, q, way))

    def _tuned(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits ``(E, Q, way)`` of vectors ``(E, Q, d)`` by a layer tuned to vectors ``(E, S, d)``."""
        raise NotImplementedError

    def _descend(self, parameters: list[Tensor], gradients: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
        """SGD with momentum 0.9, or Adam (0.9, 0.999), from the parameters along the gradients."""
        first = [torch.zeros_like(p) for p in parameters]
        second = [torch.zeros_like(p) for p in parameters]
        for step in range(1, self.steps + 1):
            slopes = [g + self.weight_decay * p for g, p in zip(gradients(parameters), parameters, strict=True)]
            if self.optimiser == "sgd":
                first = [0.9 * m + g for m, g in zip(first, slopes, strict=True)]
                updates = first
            else:
                first = [0.9 * m + 0.1 * g for m, g in zip(first, slopes, strict=True)]
                second = [0.999 * v + 0.001 * g.square() for v, g in zip(second, slopes, strict=True)]
                # The small number is under the root: the root's own slope at zero is infinite.
                updates = [
                    m / (1 - 0.9**step) / (v / (1 - 0.999**step) + 1e-16).sqrt()
                    for m, v in zip(first, second, strict=True)
                ]
            parameters = [p - self.lr * u for p, u in zip(parameters, updates, strict=True)]
        return parameters


@HEADS.add(
    "cosine_classifier",
    "cosine classifier fine-tuned on the support set, from its prototypes",
    source="Chen et al. 2019 (Baseline++)",
)
class CosineClassifier(_FineTuned):
    """Scaled cosines to class weights that are fine-tuned on the support set with their scale.

    Source: Baseline++ (Chen et al. 2019; momentum SGD at 0.01). Differs: whole support set a step, start at the class
    means of the unit vectors instead of random numbers (weight imprinting; ``steps=0`` stays there).

    Args:
        steps: Updates.
        lr: Learning rate of the weights and of the logarithm of the scale.
        optimiser: ``"sgd"`` or ``"adam"``.
        weight_decay: Decay of the weights and of that logarithm; Baseline++ has 0.001, which does nothing to cosines.
        scale: Where the scale starts.
        features: ``"global"``, ``"spatial"``, or a classifier for each and the ``"sum"`` or ``"max"`` of their
            probabilities, see :func:`fieldmark.heads.features.score_features` (SCL's Table B.2 imprints weights so).

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> CosineClassifier(steps=5)(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    name = "cosine_classifier"

    def __init__(
        self,
        steps: int = 100,
        lr: float = 0.01,
        optimiser: Optimiser = "sgd",
        weight_decay: float = 0.0,
        scale: float = 10.0,
        features: Features = "global",
    ) -> None:
        super().__init__(steps, lr, optimiser, weight_decay, features)
        check_positive(self.name, scale=scale)
        self.scale = scale

    def _tuned(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scaled cosines to the tuned weights."""
        features = functional.l2_normalise(support)
        target = functional.one_hot(labels, way, features.dtype)

        def gradients(parameters: list[Tensor]) -> list[Tensor]:
            weight, log_scale = parameters
            length = torch.linalg.vector_norm(weight, dim=-1, keepdim=True).clamp_min(1e-12)
            direction, scale = weight / length, log_scale.exp()
            cosines = features @ direction.mT
            residual = (torch.softmax(scale * cosines, -1) - target) / features.shape[1]
            slope = scale * residual.mT @ features
            along = (slope * direction).sum(-1, keepdim=True)
            return [
                (slope - along * direction) / length,
                scale * (residual * cosines).sum((1, 2), keepdim=True),
            ]

        start = functional.class_prototypes(features, labels, way)
        log_scale = torch.full_like(start[:, :1, :1], self.scale).log()
        weight, log_scale = self._descend([start, log_scale], gradients)
        return functional.cosine_linear(query, weight, log_scale.exp())


@HEADS.add("linear", "linear layer fine-tuned on the support set, from zero", source="Chen et al. 2019 (Baseline)")
class Linear(_FineTuned):
    """Logits of a linear layer that is fine-tuned on the support set.

    Source: Baseline (Chen et al. 2019; momentum SGD at 0.01, weight decay 0.001). Differs: whole support set a step,
    start at zero.

    Args:
        steps: Updates.
        lr: Learning rate.
        optimiser: ``"sgd"`` or ``"adam"``.
        weight_decay: Decay of weights and bias.
        normalise: Scale the vectors to unit length first (they then need a learning rate near 1).
        start: ``"zero"``, or ``"imprinted"``: the class means of the support vectors at unit length, as their weights
            (Qi et al. 2018; SCL's Table B.2).
        features: As of :class:`CosineClassifier`.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Linear(steps=5)(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    name = "linear"

    def __init__(
        self,
        steps: int = 100,
        lr: float = 0.01,
        optimiser: Optimiser = "sgd",
        weight_decay: float = 0.001,
        normalise: bool = False,
        start: Start = "zero",
        features: Features = "global",
    ) -> None:
        super().__init__(steps, lr, optimiser, weight_decay, features)
        check_option(self.name, "start", start, get_args(Start))
        self.normalise, self.start = normalise, start

    def _tuned(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits of the tuned layer."""
        if self.normalise:
            support, query = functional.l2_normalise(support), functional.l2_normalise(query)
        target = functional.one_hot(labels, way, support.dtype)

        def gradients(parameters: list[Tensor]) -> list[Tensor]:
            weight, bias = parameters
            residual = (torch.softmax(support @ weight.mT + bias, -1) - target) / support.shape[1]
            return [residual.mT @ support, residual.sum(1, keepdim=True)]

        weight = support.new_zeros(support.shape[0], way, support.shape[2])
        if self.start == "imprinted":
            directions = functional.l2_normalise(support)
            weight = functional.l2_normalise(functional.class_prototypes(directions, labels, way))
        weight, bias = self._descend([weight, support.new_zeros(support.shape[0], 1, way)], gradients)
        return query @ weight.mT + bias
