"""What one stage leaves to the next: its best model, what its objective learned, and a teacher where one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark import methods
from fieldmark.backbones import Encoder, TrainedHead, load_model
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


def take_result(folder: RunFolder, stage: Stage, outcome: Mapping[str, Any], encoder: Encoder) -> Finished:
    """Put a finished stage's best weights into ``encoder``, and the head that was trained with them beside it.

    A stage that trains no head leaves none: what an earlier stage's head learned belongs to other features.

    Raises:
        FieldmarkError: If the stage's checkpoint is damaged.
    """
    weights = load_state(folder.stage(stage.name) / outcome["checkpoint"])["model"]
    encoder.load_state_dict(_under("encoder.", weights))
    learned = _under("objective.", weights)
    encoder.head = trained_head(methods.create(stage.objective.name, **stage.objective.options), learned)
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
