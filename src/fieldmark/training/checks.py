"""Refuse the numbers and combinations of a recipe that cannot be trained."""

from __future__ import annotations

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.training.schema import EvaluationSpec, Recipe, Stage


def check_values(recipe: Recipe) -> None:
    """Refuse numbers and combinations that cannot be trained.

    Raises:
        FieldmarkError: Names the key.
    """
    if not recipe.name or any(c in recipe.name for c in "/\\") or recipe.name.startswith("."):
        raise FieldmarkError(f"recipe key name is {recipe.name!r}; expected a plain folder name")
    if not recipe.stages:
        raise FieldmarkError("recipe key stages is empty; expected at least one stage")
    names = [stage.name for stage in recipe.stages]
    for name in names:
        if names.count(name) > 1 or not name.replace("_", "").replace("-", "").isalnum() or name.isdigit():
            raise FieldmarkError(
                f"stage name {name!r} is used twice or is not a word; expected letters, digits, - and _"
            )
    share = recipe.data.held_out
    if share is not None and not 0 < share < 1:
        raise FieldmarkError(f"recipe key data.held_out is {share}; expected a share between 0 and 1, such as 0.1")
    for stage in recipe.stages:
        _check_stage(stage)
        _check_validation(stage, share)
    for number, one in enumerate(recipe.evaluations):
        _check_task(number, one)
        for key in ("way", "shot", "queries", "episodes", "runs"):
            _at_least(f"evaluations.{number}.{key}", getattr(one, key), 2 if key == "way" else 1)
        _at_least(f"evaluations.{number}.support_copies", one.support_copies, 0)
        if one.stage is not None and one.stage not in names:
            raise unknown_name(f"stage of recipe key evaluations.{number}.stage", one.stage, names)
        if not one.heads:
            raise FieldmarkError(f"recipe key evaluations.{number}.heads is empty; expected at least one head")
    titles = [one.title(recipe.data.name) for one in recipe.evaluations]
    for title in titles:
        if titles.count(title) > 1:
            raise FieldmarkError(f"two evaluations would be saved as {title!r}; give one of them a name")


def _check_task(number: int, one: EvaluationSpec) -> None:
    """Refuse keys that the evaluation's task does not read, where they would be missed."""
    if one.task == "few-shot" and one.head is not None:
        raise FieldmarkError(f"recipe key evaluations.{number}.head is of tasks top1 and robustness; use heads: [NAME]")
    for key in ("runs", "support_copies"):
        if one.task != "few-shot" and getattr(one, key) != getattr(EvaluationSpec(), key):
            raise FieldmarkError(f"recipe key evaluations.{number}.{key} is of task few-shot; leave it out")


def _check_validation(stage: Stage, held_out: float | None) -> None:
    spec = stage.validation
    if spec is None:
        return
    place = f"stages.{stage.name}.validation"
    if spec.task == "few-shot" and spec.select != "held-out":
        raise FieldmarkError(f"recipe key {place}.select is of task top1; add task: top1, or leave it out")
    if spec.task == "top1" and spec.select == "held-out" and held_out is None:
        raise FieldmarkError(
            f"recipe key {place} selects by held-out training images, and none are held out; set data.held_out: 0.1, "
            "or choose select: val-split"
        )
    if spec.task == "top1" and spec.analysis:
        raise FieldmarkError(f"recipe key {place}.analysis is of task few-shot; leave it out")


def _check_stage(stage: Stage) -> None:
    place = f"stages.{stage.name}"
    _at_least(f"{place}.epochs", stage.epochs)
    _at_least(f"{place}.batch_size", stage.batch_size)
    _at_least(f"{place}.accumulate", stage.accumulate)
    if stage.freeze_epochs is not None:
        _at_least(f"{place}.freeze_epochs", stage.freeze_epochs)
        if not stage.freeze:
            raise FieldmarkError(
                f"recipe key {place}.freeze_epochs needs patterns of what is frozen; give {place}.freeze"
            )
    for name in ("steps_per_epoch", "images_per_class"):
        if getattr(stage, name) is not None:
            _at_least(f"{place}.{name}", getattr(stage, name))
    for key in ("way", "shot", "queries", "episodes_per_epoch", "episodes_per_step"):
        _at_least(f"{place}.episodes.{key}", getattr(stage.episodes, key), 2 if key == "way" else 1)
    if stage.validation is not None:
        for key in ("way", "shot", "queries", "episodes", "every"):
            _at_least(f"{place}.validation.{key}", getattr(stage.validation, key), 2 if key == "way" else 1)
    if not stage.optimizer.lr > 0:
        raise FieldmarkError(f"recipe key {place}.optimizer.lr is {stage.optimizer.lr}; expected a number above 0")
    rate = stage.optimizer.objective_lr
    if rate is not None and not rate > 0:
        raise FieldmarkError(f"recipe key {place}.optimizer.objective_lr is {rate}; expected a number above 0")
    for pattern, value in stage.optimizer.rates.items():
        if not value > 0:
            raise FieldmarkError(f"recipe key {place}.optimizer.rates.{pattern} is {value}; expected a number above 0")
    if stage.optimizer.name == "sgd" and stage.optimizer.nesterov and not stage.optimizer.momentum > 0:
        raise FieldmarkError(f"recipe key {place}.optimizer.nesterov is true, which needs a momentum above 0")
    _at_least(f"{place}.schedule.step_size", stage.schedule.step_size)
    if stage.schedule.milestones != sorted(stage.schedule.milestones):
        raise FieldmarkError(f"recipe key {place}.schedule.milestones must rise: {stage.schedule.milestones}")


def _at_least(key: str, value: int, least: int = 1) -> None:
    if value < least:
        raise FieldmarkError(f"recipe key {key} is {value}; expected at least {least}")
