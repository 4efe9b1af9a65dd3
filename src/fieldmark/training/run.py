"""Run a recipe: its stages in order, then its evaluations; done again after an interruption, it goes on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from fieldmark import backbones
from fieldmark.backbones import Encoder, load_model, save_model
from fieldmark.data import ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.training.evaluate import run_evaluations
from fieldmark.training.folder import RunFolder
from fieldmark.training.handover import Finished, find_teacher, take_result
from fieldmark.training.job import Job
from fieldmark.training.recipe import Recipe
from fieldmark.training.schema import BEST_TEST_EPOCH, Stage
from fieldmark.training.seeds import derive
from fieldmark.training.splits import Splits, Stores


def is_main_process() -> bool:
    """Whether this process writes files and prints; with one process it does."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def train(
    recipe: Recipe,
    out: str | Path = "runs",
    resume: bool = True,
    *,
    data: Stores | None = None,
    evaluate: bool = True,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train and evaluate a recipe.

    Args:
        recipe: What to do, from :func:`fieldmark.training.load_recipe`.
        out: Folder that gets the run's folder, named after the recipe.
        resume: Go on where an interrupted run of the same recipe stopped; False: remove that run and begin anew.
        data: Images by split, in place of those the recipe names.
        evaluate: Run the recipe's evaluations afterwards.
        callbacks: Further Lightning callbacks, for all stages; their state is not part of the checkpoints.

    Returns:
        The run's folder: ``recipe.yaml`` as resolved, ``metrics.csv``, ``tensorboard/``, ``stages/NAME/`` with
        checkpoints, ``model.safetensors``, and ``results/`` with a JSON file an evaluation.

    Raises:
        FieldmarkError: For data that does not fit the recipe, a folder that holds another recipe's run, or a loss
            that is no longer finite.
        TrainingInterrupted: After Ctrl-C or a termination signal; what was done is saved.

    Example:
        >>> import tempfile
        >>> from fieldmark.training import load_recipe
        >>> small = {"data.size": 16, "stages.classify.epochs": 1, "stages.classify.steps_per_epoch": 1,
        ...          "stages.classify.batch_size": 8, "stages.classify.validation": None,
        ...          "stages.episodes.epochs": 1, "stages.episodes.steps_per_epoch": 1,
        ...          "stages.episodes.validation": None, "evaluations": []}
        >>> recipe = load_recipe("baseline/glyphs_conv4", small)
        >>> sorted(path.name for path in train(recipe, tempfile.mkdtemp()).iterdir())
        ['metrics.csv', 'model.safetensors', 'recipe.yaml', 'stages', 'tensorboard']
    """
    folder = RunFolder(Path(out) / recipe.name)
    if is_main_process():
        folder.claim(recipe, resume)
    splits = Splits(recipe.data, data or {}, recipe.seed)
    encoder = _new_encoder(recipe, splits, derive(recipe.seed, "weights"))
    facts = _with_origin(_facts(recipe, splits, encoder), encoder.backbone.facts.get("origin"))
    outcomes: list[dict[str, Any]] = []
    before: Finished | None = None
    for stage in recipe.stages:
        # The teacher comes first: the stage may go on training the very model that the stage before left.
        teacher, taught_by = find_teacher(stage, before)
        encoder, started_from = _starting_point(recipe, stage, splits, encoder)
        facts = _with_origin(_with_origin(facts, started_from), taught_by)
        rows = [row for one in outcomes for row in one["rows"]]
        job = Job(recipe, stage, splits, encoder, folder, before, rows, callbacks, teacher)
        outcome = folder.outcome(stage.name) or job.run()
        before = take_result(folder, stage, outcome, encoder, splits.train.class_names)
        outcomes.append(outcome)
    encoder.eval().requires_grad_(True)
    if not is_main_process():
        return folder.path
    stages = [{key: value for key, value in one.items() if key != "rows"} for one in outcomes]
    origin = facts
    facts = {**origin, "stages": stages, **_part_facts(encoder), **_selection(stages, origin)}
    if not folder.model.exists():
        save_model(folder.model, encoder, facts)
    if evaluate:
        _evaluate(recipe, encoder.to(device_of(recipe)), facts, origin, splits, folder)
    return folder.path


def _evaluate(
    recipe: Recipe,
    encoder: Encoder,
    facts: dict[str, Any],
    origin: dict[str, Any],
    splits: Splits,
    folder: RunFolder,
) -> None:
    """The evaluations of the finished model, and those of what its earlier stages left."""
    for name in dict.fromkeys(one.stage for one in recipe.evaluations):
        chosen = replace(recipe, evaluations=[one for one in recipe.evaluations if one.stage == name])
        model, known = encoder, facts
        if name is not None:
            number = [stage.name for stage in recipe.stages].index(name)
            model = copy.deepcopy(encoder)
            take_result(folder, recipe.stages[number], facts["stages"][number], model, splits.train.class_names)
            stages = facts["stages"][: number + 1]
            known = {**origin, "stages": stages, **_part_facts(model), **_selection(stages, origin)}
        run_evaluations(chosen, model, known, splits.get, folder.results)


def _new_encoder(recipe: Recipe, splits: Splits, seed: int) -> Encoder:
    torch.manual_seed(seed)
    backbone = backbones.create(recipe.backbone.name, **recipe.backbone.options)
    mean, std = backbone.mean, backbone.std
    if mean is None or std is None:
        facts = splits.train.manifest
        mean, std = facts.mean, facts.std  # type: ignore[assignment]
        if mean is None or std is None:
            mean, std = _colour_statistics(splits.train)  # type: ignore[assignment]
    return Encoder(backbone, mean, std, crop=recipe.data.crop)


def _colour_statistics(store: ImageStore, images: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over up to ``images`` images spread over the data."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(images, len(store))).astype(int))
    pixels = store.gather(chosen).float() / 255
    return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).clamp_min(1e-3).tolist()


def _starting_point(
    recipe: Recipe, stage: Stage, splits: Splits, encoder: Encoder
) -> tuple[Encoder, dict[str, Any] | None]:
    if stage.start == "previous":
        return encoder.requires_grad_(True), None
    if stage.start == "scratch":
        return _new_encoder(recipe, splits, derive(recipe.seed, stage.name, "weights")), None
    loaded, facts = load_model(stage.start)
    wanted, found = encoder.backbone, loaded.backbone
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (wanted, found)]
    if shapes[0] != shapes[1]:
        raise FieldmarkError(
            f"recipe key stages.{stage.name}.start: {stage.start} holds a {found.name!r} backbone with options "
            f"{found.options}; the recipe's is {wanted.name!r} with {wanted.options}"
        )
    return loaded.train().requires_grad_(True), facts


def _facts(recipe: Recipe, splits: Splits, encoder: Encoder) -> dict[str, Any]:
    from fieldmark.evaluation import provenance

    store = splits.train
    held = recipe.data.held_out
    return {
        "recipe": recipe.name,
        "recipe_yaml": _without_places(recipe).to_yaml(),
        "seed": recipe.seed,
        "manifest": store.manifest.to_dict(),
        "descriptors": {"name": recipe.descriptors.name, "options": recipe.descriptors.options},
        **({} if held is None else {"held_out": {"share": held, "images": len(splits.held_out)}}),
        "training_classes": {store.manifest.name: list(store.class_names)},
        "pretraining": encoder.backbone.facts.get("pretraining", "none"),
        "provenance": provenance(),
    }


def _part_facts(encoder: Encoder) -> dict[str, Any]:
    """What is known of a model by the head and the classifier that were trained with it; nothing if none was."""
    parts = [part for part in (encoder.head, encoder.classifier) if part is not None]
    return {part.kind: {"name": part.name, "options": part.options} for part in parts}


def _selection(stages: Sequence[dict[str, Any]], facts: dict[str, Any]) -> dict[str, str]:
    """Whether test images had a say in which weights the model has; such a model says so in all its results."""
    told = any(one.get("selected_by") == BEST_TEST_EPOCH for one in stages)
    return {"model_selection": BEST_TEST_EPOCH} if told or facts.get("model_selection") == BEST_TEST_EPOCH else {}


def _without_places(recipe: Recipe) -> Recipe:
    """Where one machine keeps its data is no part of a model."""
    evaluations = [
        one if one.data is None else replace(one, data=replace(one.data, root=None)) for one in recipe.evaluations
    ]
    return replace(recipe, data=replace(recipe.data, root=None), evaluations=evaluations)


def _with_origin(facts: dict[str, Any], origin: dict[str, Any] | None) -> dict[str, Any]:
    """Classes that the starting model had seen count as seen."""
    if not origin:
        return facts
    classes = {name: list(known) for name, known in facts["training_classes"].items()}
    for name, known in dict(origin.get("training_classes") or {}).items():
        classes[name] = sorted({*classes.get(name, []), *known})
    pretraining = origin.get("pretraining") or facts["pretraining"]
    selection = {key: origin[key] for key in ("model_selection",) if key in origin}
    return {**facts, **selection, "training_classes": classes, "pretraining": pretraining}


def device_of(recipe: Recipe) -> torch.device:
    """Where a recipe's model is evaluated: on an accelerator where there is one and the recipe does not forbid it."""
    wanted = recipe.trainer.get("accelerator", "auto")
    if wanted != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device("cpu")
