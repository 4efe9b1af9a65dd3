"""Heads that were trained with a model: kept with it, and made again for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fieldmark.backbones import TrainedHead
from fieldmark.backbones.trained_parts import copied, give_weights
from fieldmark.errors import FieldmarkError
from fieldmark.heads.base import HEADS, Head
from fieldmark.shapes import Tensor


def create_for(model: Any, name: str, **options: Any) -> Head:
    """A head by name for a model: as it was trained with that model, or else a new one.

    Args:
        model: An encoder, of which ``head`` and ``channels`` count, or anything without a trained head.
        name: Name of the head.
        options: Its options; where the model was trained with a head of this name, those stand in for the ones that
            are not given. Parts that they switch off are left out.

    Returns:
        The head, in evaluation mode where it has learned something.

    Raises:
        FieldmarkError: For an unknown name or option, or parts that were not trained with this model.

    Example:
        >>> from fieldmark import backbones
        >>> encoder = backbones.Encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> encoder.head = backbones.TrainedHead("prototype", {"metric": "cosine", "scale": 10.0})
        >>> head = create_for(encoder, "prototype", scale=5.0)
        >>> head.made_as[1]["metric"], head.made_as[1]["scale"]
        ('cosine', 5.0)
    """
    trained = getattr(model, "head", None)
    if isinstance(trained, TrainedHead) and trained.name == name:
        return from_trained(trained, int(model.channels), **options)
    head = HEADS.create(name, **options)
    if head.learned:
        raise FieldmarkError(
            f"head {name!r} with these options has parts that are trained with a model, and this model brings none; "
            "switch them off, or use a model that was trained with an objective that has this head"
        )
    return head


def from_trained(trained: TrainedHead, channels: int, **options: Any) -> Head:
    """The head that was trained, or one with some of its options changed and the parts that it still needs.

    Args:
        trained: What was kept of it.
        channels: Channels of the maps it was trained on.
        options: Changes.

    Raises:
        FieldmarkError: If it has parts that were not trained, or of another shape.
    """
    head = HEADS.create(trained.name, **{**trained.options, **options})
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
        head.setup(channels)
    return give_weights(head, trained, channels, options)


def keep(head: Head, weights: Mapping[str, Tensor] | None = None) -> TrainedHead | None:
    """What a model that was trained with this head is to carry; None for a head that cannot learn anything.

    Args:
        head: Made by name.
        weights: Its learned state; default: as it is now, copied.

    Example:
        >>> keep(HEADS.create("prototype")) is None
        True
    """
    # Also with all parts switched off: the options it was trained with are those it is to be tested with.
    if head.made_as is None or type(head).setup is Head.setup:
        return None
    name, options = head.made_as
    state = head.state_dict() if weights is None else weights
    return TrainedHead(name, dict(options), copied(state))
