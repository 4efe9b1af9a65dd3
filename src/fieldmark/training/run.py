"""Run a recipe: its stages in order, then its evaluations; done again after an interruption, it goes on."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from fieldmark import backbones, descriptors, methods
from fieldmark.backbones import Encoder, load_model, save_model
from fieldmark.data import ImageStore
from fieldmark.data import load as load_data
from fieldmark.errors import FieldmarkError
from fieldmark.methods.episodic import EpisodicObjective
from fieldmark.training.callbacks import Bar, Epochs, Interruptions, StopAfterStep, TrainingInterrupted, copy_file
from fieldmark.training.checkpoints import load_state
from fieldmark.training.evaluate import run_evaluations
from fieldmark.training.folder import RunFolder
from fieldmark.training.handover import (
    Finished,
    find_teacher,
    go_on_with,
    go_on_with_classifier,
    take_result,
    trained_head,
)
from fieldmark.training.loaders import EpisodeBatches, ImageBatches, Rank
from fieldmark.training.module import TrainingModule
from fieldmark.training.recipe import Recipe, find_logger
from fieldmark.training.schema import DataSpec, Stage
from fieldmark.training.seeds import derive

Stores = Mapping[str, ImageStore]


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
    splits = _Splits(recipe.data, data or {})
    encoder = _new_encoder(recipe, splits, derive(recipe.seed, "weights"))
    facts = _facts(recipe, splits, encoder)
    outcomes: list[dict[str, Any]] = []
    before: Finished | None = None
    for stage in recipe.stages:
        # The teacher comes first: the stage may go on training the very model that the stage before left.
        teacher, taught_by = find_teacher(stage, before)
        encoder, started_from = _starting_point(recipe, stage, splits, encoder)
        facts = _with_origin(_with_origin(facts, started_from), taught_by)
        rows = [row for one in outcomes for row in one["rows"]]
        job = _Job(recipe, stage, splits, encoder, folder, before, rows, callbacks, teacher)
        outcome = folder.outcome(stage.name) or job.run()
        before = take_result(folder, stage, outcome, encoder, splits.train.class_names)
        outcomes.append(outcome)
    encoder.eval().requires_grad_(True)
    if not is_main_process():
        return folder.path
    stages = [{key: value for key, value in one.items() if key != "rows"} for one in outcomes]
    facts = {**facts, "stages": stages, **_part_facts(encoder)}
    if not folder.model.exists():
        save_model(folder.model, encoder, facts)
    if evaluate:
        _evaluate(recipe, encoder.to(_device(recipe)), facts, splits, folder)
    return folder.path


def _evaluate(recipe: Recipe, encoder: Encoder, facts: dict[str, Any], splits: _Splits, folder: RunFolder) -> None:
    """The evaluations of the finished model, and those of what its earlier stages left."""
    for name in dict.fromkeys(one.stage for one in recipe.evaluations):
        chosen = replace(recipe, evaluations=[one for one in recipe.evaluations if one.stage == name])
        model, known = encoder, facts
        if name is not None:
            number = [stage.name for stage in recipe.stages].index(name)
            model = copy.deepcopy(encoder)
            take_result(folder, recipe.stages[number], facts["stages"][number], model, splits.train.class_names)
            known = {key: value for key, value in facts.items() if key not in ("head", "classifier")}
            known |= {"stages": facts["stages"][: number + 1], **_part_facts(model)}
        run_evaluations(chosen, model, known, splits.get, folder.results)


class _Splits:
    """The recipe's images, each split loaded when first needed."""

    def __init__(self, spec: DataSpec, given: Stores) -> None:
        self.spec, self.given = spec, given
        self._loaded: dict[tuple[str, str], ImageStore] = {}

    def get(self, split: str, spec: DataSpec | None = None) -> ImageStore:
        if spec is None and split in self.given:
            return self.given[split]
        of = spec or self.spec
        key = (repr(of), split)
        if key not in self._loaded:
            # Another data set is seen at the size the model was trained at, unless the recipe says otherwise.
            size = of.size if of.size is not None or spec is None else self.train.size
            self._loaded[key] = load_data(of.name, of.root, split, size=size, fit=of.fit)
        return self._loaded[key]

    @property
    def train(self) -> ImageStore:
        return self.get(self.spec.train)

    @property
    def val(self) -> ImageStore:
        return self.get(self.spec.val)


@dataclass
class _Job:
    """One stage, to be run from where it was interrupted."""

    recipe: Recipe
    stage: Stage
    splits: _Splits
    encoder: Encoder
    folder: RunFolder
    before: Finished | None
    earlier: list[dict[str, Any]]
    callbacks: Sequence[lightning.Callback] = ()
    teacher: Finished | None = None

    def run(self) -> dict[str, Any]:
        key = (self.recipe.seed, self.stage.name)
        epochs, module, batches, trainer = self._parts(key)
        if epochs.step < batches.steps:
            self._fit(trainer, module, batches, epochs)
        outcome = {
            "stage": self.stage.name,
            "epochs": self.stage.epochs,
            "steps": batches.steps,
            "best_epoch": epochs.best_epoch,
            "val_accuracy": epochs.best,
            "checkpoint": "best.ckpt" if self.stage.validation is not None else "last.ckpt",
            "rows": epochs.rows,
        }
        if trainer.is_global_zero:
            if self.stage.validation is not None and not (epochs.folder / "best.ckpt").exists():
                copy_file(epochs.last, epochs.folder / "best.ckpt")
            self.folder.finish(self.stage.name, outcome)
        trainer.strategy.barrier("stage finished")
        return outcome

    def _parts(self, key: tuple[int, str]) -> tuple[Epochs, TrainingModule, Any, lightning.Trainer]:
        place = self.folder.stage(self.stage.name)
        state = load_state(place / "last.ckpt") if (place / "last.ckpt").exists() else None
        validation = self.stage.validation
        epochs = Epochs(
            place, self.stage.name, self.stage.epochs, self._validate if validation is not None else None,
            validation.every if validation is not None else 1, state, self.earlier, self.folder.metrics,
        )  # fmt: skip
        callbacks: list[lightning.Callback] = [*self.callbacks, epochs, Interruptions(epochs)]
        trainer = _trainer(self.recipe, self.folder, self.stage, callbacks)
        batches = self._batches(key, Rank(trainer.global_rank, trainer.world_size), epochs.step)
        callbacks.append(bar := Bar(self.stage.name, batches, epochs))
        trainer.callbacks.append(bar)  # type: ignore[attr-defined]
        first, second = self._augment()
        module = TrainingModule(
            self.encoder, self._objective(key), first, self.stage, key, batches.steps_per_epoch, second
        )
        return epochs, module, batches, trainer

    def _batches(self, key: tuple[int, str], rank: Rank, start: int) -> Any:
        stage, store = self.stage, self.splits.train
        if methods.OBJECTIVES.get(stage.objective.name).make.sampling == "episodes":  # type: ignore[attr-defined]
            return EpisodeBatches(store, stage.episodes, stage.epochs, key, rank, start, stage.steps_per_epoch)
        return ImageBatches(
            store, stage.batch_size, stage.epochs, key, rank, start, stage.steps_per_epoch, stage.images_per_class
        )

    def _objective(self, key: tuple[int, str]) -> methods.Objective:
        objective = methods.create(self.stage.objective.name, **self.stage.objective.options)
        if isinstance(objective, EpisodicObjective):
            spec = self.recipe.descriptors
            objective.extractor = descriptors.create(spec.name, **spec.options)
        torch.manual_seed(derive(*key, "objective"))
        objective.setup(self.encoder.channels, len(self.splits.train.class_names))
        self._go_on(objective)
        if objective.needs_teacher:
            assert self.teacher is not None
            objective.set_teacher(self.teacher.encoder, self.teacher.weights)
        return objective

    def _go_on(self, objective: methods.Objective) -> None:
        """The next phase of a method goes on with its parts, be it of this run or of the model that it starts from."""
        before = self.before.objective if self.before is not None else None
        if self.stage.start == "previous" and before is not None and before.name == self.stage.objective.name:
            assert self.before is not None
            if before.options == self.stage.objective.options:
                objective.load_state_dict(self.before.weights)
            else:
                go_on_with(objective, self.before.weights)
        elif self.stage.start not in ("previous", "scratch"):
            brought, trained = self.encoder.head, trained_head(objective)
            if brought is not None and trained is not None and brought.name == trained.name:
                go_on_with(objective, brought.weights, "head.")
            go_on_with_classifier(objective, self.encoder, self.splits.train.class_names)

    def _augment(self) -> list[Any]:
        """How the first and the second view are made; None: not at all."""
        from fieldmark.data.augment import create_pipeline

        size = self.recipe.data.crop or min(self.splits.train.size)
        given = (
            (self.stage.augmentation, self.recipe.augmentation),
            (self.stage.second_view, self.recipe.second_view),
        )
        views = [everywhere if own is None else own for own, everywhere in given]
        return [create_pipeline(specs, size) if specs else None for specs in views]

    def _validate(self, module: TrainingModule) -> dict[str, float]:
        from fieldmark.evaluation import evaluate_heads

        spec = self.stage.validation
        assert spec is not None
        extractor = spec.descriptors or self.recipe.descriptors
        described: dict[str, dict[str, Any]] = {}
        module.encoder.head = trained_head(module.objective)  # as it is now: what is validated is what is trained
        result = evaluate_heads(
            module.encoder, self.splits.val, {"": spec.head.name}, spec.way, spec.shot, spec.queries, spec.episodes,
            self.recipe.seed, head_options={"": spec.head.options}, descriptors=extractor.name,
            descriptor_options=extractor.options, progress=False, described=described,
        )[""]  # fmt: skip
        measured = {"val_accuracy": float(result.accuracy), "val_ci95": float(result.ci95)}
        if spec.analysis:
            from fieldmark.evaluation.analysis import measure_embedding

            found = measure_embedding(module.encoder, self.splits.val, described["query"])
            measured |= {f"val_{name}": value for name, value in found.items()}
        return measured

    def _fit(self, trainer: lightning.Trainer, module: TrainingModule, batches: Any, epochs: Epochs) -> None:
        with warnings.catch_warnings():
            # Both are as meant: frozen modules are in evaluation mode, and we log after epochs, not after steps.
            warnings.filterwarnings("ignore", message=".*module.* in eval mode")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
            warnings.filterwarnings("ignore", message=".*LeafSpec")  # Lightning 2.6 with newer torch
            warnings.filterwarnings("ignore", message=".*GPU available but not used")
            try:
                trainer.fit(module, batches)
            except StopAfterStep:
                raise _stopped(epochs, module, batches) from None
            except (KeyboardInterrupt, SystemExit):
                raise _stopped(epochs, module, batches) from None
        module.to("cpu")


def _stopped(epochs: Epochs, module: TrainingModule, batches: Any) -> TrainingInterrupted:
    saved = load_state(epochs.last)["progress"]["step"] if epochs.last.exists() else 0
    return TrainingInterrupted(
        f"stopped in stage {epochs.stage!r}; step {saved} of {batches.steps} (epoch "
        f"{saved // module.steps_per_epoch} of {epochs.epochs} complete) is saved, the same command goes on from there"
    )


def _trainer(recipe: Recipe, folder: RunFolder, stage: Stage, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    from lightning.pytorch.loggers import TensorBoardLogger

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    loggers: list[Any] = [TensorBoardLogger(folder.path, name="tensorboard", version=stage.name)]
    loggers += [find_logger(one)(**one.options) for one in recipe.loggers]
    try:
        return lightning.Trainer(
            **{"devices": 1, **recipe.trainer},
            max_epochs=1,  # a stage is one run of numbered steps; epochs are closed by the callback
            callbacks=callbacks,
            logger=loggers,
            default_root_dir=folder.path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
    except (
        ValueError,
        TypeError,
        RuntimeError,
        lightning.fabric.utilities.exceptions.MisconfigurationException,
    ) as error:
        reason = " ".join(str(error).split())
        raise FieldmarkError(f"the recipe's trainer settings {recipe.trainer} do not work here: {reason}") from None


def _new_encoder(recipe: Recipe, splits: _Splits, seed: int) -> Encoder:
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
    recipe: Recipe, stage: Stage, splits: _Splits, encoder: Encoder
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


def _facts(recipe: Recipe, splits: _Splits, encoder: Encoder) -> dict[str, Any]:
    from fieldmark.evaluation import provenance

    store = splits.train
    return {
        "recipe": recipe.name,
        "recipe_yaml": _without_places(recipe).to_yaml(),
        "seed": recipe.seed,
        "manifest": store.manifest.to_dict(),
        "descriptors": {"name": recipe.descriptors.name, "options": recipe.descriptors.options},
        "training_classes": {store.manifest.name: list(store.class_names)},
        "pretraining": encoder.backbone.facts.get("pretraining", "none"),
        "provenance": provenance(),
    }


def _part_facts(encoder: Encoder) -> dict[str, Any]:
    """What is known of a model by the head and the classifier that were trained with it; nothing if none was."""
    parts = [part for part in (encoder.head, encoder.classifier) if part is not None]
    return {part.kind: {"name": part.name, "options": part.options} for part in parts}


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
    return {**facts, "training_classes": classes, "pretraining": pretraining}


def _device(recipe: Recipe) -> torch.device:
    wanted = recipe.trainer.get("accelerator", "auto")
    if wanted != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device("cpu")
