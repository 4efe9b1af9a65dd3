"""What one stage leaves to the next: its best model, what its objective learned, and a teacher where one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark import methods
from fieldmark.backbones import Encoder, load_model
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
    """Put a finished stage's best weights into ``encoder``.

    Raises:
        FieldmarkError: If the stage's checkpoint is damaged.
    """
    weights = load_state(folder.stage(stage.name) / outcome["checkpoint"])["model"]
    encoder.load_state_dict(_under("encoder.", weights))
    return Finished(stage.objective, encoder, _under("objective.", weights))


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
