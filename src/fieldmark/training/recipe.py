"""Find recipes, read them, apply overrides, and refuse what does not fit, before anything is loaded or trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.training.checks import check_values
from fieldmark.training.schema import TRAINER_KEYS, NamedSpec, Recipe
from fieldmark.training.typed import build, parse_yaml


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that comes with fieldmark.

    Attributes:
        name: What ``fieldmark train`` takes, such as "baseline/cifar_fs_conv4_ce".
        path: The YAML file.
        head_comment: Its first lines: what it costs, is expected to give and has given, and its command.
    """

    name: str
    path: Path
    head_comment: str


def recipes_folder() -> Path:
    """Where the recipes are: in the installed package, or at the top of a checkout.

    Raises:
        FieldmarkError: If they are in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        if folder.is_dir():
            return folder
    raise FieldmarkError("the recipes that come with fieldmark are not installed; give the path of a YAML file")


def list_recipes() -> list[RecipeFile]:
    """All recipes that come with fieldmark, sorted by name.

    Example:
        >>> "baseline/glyphs_conv4" in [one.name for one in list_recipes()]
        True
    """
    folder = recipes_folder()
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.lstrip("#").strip())
        found.append(RecipeFile(name, path, "\n".join(lines).strip()))
    return found


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path, by name, or by the last part of its name.

    Raises:
        FieldmarkError: If there is none; the nearest name is suggested.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_recipes()
    text = str(name).removesuffix(".yaml").removeprefix("recipes/")
    for one in known:
        if text in (one.name, one.name.rsplit("/", 1)[-1]):
            return one.path
    if path.suffix in (".yaml", ".yml"):
        raise FieldmarkError(f"no recipe file at {name}; `fieldmark recipes` lists those that come with fieldmark")
    raise unknown_name("recipe", str(name), [one.name for one in known])


def load_recipe(name: str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), quick: bool = False) -> Recipe:
    """Read a recipe and check it completely.

    Args:
        name: Path of a YAML file, or a name as ``fieldmark recipes`` lists it.
        overrides: Command-line words ``--KEY VALUE`` or ``--KEY=VALUE``, or a mapping of dotted keys to values. List
            items are addressed by their number or name: ``--stages.pretrain.epochs 3``.
        quick: Apply the recipe's quick variant (before the overrides); its run is named NAME-quick.

    Raises:
        FieldmarkError: Names the file or key that is wrong, what was expected, and the nearest valid name.
    """
    path = find_recipe(name)
    values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise FieldmarkError(f"{path} is not a recipe; expected a mapping with name, data, backbone and stages")
    return make_recipe(values, overrides, quick)


def make_recipe(
    values: Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = (), quick: bool = False
) -> Recipe:
    """A checked recipe from plain values; see :func:`load_recipe`.

    Example:
        >>> values = {"name": "tiny", "data": {"name": "glyphs"}, "backbone": {"name": "conv4"},
        ...           "stages": [{"name": "a", "objective": {"name": "cross_entropy"}, "epochs": 1}]}
        >>> make_recipe(values, ["--stages.a.epochs", "2"]).stages[0].epochs
        2
        >>> make_recipe(values, ["--stages.a.epoch", "2"])
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown recipe key 'stages.0.epoch'; did you mean 'stages.0.epochs'? ...
    """
    tree = parse_yaml(build(Recipe, dict(values)).to_yaml(), "recipe")  # every default is there to be overridden
    written = dict(values).get("quick") or {}
    if quick:
        if not written:
            raise FieldmarkError(f"recipe {tree['name']!r} has no quick variant")
        tree["name"] += "-quick"
        for key, value in written.items():
            set_dotted(tree, key, value)
    pairs = overrides.items() if isinstance(overrides, Mapping) else parse_overrides(overrides)
    for key, value in pairs:
        set_dotted(tree, key, value)
    recipe = build(Recipe, {**tree, "quick": {} if quick else written})
    check_values(recipe)
    check_names(recipe)
    return recipe


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """``--KEY VALUE`` and ``--KEY=VALUE`` as pairs; values are read as YAML.

    Example:
        >>> parse_overrides(["--data.size", "84", "--trainer.precision=bf16-mixed"])
        [('data.size', 84), ('trainer.precision', 'bf16-mixed')]
    """
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise FieldmarkError(f"unexpected argument {word!r}; recipe keys are given as --KEY VALUE")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise FieldmarkError(f"--{key} has no value; expected --{key} VALUE")
            text = rest.pop(0)
        pairs.append((key, parse_yaml(text, f"--{key}")))
    return pairs


def set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set ``tree["a"][0]["b"]`` for the key ``a.0.b``, list items also by their ``name``.

    Intermediate mappings that are null are made; whether the last name is valid is checked afterwards, by type.
    """
    place: Any = tree
    *path, last = key.split(".")
    for depth, part in enumerate(path):
        place, step = _step_into(place, part, ".".join(path[: depth + 1]))
        if place[step] is None:
            place[step] = {}
        place = place[step]
    place, step = _step_into(place, last, key)
    place[step] = value


def _step_into(place: Any, part: str, key: str) -> tuple[Any, Any]:
    if isinstance(place, dict):
        # Options are free: any name may be new there. Elsewhere the typed reading refuses what is not known.
        place.setdefault(part, None)
        return place, part
    if isinstance(place, list):
        named = {item.get("name"): i for i, item in enumerate(place) if isinstance(item, dict)}
        if part in named:
            return place, named[part]
        if part.isdigit() and int(part) < len(place):
            return place, int(part)
        parent = key.rpartition(".")[0]
        known = [f"{parent}.{i}" for i in range(len(place))] + [f"{parent}.{n}" for n in named if n]
        raise unknown_name("recipe key", key, known)
    raise FieldmarkError(f"recipe key {key} does not exist: {key.rpartition('.')[0]} is {place!r}, which has no parts")


def check_names(recipe: Recipe) -> None:
    """Refuse unknown names and options of everything that a recipe names, before any data is read.

    Raises:
        FieldmarkError: With the nearest valid name.
    """
    from fieldmark import descriptors, methods
    from fieldmark.backbones import BACKBONES
    from fieldmark.data import DATASETS
    from fieldmark.data.augment import create_pipeline

    if recipe.backbone.name in BACKBONES:
        # The linear layer on top is an option of every backbone.
        own = {key: value for key, value in recipe.backbone.options.items() if key != "project"}
        _check_options("backbone", BACKBONES.get(recipe.backbone.name).make, NamedSpec(recipe.backbone.name, own))
    else:
        from fieldmark import backbones

        backbones.create(recipe.backbone.name, **{**recipe.backbone.options, "pretrained": False})
    _check_data(recipe.data.name, DATASETS)
    for key in recipe.trainer:
        if key not in TRAINER_KEYS:
            raise unknown_name("recipe key", f"trainer.{key}", [f"trainer.{name}" for name in TRAINER_KEYS])
    trained: dict[str, _Model] = {}
    for number, stage in enumerate(recipe.stages):
        objective = methods.create(stage.objective.name, **stage.objective.options)
        if objective.needs_teacher and stage.teacher == "previous" and number == 0:
            raise FieldmarkError(
                f"recipe key stages.{stage.name}.teacher is 'previous', and no stage is before it; expected the path "
                f"of a run folder, or a stage before it that trains the teacher of objective {stage.objective.name!r}"
            )
        trained[stage.name] = _trained_by(objective)
        if stage.validation is not None:
            key = f"stages.{stage.name}.validation.head"
            _check_head(stage.validation.head, trained[stage.name], stage.name, key)
            if stage.validation.task == "top1":
                _check_classifier(objective, stage.name, f"stages.{stage.name}.validation.task")
        for changes in (stage.augmentation, stage.second_view):
            create_pipeline(changes or [], recipe.data.size or 32)
    for changes in (recipe.augmentation, recipe.second_view):
        create_pipeline(changes, recipe.data.size or 32)
    for number, one in enumerate(recipe.evaluations):
        of = one.stage or recipe.stages[-1].name
        if one.task != "few-shot" and one.head is None:
            spec = next(stage.objective for stage in recipe.stages if stage.name == of)
            _check_classifier(methods.create(spec.name, **spec.options), of, f"evaluations.{number}.task")
        for head in [*one.heads, *([one.head] if one.head is not None else [])]:
            _check_head(head, trained[of], of, f"evaluations.{number}.heads")
        if one.data is not None:
            _check_data(one.data.name, DATASETS)
    validated = [stage.validation.descriptors for stage in recipe.stages if stage.validation is not None]
    for extractor in (recipe.descriptors, *validated, *(one.descriptors for one in recipe.evaluations)):
        if extractor is not None:
            descriptors.create(extractor.name, **extractor.options)
    for logger in recipe.loggers:
        find_logger(logger)


def find_logger(spec: NamedSpec) -> Any:
    """The class of ``lightning.pytorch.loggers`` that a recipe names."""
    from lightning.pytorch import loggers

    known = [name for name in loggers.__all__ if name.endswith("Logger") and name != "Logger"]
    if spec.name not in known:
        raise unknown_name("logger", spec.name, known)
    return getattr(loggers, spec.name)


def _check_data(name: str, known: Any) -> None:
    if name != "folder":
        known.get(name)


@dataclass(frozen=True)
class _Model:
    """What a stage's model will bring as far as heads go: the one that its objective trains, for maps of any width."""

    head: Any
    channels: int = 16


def _trained_by(objective: Any) -> _Model:
    import torch

    from fieldmark.heads import Head
    from fieldmark.heads.trained import keep

    head = getattr(objective, "head", None)
    if not isinstance(head, Head):
        return _Model(None)
    with torch.random.fork_rng(devices=[]):
        head.setup(_Model.channels)
    return _Model(keep(head))


def _check_classifier(objective: Any, stage: str, key: str) -> None:
    """Refuse what needs the classifier of a stage whose objective trains none."""
    import torch

    from fieldmark.classifiers.trained import keep

    with torch.random.fork_rng(devices=[]):
        objective.setup(_Model.channels, 4)
    classifier = getattr(objective, "classifier", None)
    if not isinstance(classifier, torch.nn.Module) or keep(classifier, [""] * 4) is None:
        raise FieldmarkError(
            f"recipe key {key} needs the classifier of stage {stage!r}, whose objective trains none; use an objective "
            "that classifies (cross_entropy ...), or give the evaluation a head to fit on training images (logistic)"
        )


def _check_head(spec: NamedSpec, model: _Model, stage: str, key: str) -> None:
    """Refuse unknown names and options of a head, and one with parts that the objective of its stage does not train."""
    from fieldmark import heads

    learned = heads.create(spec.name, **spec.options).learned
    own = model.head is not None and model.head.name == spec.name
    try:
        heads.create_for(model, spec.name, **spec.options)
    except FieldmarkError as error:
        if own or not learned:
            raise FieldmarkError(f"recipe key {key}: {error}") from None
        raise FieldmarkError(
            f"recipe key {key}: head {spec.name!r} with these options has parts that must be trained, and the "
            f"objective of stage {stage!r} trains no such head; switch them off, or train it in that stage"
        ) from None


def _check_options(kind: str, make: Any, spec: NamedSpec) -> None:
    parameters = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in spec.options:
        if option not in parameters:
            raise unknown_name(f"option of {kind} {spec.name!r}", option, parameters)
