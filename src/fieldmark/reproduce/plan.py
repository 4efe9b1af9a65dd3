"""From a cell of a table to what is trained and how it is tested, without reading data or building models."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.reproduce.catalogue import Cell, Row, find
from fieldmark.training.recipe import find_recipe, set_dotted
from fieldmark.training.schema import EvaluationSpec, NamedSpec, Recipe
from fieldmark.training.typed import build, parse_yaml

# How a run is done, and where its files are, does not decide its outcome.
_FREE = ("trainer", "loggers", "data.root")


@dataclass(frozen=True)
class Changes:
    """What is asked for otherwise than the paper had it; the outcome is then compared with nothing.

    Attributes:
        on: Another data set, for training and test.
        quick: The recipe's quick variant, minutes on two cores.
        settings: Keys of the recipe with other values.
    """

    on: str | None = None
    quick: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that may change an outcome."""
        return {
            key: value
            for key, value in self.settings.items()
            if not any(key == one or key.startswith(one + ".") for one in _FREE)
        }

    def __bool__(self) -> bool:
        """Whether the outcome is another experiment than the paper's."""
        return bool(self.on or self.quick or self.decisive)

    @property
    def label(self) -> str:
        """What the name of the results file ends in.

        Example:
            >>> Changes(on="glyphs", quick=True).label, Changes(settings={"trainer.devices": 2}).label
            ('-on-glyphs-quick', '')
        """
        parts = [f"-on-{self.on}"] if self.on else []
        parts += ["-quick"] if self.quick else []
        parts += [f"-changed-{digest_of(self.decisive)[:6]}"] if self.decisive else []
        return "".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a results file."""
        return {"on": self.on, "quick": self.quick, "settings": self.decisive}


@dataclass(frozen=True)
class RetrievalSpec:
    """An evaluation by retrieval, see :func:`fieldmark.evaluation.evaluate_retrieval`."""

    metric: str = "pooled"
    metric_options: dict[str, Any] = field(default_factory=dict)
    descriptors: NamedSpec | None = None
    shortlist: int | None = 200
    split: str = "test"
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """A model that a cell needs.

    Attributes:
        recipe: As resolved; its name is that of the run's folder, the same for the same training.
        teachers: For each key of the recipe that names a finished model the training that makes it.
    """

    recipe: Recipe
    teachers: Mapping[str, Training] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a cell is reproduced.

    Attributes:
        cell: Which number it is.
        training: What is trained.
        evaluation: How it is tested, under a name that is the same for the same test.
        name: That name.
        data: The data sets that are needed.
    """

    cell: Cell
    training: Training
    evaluation: EvaluationSpec | RetrievalSpec
    name: str
    data: tuple[str, ...]


def plan_of(row: Row, cell: Cell, seed: int = 0, changes: Changes | None = None, folder: Path | None = None) -> Plan:
    """How a cell of a row is reproduced.

    Args:
        row: An own row with a recipe.
        cell: One of its cells.
        seed: Of the training; that of the episodes is the protocol's.
        changes: What is to be done otherwise than the paper had it.
        folder: Where the papers' files are; default: those that come with fieldmark.

    Raises:
        FieldmarkError: For a row that is not run, or an option or value that its recipe does not have.

    Example:
        >>> row, = find("lssa/3/all")
        >>> plan = plan_of(row, row.cells["cub"])
        >>> plan.data, plan.evaluation.episodes, plan.training.recipe.seed
        (('cub-feat-cropped',), 2000, 0)
    """
    changes = changes or Changes()
    if cell.recipe is None:
        why = "its number was copied from others by the authors" if row.quoted else row.missing
        raise FieldmarkError(f"{row.address} is not run: {why}")
    training = _training_of(row, cell, seed, changes, folder)
    evaluation = _evaluation_of(cell, changes)
    needed = [training.recipe.data.name]
    if isinstance(evaluation, EvaluationSpec) and evaluation.data is not None:
        needed.append(evaluation.data.name)
    name = f"test-{digest_of(_said(evaluation))[:10]}"
    if isinstance(evaluation, EvaluationSpec):
        evaluation = replace(evaluation, name=name)
    return Plan(cell, training, evaluation, name, tuple(dict.fromkeys(needed)))


def _training_of(row: Row, cell: Cell, seed: int, changes: Changes, folder: Path | None) -> Training:
    teachers = {
        key: _training_of(row, _same_column(row, name, cell, folder), seed, changes, folder)
        for key, name in cell.teacher.items()
    }
    assert cell.recipe is not None
    settings = {**cell.options, **{key: teacher.recipe.name for key, teacher in teachers.items()}, "seed": seed}
    if changes.on:
        settings |= {"data.name": changes.on, "data.root": None}
    settings |= changes.settings
    return Training(_resolve(cell.recipe, json.dumps(settings), changes.quick), teachers)


@functools.cache
def _resolve(name: str, settings: str, quick: bool) -> Recipe:
    """A recipe with settings (JSON), typed, without its evaluations; named after itself, its training and its seed."""
    tree = copy.deepcopy(_recipe_tree(name, quick))
    for key, value in json.loads(settings).items():
        set_dotted(tree, key, value)
    recipe = build(Recipe, tree)
    return replace(recipe, name=f"{recipe.name}-{digest_of(_said(recipe.decisive()))[:8]}-seed{recipe.seed}")


def _same_column(row: Row, name: str, cell: Cell, folder: Path | None) -> Cell:
    (other,) = find(f"{row.paper}/{row.table}/{name}", folder)
    return other.cells[cell.column.id]


def _evaluation_of(cell: Cell, changes: Changes) -> EvaluationSpec | RetrievalSpec:
    values = dict(cell.evaluation)
    if changes.on:
        values.pop("data", None)
    if values.get("task") == "retrieval":
        values.pop("task")
        return build(RetrievalSpec, values)
    if values.get("task", "few-shot") == "few-shot" and "head" in values:
        values["heads"] = [values.pop("head")]
    if changes.quick and values.get("task", "few-shot") == "few-shot":
        assert cell.recipe is not None
        given = (_recipe_values(cell.recipe).get("quick") or {}).get("evaluations") or [{}]
        small = {"episodes": 50, **{key: given[0][key] for key in ("episodes", "queries") if key in given[0]}}
        values |= {**small, "runs": 1}
    return build(EvaluationSpec, values)


@functools.cache
def _recipe_values(name: str) -> Mapping[str, Any]:
    path = find_recipe(name)
    values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise FieldmarkError(f"{path} is not a recipe; expected a mapping with name, data, backbone and stages")
    return values


@functools.cache
def _recipe_tree(name: str, quick: bool) -> dict[str, Any]:
    """A recipe with every default but no evaluations, there to be overridden."""
    written = _recipe_values(name)
    tree: dict[str, Any] = build(Recipe, {**written, "evaluations": [], "quick": {}}).to_dict()
    if quick:
        for key, value in (written.get("quick") or {}).items():
            if key != "evaluations":
                set_dotted(tree, key, value)
        tree["name"] += "-quick"
    return tree


@functools.cache
def cost_of(recipe: str) -> str:
    """What the head of a recipe says of its cost, on one line.

    Example:
        >>> cost_of("lssa/glyphs_lssa")
        '3 minutes on one core.'
    """
    found: list[str] = []
    for line in find_recipe(recipe).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or (found and not line.startswith("#  ")):
            if found:
                break
            continue
        if line.startswith("# Cost:") or found:
            found.append(line.removeprefix("# Cost:").lstrip("#").strip())
    return " ".join(found)


def _said(value: Any) -> Any:
    """A specification as plain values, without what has its default: a key that is new later changes no name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for one in dataclasses.fields(value):
            made = one.default_factory
            default = made() if made is not dataclasses.MISSING else one.default
            if getattr(value, one.name) != default:
                out[one.name] = _said(getattr(value, one.name))
        return out
    if isinstance(value, list | tuple):
        return [_said(item) for item in value]
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items()}
    return value


def digest_of(value: Any) -> str:
    """The same text for the same plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
