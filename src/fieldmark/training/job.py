"""One stage of a run, from where it was interrupted to its best model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch

from fieldmark import descriptors, methods
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.methods.episodic import EpisodicObjective
from fieldmark.training.callbacks import Bar, Epochs, Interruptions, StopAfterStep, TrainingInterrupted, copy_file
from fieldmark.training.checkpoints import load_state
from fieldmark.training.folder import RunFolder
from fieldmark.training.handover import Finished, go_on_with, go_on_with_classifier, trained_classifier, trained_head
from fieldmark.training.loaders import EpisodeBatches, ImageBatches, Rank
from fieldmark.training.module import TrainingModule
from fieldmark.training.recipe import Recipe, find_logger
from fieldmark.training.schema import Stage
from fieldmark.training.seeds import derive
from fieldmark.training.splits import Splits


@dataclass
class Job:
    """One stage, to be run from where it was interrupted."""

    recipe: Recipe
    stage: Stage
    splits: Splits
    encoder: Encoder
    folder: RunFolder
    before: Finished | None
    earlier: list[dict[str, Any]]
    callbacks: Sequence[lightning.Callback] = ()
    teacher: Finished | None = None

    def run(self) -> dict[str, Any]:
        """Train what is left of the stage; what it leaves is in its folder, what is to be said of it is returned."""
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
            "selected_by": self._selected_by(),
            "checkpoint": "best.ckpt" if self.stage.validation is not None else "last.ckpt",
            "rows": epochs.rows,
        }
        if trainer.is_global_zero:
            if self.stage.validation is not None and not (epochs.folder / "best.ckpt").exists():
                copy_file(epochs.last, epochs.folder / "best.ckpt")
            self.folder.finish(self.stage.name, outcome)
        trainer.strategy.barrier("stage finished")
        return outcome

    def _selected_by(self) -> str:
        """What decided which epoch is the result."""
        spec = self.stage.validation
        if spec is None:
            return "last-epoch"
        return spec.select if spec.task == "top1" else "meta-validation"

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
            return EpisodeBatches(
                store, stage.episodes, stage.epochs, key, rank, start, stage.steps_per_epoch, stage.accumulate
            )
        return ImageBatches(
            store, stage.batch_size, stage.epochs, key, rank, start, stage.steps_per_epoch, stage.images_per_class,
            stage.accumulate,
        )  # fmt: skip

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
        if spec.task == "top1":
            return self._validate_top1(module)
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

    def _validate_top1(self, module: TrainingModule) -> dict[str, float]:
        from fieldmark.evaluation import evaluate_top1

        assert self.stage.validation is not None
        images = {
            "held-out": lambda: self.splits.held_out,
            "val-split": lambda: self.splits.val,
            "best-test-epoch": lambda: self.splits.get(self.splits.spec.test),
        }[self.stage.validation.select]()
        names, channels = self.splits.train.class_names, module.encoder.channels
        module.encoder.classifier = trained_classifier(module.objective, names, channels)  # as it is now
        result = evaluate_top1(module.encoder, images, progress=False)
        return {
            "val_accuracy": float(result.accuracy),
            "val_ci95": float(result.estimate.ci95),
            "val_top5": float(result.top5),
        }

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
            accumulate_grad_batches=stage.accumulate,
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
