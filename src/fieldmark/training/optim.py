"""Optimisers and schedules by name."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import torch

from fieldmark.training.schema import OptimizerSpec, ScheduleSpec


def make_optimizer(
    spec: OptimizerSpec, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimiser of a stage, over the parameters that are not frozen, or groups of them as torch has them.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> make_optimizer(OptimizerSpec(name="adam", lr=0.001), [weight]).defaults["lr"]
        0.001
    """
    decay = spec.weight_decay
    if spec.name == "sgd":
        return torch.optim.SGD(parameters, spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=decay)
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return kind(parameters, spec.lr, weight_decay=decay)


def learning_rate_factor(spec: ScheduleSpec, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by after ``epoch`` of ``epochs`` epochs (a fraction within an epoch).

    Args:
        spec: ``constant``, ``step`` (times gamma every ``step_size`` epochs), ``multistep`` (times gamma at each
            milestone) or ``cosine`` (to zero at the end); all after ``warmup`` epochs of linear increase.
        epoch: Epochs done.
        epochs: Epochs in all.

    Example:
        >>> spec = ScheduleSpec(name="multistep", milestones=[2, 4], gamma=0.1)
        >>> [round(learning_rate_factor(spec, epoch, 5), 3) for epoch in (0, 1.9, 2, 4.5)]
        [1.0, 1.0, 0.1, 0.01]
    """
    factor = 1.0
    if spec.name == "step":
        factor = spec.gamma ** (int(epoch) // spec.step_size)
    elif spec.name == "multistep":
        factor = spec.gamma ** bisect_right(spec.milestones, epoch)
    elif spec.name == "cosine":
        done = (epoch - spec.warmup) / max(epochs - spec.warmup, 1e-9)
        factor = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    if epoch < spec.warmup:
        # From a hundredth upwards: a first step of rate zero would teach nothing but still move the statistics.
        factor *= max(epoch / spec.warmup, 0.01)
    return factor


def make_schedule(
    spec: ScheduleSpec, optimizer: torch.optim.Optimizer, epochs: int, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule, to be advanced after every step."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(spec, step / steps_per_epoch, epochs)
    )
