"""Classifiers that were trained with a model: kept with it, and made again for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fieldmark.backbones import TrainedClassifier
from fieldmark.backbones.trained_parts import copied, give_weights
from fieldmark.classifiers.base import CLASSIFIERS, Classifier
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor


def classifier_of(model: Any, **options: Any) -> Classifier:
    """The classifier that a model was trained with.

    Args:
        model: An encoder, of which ``classifier`` and ``channels`` count.
        options: What differs from its training (``shared=True`` ...).

    Returns:
        The classifier in evaluation mode, on the model's device; its scores are of
        ``model.classifier.class_names``, in that order.

    Raises:
        FieldmarkError: If the model brings none, an option is unknown, or it has parts that were not trained.

    Example:
        >>> from fieldmark import backbones
        >>> encoder = backbones.Encoder(backbones.create("conv4", channels=8), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
        >>> trained = CLASSIFIERS.create("linear")
        >>> trained.setup(encoder.channels, 2)
        >>> encoder.classifier = keep(trained, ["apple", "pear"])
        >>> classifier_of(encoder)(encoder, torch.rand(3, 3, 32, 32)).shape
        torch.Size([3, 2])
        >>> encoder.classifier = None
        >>> classifier_of(encoder)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: this model has no classifier of its own; ...
    """
    trained = getattr(model, "classifier", None)
    if not isinstance(trained, TrainedClassifier):
        raise FieldmarkError(
            "this model has no classifier of its own; use one whose last stage trained one (cross_entropy ...), or "
            "fit a head on training images (--head logistic)"
        )
    made = CLASSIFIERS.create(trained.name, **{**trained.options, **options})
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
        made.setup(int(model.channels), len(trained.class_names))
    return give_weights(made, trained, int(model.channels), options).to(getattr(model, "device", "cpu"))


def keep(
    classifier: nn.Module, class_names: Sequence[str], weights: Mapping[str, Tensor] | None = None
) -> TrainedClassifier | None:
    """What a model that was trained with this classifier is to carry; None for a module that is none.

    Args:
        classifier: A classifier that was made by name, or a linear layer on the pooled map, which is "linear".
        class_names: The classes it was trained on.
        weights: Its learned state; default: as it is now, copied.

    Raises:
        FieldmarkError: For a classifier that was not made by name, which could not be made again.

    Example:
        >>> keep(nn.Linear(8, 2), ["apple", "pear"]).name
        'linear'
        >>> keep(nn.Identity(), ["apple", "pear"]) is None
        True
    """
    if type(classifier) is nn.Linear:
        state = classifier.state_dict() if weights is None else weights
        named = {f"layer.{key}": value for key, value in state.items()}
        return TrainedClassifier("linear", {"dropout": 0.0}, copied(named), tuple(class_names))
    if not isinstance(classifier, Classifier):
        return None
    if classifier.made_as is None:
        raise FieldmarkError(
            f"classifier {type(classifier).__name__} was not made by name, and no file could say what it is; make it "
            "with fieldmark.classifiers.create"
        )
    name, options = classifier.made_as
    state = classifier.state_dict() if weights is None else weights
    return TrainedClassifier(name, dict(options), copied(state), tuple(class_names))
