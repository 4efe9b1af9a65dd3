"""What a recipe says: data, backbone, stages of training, evaluations. Typed; plain values in, plain values out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

Options = dict[str, Any]
Selection = Literal["held-out", "val-split", "best-test-epoch"]
BEST_TEST_EPOCH = "best-test-epoch"

TRAINER_KEYS = (
    "accelerator", "strategy", "devices", "num_nodes", "precision", "gradient_clip_val", "gradient_clip_algorithm",
    "deterministic", "benchmark", "profiler", "detect_anomaly", "sync_batchnorm",
)  # fmt: skip
"""Keywords of ``lightning.Trainer`` that a recipe may set; the others are the training's own business."""


@dataclass
class NamedSpec:
    """A registered thing with its options."""

    name: str
    options: Options = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str) -> NamedSpec:
        """A bare name in a recipe stands for the thing with its default options."""
        return cls(text)


@dataclass
class DataSpec:
    """Where the images come from.

    Attributes:
        name: A data set (``fieldmark data``).
        root: Folder or archive that holds it, or several; not needed for embedded sets.
        size: Side of the stored images, in pixels; default: the data set's own.
        crop: Side of the centre crop that is seen of them in evaluation, and of the augmented training images; default:
            the whole image.
        fit: How images are brought to that size ("crop", "squash", "pad"); default: the data set's own.
        train: Split to train on.
        val: Split for meta-validation; only read when a stage validates.
        test: Split of the final tests, which no stage sees but one that validates by ``best-test-epoch``.
        held_out: This share of the training images of each class (at least one image, chosen by the seed) is not
            trained on, but kept for validation by top-1 accuracy.
    """

    name: str
    root: str | list[str] | None = None
    size: int | None = None
    crop: int | None = None
    fit: Literal["squash", "crop", "pad"] | None = None
    train: str = "train"
    val: str = "val"
    test: str = "test"
    held_out: float | None = None


@dataclass
class EpisodeSpec:
    """Episodes that a stage trains on.

    Attributes:
        way: Classes an episode.
        shot: Support images a class.
        queries: Query images a class.
        episodes_per_epoch: Episodes that count as one epoch.
        episodes_per_step: Episodes in one optimiser step, over all processes together.
    """

    way: int = 5
    shot: int = 1
    queries: int = 15
    episodes_per_epoch: int = 100
    episodes_per_step: int = 1


@dataclass
class OptimizerSpec:
    """Optimiser; momentum and nesterov are of sgd alone.

    Attributes:
        lr: Learning rate.
        objective_lr: That of what the objective itself learns (classifier, vectors of the classes); default: ``lr``.
        rates: Learning rates of modules by patterns of their names, as in ``freeze`` (``{"backbone.layer4*": 0.001}``);
            where several fit, the last one holds. ``objective_lr`` is the same as ``objective`` in front of them.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    objective_lr: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4


@dataclass
class ScheduleSpec:
    """Learning-rate schedule; all times in epochs (see :func:`fieldmark.training.optim.learning_rate_factor`)."""

    name: Literal["constant", "step", "multistep", "cosine"] = "constant"
    milestones: list[int] = field(default_factory=list)
    step_size: int = 1
    gamma: float = 0.1
    warmup: float = 0.0


@dataclass
class ValidationSpec:
    """What decides which checkpoint is best: few-shot episodes on the validation split, or top-1 accuracy.

    Attributes:
        task: ``few-shot`` (meta-validation: ``way`` to ``descriptors`` describe its episodes), or ``top1``: accuracy of
            the stage's classifier on images of the training classes.
        select: Images of ``top1``: ``held-out`` (``data.held_out`` of the training images), ``val-split`` (split
            ``data.val``, where a data set has one of the same classes), or ``best-test-epoch``: the test images
            themselves. The last one is what many papers do; its accuracy is too good, and every result of such a model
            is labelled so.
        every: Epochs between two validations; the last epoch is always validated.
        head: Scores the episodes.
        descriptors: What a head on local descriptors is given; default: the recipe's.
        analysis: Whether the Davies-Bouldin index and the effective rank of the validation images' embedding are
            measured as well (``val_davies_bouldin``, ``val_effective_rank``).
    """

    task: Literal["few-shot", "top1"] = "few-shot"
    select: Selection = "held-out"
    way: int = 5
    shot: int = 1
    queries: int = 15
    episodes: int = 200
    every: int = 1
    head: NamedSpec = field(default_factory=lambda: NamedSpec("prototype"))
    descriptors: NamedSpec | None = None
    analysis: bool = False


@dataclass
class Stage:
    """One part of the training: an objective with its batches, optimiser and schedule.

    Attributes:
        name: Name of its folder, and of its keys on the command line.
        objective: What is minimised (:data:`fieldmark.methods.OBJECTIVES`).
        epochs: Passes over the images, or rounds of ``episodes_per_epoch``.
        batch_size: Images a step over all processes; for objectives on images.
        images_per_class: So many images of each of ``batch_size / images_per_class`` classes in every step, for losses
            that compare pairs; default: images at random.
        episodes: For objectives on episodes.
        accumulate: Micro-batches that a step is split into: their gradients are summed up to those of the whole batch
            (of losses that are means over images or episodes; batch norms see a micro-batch), in a fraction of the
            memory. Losses that compare the images of a batch compare those of a micro-batch.
        steps_per_epoch: Cut an epoch short after so many steps.
        freeze: Patterns of module names that keep their weights ("backbone", "backbone.layer1*", "objective").
        freeze_epochs: They do so for the first so many epochs only, and are trained from then on; default: always.
        freeze_statistics: Whether the batch norms (and dropout) of modules stay in evaluation mode as well while they
            are frozen; if not, they go on updating their statistics.
        start: ``previous`` (the best model of the stage before; for the first stage: fresh weights), ``scratch``, or
            the path of a model file or run folder, or the name of a trained model ("conv4/ce-cifar_fs"); the head, and
            the classifier of the same classes, that such a file brings are gone on with where the stage's objective
            has one of that name.
        teacher: For objectives that learn from a model: ``previous`` (the best model of the stage before), or the path
            of a run folder or model file, or the name of a trained model.
        validation: Meta-validation; without it the last epoch is the result.
        augmentation: In place of the recipe's.
        second_view: In place of the recipe's; an empty list: one view.
    """

    name: str
    objective: NamedSpec
    epochs: int
    batch_size: int = 64
    images_per_class: int | None = None
    accumulate: int = 1
    episodes: EpisodeSpec = field(default_factory=EpisodeSpec)
    steps_per_epoch: int | None = None
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    freeze: list[str] = field(default_factory=list)
    freeze_epochs: int | None = None
    freeze_statistics: bool = True
    start: str = "previous"
    teacher: str = "previous"
    validation: ValidationSpec | None = None
    augmentation: list[str | Options] | None = None
    second_view: list[str | Options] | None = None


@dataclass
class EvaluationSpec:
    """An evaluation of the finished model.

    Attributes:
        task: ``few-shot``; ``top1``: accuracy of the model's classifier on the images of the split; ``robustness``: the
            same with the images rotated and reduced.
        data: Another data set (cross-domain); default: the recipe's.
        split: Split of it; ``held-out``: the training images that were not trained on.
        way: Classes an episode.
        shot: Support images a class.
        queries: Query images a class.
        episodes: How many.
        runs: So many times, with the seeds ``seed``, ``seed + 1`` and so on; the median run is the result.
        seed: Of the episodes; not the training's, so that all methods are tested on the same ones.
        support_copies: Replace every support image by so many augmented copies.
        heads: Heads to score with, all on the same episodes.
        head: For top1 and robustness: a head to be fitted on the training split, in place of the model's classifier.
        descriptors: What heads on local descriptors are given; default: the recipe's.
        seen_classes: What is done about test classes that were trained on: ``refuse``; ``allow`` (the result names
            them), as papers do that train on one data set of birds and test on another; or ``leave_out`` (the episodes
            are drawn from the other classes).
        stage: Evaluate the best model of this stage; default: the finished model.
        name: Name of the results file; default: made from the rest.
    """

    task: Literal["few-shot", "top1", "robustness"] = "few-shot"
    data: DataSpec | None = None
    split: str = "test"
    way: int = 5
    shot: int = 1
    queries: int = 15
    episodes: int = 600
    runs: int = 1
    seed: int = 0
    support_copies: int = 0
    heads: list[NamedSpec] = field(default_factory=lambda: [NamedSpec("prototype")])
    head: NamedSpec | None = None
    descriptors: NamedSpec | None = None
    seen_classes: Literal["refuse", "allow", "leave_out"] = "refuse"
    stage: str | None = None
    name: str | None = None

    def title(self, data_name: str) -> str:
        """Name of its results file, without suffix.

        Example:
            >>> EvaluationSpec(shot=5).title("glyphs")
            'glyphs_test_5way_5shot'
            >>> EvaluationSpec(task="top1").title("grocery")
            'grocery_test_top1'
        """
        name = self.data.name if self.data is not None else data_name
        after = f"_{self.stage}" if self.stage else ""
        if self.task != "few-shot":
            after = f"_{self.head.name}{after}" if self.head else after
            return self.name or f"{name}_{self.split}_{self.task}{after}"
        return self.name or f"{name}_{self.split}_{self.way}way_{self.shot}shot{after}"


@dataclass
class Recipe:
    """Everything that decides the outcome of a training run.

    Attributes:
        name: Name of the run's folder.
        data: Images to train and validate on.
        backbone: Architecture (:data:`fieldmark.backbones.BACKBONES`).
        stages: Parts of the training, in order.
        seed: Root of every random choice.
        augmentation: Changes of the training images (:data:`fieldmark.data.augment.AUGMENTATIONS`): names, or
            mappings of ``name`` and options.
        second_view: Not empty: every training image is there a second time, changed by these; the first view is that of
            ``augmentation``. For objectives that compare views.
        descriptors: What heads on local descriptors are given (:data:`fieldmark.descriptors.DESCRIPTORS`), in training
            on episodes, in validation and in evaluation.
        evaluations: Run on the finished model.
        trainer: Keywords of ``lightning.Trainer``, see :data:`TRAINER_KEYS`.
        loggers: Further loggers of ``lightning.pytorch.loggers`` by class name; CSV and TensorBoard are always on.
        quick: Dotted keys with the values they take in the quick variant.

    Example:
        >>> from fieldmark.training import load_recipe
        >>> recipe = load_recipe("baseline/glyphs_conv4", overrides=["--seed", "3"])
        >>> recipe.seed, recipe.backbone.name
        (3, 'conv4')
    """

    name: str
    data: DataSpec
    backbone: NamedSpec
    stages: list[Stage]
    seed: int = 0
    augmentation: list[str | Options] = field(default_factory=list)
    second_view: list[str | Options] = field(default_factory=list)
    descriptors: NamedSpec = field(default_factory=lambda: NamedSpec("dense"))
    evaluations: list[EvaluationSpec] = field(default_factory=list)
    trainer: Options = field(default_factory=dict)
    loggers: list[NamedSpec] = field(default_factory=list)
    quick: Options = field(default_factory=dict)

    def decisive(self) -> Recipe:
        """What decides the weights: without names, places, tests, and how the run is done.

        Example:
            >>> from fieldmark.training import load_recipe
            >>> one = load_recipe("baseline/glyphs_conv4", overrides=["--name", "mine", "--trainer.devices", "2"])
            >>> one.decisive() == load_recipe("baseline/glyphs_conv4").decisive()
            True
        """
        return dataclasses.replace(
            self, name="", data=dataclasses.replace(self.data, root=None), evaluations=[], trainer={}, loggers=[],
            quick={},
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain values, complete with defaults."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """As YAML, resolved: with every default, and without the quick variant, which is already applied or not."""
        values = self.to_dict()
        values.pop("quick")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
