"""What one stage leaves to the next: its best model, what its objective learned, and a teacher where one is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fieldmark import methods
from fieldmark.backbones import Encoder, TrainedClassifier, TrainedHead, load_model
from fieldmark.classifiers.trained import keep as keep_classifier
from fieldmark.heads import Head
from fieldmark.heads.trained import keep
from fieldmark.training.checkpoints import load_state
from fieldmark.training.folder import RunFolder
from fieldmark.training.schema import NamedSpec, Stage


@dataclass(frozen=True)
class Finished:
    """A finished stage.

    Attributes:
        objective: What it minimised; None for a model that another run made.
        encoder: Its best model.
        weights: What its objective learned with it, by the names of the objective's state.
    """

    objective: NamedSpec | None
    encoder: Encoder
    weights: dict[str, Any]


def take_result(
    folder: RunFolder, stage: Stage, outcome: Mapping[str, Any], encoder: Encoder, class_names: Sequence[str]
) -> Finished:
    """Put a finished stage's best weights into ``encoder``, and beside it what was trained with them: head, classifier.

    A stage that trains none leaves none: what an earlier stage's head or classifier learned belongs to other features.

    Args:
        folder: The run.
        stage: The stage.
        outcome: What it left.
        encoder: The model to be changed.
        class_names: The classes that were trained on, in the order of their labels.

    Raises:
        FieldmarkError: If the stage's checkpoint is damaged.
    """
    weights = load_state(folder.stage(stage.name) / outcome["checkpoint"])["model"]
    encoder.load_state_dict(_under("encoder.", weights))
    learned = _under("objective.", weights)
    objective = methods.create(stage.objective.name, **stage.objective.options)
    encoder.head = trained_head(objective, learned)
    encoder.classifier = trained_classifier(objective, class_names, encoder.channels, learned)
    return Finished(stage.objective, encoder, learned)


def trained_head(objective: methods.Objective, learned: Mapping[str, Any] | None = None) -> TrainedHead | None:
    """The head that an objective trains, as a model carries it; None if it trains none.

    Args:
        objective: The objective.
        learned: Its state at another time, by the names of its state; default: as it is now.
    """
    head = getattr(objective, "head", None)
    if not isinstance(head, Head):
        return None
    return keep(head, None if learned is None else _under("head.", learned))


def trained_classifier(
    objective: methods.Objective,
    class_names: Sequence[str],
    channels: int,
    learned: Mapping[str, Any] | None = None,
) -> TrainedClassifier | None:
    """The classifier that an objective trains (its attribute ``classifier``), as a model carries it; None without one.

    Args:
        objective: The objective.
        class_names: The classes that are trained on.
        channels: Channels of the backbone's maps.
        learned: The objective's state at another time, by the names of its state, for an objective that need not be
            set up; default: as it is now.
    """
    state = None if learned is None else _under("classifier.", learned)
    if state:
        with torch.random.fork_rng(devices=[]):  # built to see what it is; its fresh weights do not count
            objective.setup(channels, len(class_names))
    elif state is not None:
        return None
    classifier = getattr(objective, "classifier", None)
    return keep_classifier(classifier, class_names, state) if isinstance(classifier, nn.Module) else None


def go_on_with(objective: methods.Objective, learned: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Give an objective what another of its name had learned, as far as it has the same parts.

    Args:
        objective: The objective; already set up.
        learned: By the names of the other's state.
        prefix: What stands before these names in the objective's own.

    Returns:
        The names of what was taken over.

    Example:
        >>> first, second = methods.create("cross_entropy"), methods.create("cross_entropy", rotation_weight=0.1)
        >>> first.setup(8, 3), second.setup(8, 3)
        (None, None)
        >>> go_on_with(second, first.state_dict())
        ['classifier.weight', 'classifier.bias']
    """
    own = objective.state_dict()
    named = {prefix + key: value for key, value in learned.items()}
    fitting = {key: value for key, value in named.items() if key in own and own[key].shape == value.shape}
    objective.load_state_dict({**own, **fitting})
    return list(fitting)


def go_on_with_classifier(objective: methods.Objective, encoder: Encoder, class_names: Sequence[str]) -> list[str]:
    """Give an objective the classifier that a model brings, where both are of one kind and of the same classes.

    Returns:
        The names of what was taken over.
    """
    brought, own = encoder.classifier, trained_classifier(objective, class_names, encoder.channels)
    if brought is None or own is None or (brought.name, brought.class_names) != (own.name, own.class_names):
        return []
    plain = isinstance(getattr(objective, "classifier", None), nn.Linear)  # its state has no name for the layer
    weights = {key.removeprefix("layer.") if plain else key: value for key, value in brought.weights.items()}
    return go_on_with(objective, weights, "classifier.")


def find_teacher(stage: Stage, before: Finished | None) -> tuple[Finished | None, dict[str, Any] | None]:
    """The model that a stage learns from, and the facts of one that was not made by this run.

    A run folder holds what the objective of its last stage had learned (the classifier); a model file does not.

    Args:
        stage: Names its objective, and the teacher.
        before: What the stage before left.

    Returns:
        Nothing at all for an objective without a teacher.

    Raises:
        FieldmarkError: If there is no readable model where the stage says.
    """
    if not methods.OBJECTIVES.get(stage.objective.name).make.needs_teacher:  # type: ignore[attr-defined]
        return None, None
    if stage.teacher == "previous":
        return before, None
    encoder, facts = load_model(stage.teacher)
    learned: dict[str, Any] = {}
    if Path(stage.teacher).is_dir() and facts.get("stages"):
        last = facts["stages"][-1]
        path = RunFolder(Path(stage.teacher)).stage(last["stage"]) / last["checkpoint"]
        learned = _under("objective.", load_state(path)["model"])
    return Finished(None, encoder, learned), facts


def _under(prefix: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
