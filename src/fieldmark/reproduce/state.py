"""What can be run here, and what was: data sets and where they are looked for, results and what they hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldmark.data import DATASETS
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.leakage import family_of
from fieldmark.evaluation.results import estimate_of, load_record
from fieldmark.evaluation.seeds import OverSeeds, evaluation_of, last_stage_of, over_seeds, training_of
from fieldmark.evaluation.statistics import Estimate
from fieldmark.reproduce.catalogue import Cell, Row
from fieldmark.reproduce.plan import Changes, plan_of

VARIABLE = "FIELDMARK_DATA"
_DEFAULT = "data"
# Names that a data set's folder or zip file goes by, beside its own.
_CALLED = {
    "aircraft": ("fgvc-aircraft-2013b", "fgvc-aircraft"),
    "cifar_fs": ("cifar100", "cifar-100-python", "cifar-100"),
    "cub": ("CUB_200_2011", "cub200"),
    "fc100": ("cifar100", "cifar-100-python", "cifar-100"),
    "grocery": ("GroceryStoreDataset", "grocery_store"),
    "mini_imagenet": ("miniImageNet",),
    "nabirds": ("NABirds",),
    "places": ("places365",),
    "stanford_cars": ("cars",),
    "stanford_dogs": ("dogs",),
    "tiered_imagenet": ("tieredImageNet",),
}
# Data sets whose files may also lie in several archives; these are read together.
_TOGETHER = {"omniglot": ("omniglot_small1", "omniglot_small2")}


@dataclass(frozen=True)
class Places:
    """Where data sets are looked for.

    Attributes:
        given: Paths by data set, from the command line; the name "" stands for the only data set that is needed.
        folders: Folders that are searched for the others, by name.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()

    @classmethod
    def here(cls, given: Mapping[str, str] | None = None) -> Places:
        """The folders of the environment's FIELDMARK_DATA (several with ":" between them), else ``data``."""
        named = os.environ.get(VARIABLE)
        return cls(dict(given or {}), [Path(one).expanduser() for one in (named or _DEFAULT).split(os.pathsep)])

    def find(self, name: str) -> str | None:
        """Path of a data set's files (or several, with ":" between); "" for one that needs none, None if there is none.

        Raises:
            FieldmarkError: For a path that was given and does not exist.
        """
        if not DATASETS.get(name).facts["needs_root"]:
            return ""
        given = self.given.get(name) or self.given.get(family_of(name)) or self.given.get("")
        if given is not None:
            if not Path(given).expanduser().exists():
                raise FieldmarkError(f"no such file or folder: {given}, given as the root of data set {name!r}")
            return given
        wanted = [_plain(one) for one in names_of(name)]
        for folder in self.folders:
            found = {_plain(one.stem if one.suffix == ".zip" else one.name): one for one in _entries(folder)}
            for one in wanted:
                if one in found:
                    return str(found[one])
            together = [found.get(_plain(one)) for one in _TOGETHER.get(family_of(name), ())]
            if together and all(together):
                return os.pathsep.join(str(one) for one in together)
        return None

    def looked_for(self, name: str) -> str:
        """What was looked for, and where, in words."""
        folders = " and ".join(str(folder) for folder in self.folders)
        together = _TOGETHER.get(family_of(name))
        names = [*names_of(name), *([" with ".join(together)] if together else [])]
        return f"looked in {folders} for a folder or zip named {' or '.join(names)}"


def names_of(name: str) -> list[str]:
    """Names that the folder or zip file of a data set may have.

    Example:
        >>> names_of("cub-feat-cropped")
        ['cub', 'CUB_200_2011', 'cub200']
    """
    family = family_of(name)
    return [family, *_CALLED.get(family, ())]


def missing_data(names: Sequence[str], places: Places) -> list[str]:
    """Those of the data sets that are not here."""
    return [name for name in names if places.find(name) is None]


def require_data(names: Sequence[str], places: Places, what: str) -> None:
    """Refuse what cannot be run for want of data.

    Raises:
        FieldmarkError: Says which data set is needed, and where it was looked for.
    """
    for name in missing_data(names, places):
        obtain = DATASETS.get(name).facts["obtain"] or name
        raise FieldmarkError(
            f"{what} needs data set {name!r} ({obtain}), which is not here: {places.looked_for(name)}; "
            f"give --root {name}=PATH, or set {VARIABLE} to the folder that holds it"
        )


@dataclass(frozen=True)
class Measured:
    """One of our numbers for a cell.

    Attributes:
        seed: Of the training; None where the file does not say.
        estimate: Mean and interval, over what the protocol draws.
        commit: Of the code that measured it.
        machine: What it ran on.
        training_seconds: How long the training took; None where that was not recorded.
        training: Name of the run.
        file: The results file, relative to the results' folder.
        linked: Whether the file is an older one, which the entry names.
    """

    seed: int | None
    estimate: Estimate
    commit: str
    machine: str
    training_seconds: float | None
    training: str
    file: str
    linked: bool = False


def result_path(row: Row, results: str | Path, changes: Changes | None = None) -> Path:
    """The results file of a row.

    Example:
        >>> from fieldmark.reproduce.catalogue import find
        >>> result_path(find("scl/B.1/conv4")[0], "results").as_posix()
        'results/scl/B.1-conv4.json'
    """
    return Path(results) / row.paper / f"{row.table}-{row.id}{(changes or Changes()).label}.json"


def measured(row: Row, results: str | Path, changes: Changes | None = None) -> dict[str, list[Measured]]:
    """Our numbers for a row, by column; those of the row's own file, and of older files that the entry names.

    With an older file stand the results of the same training with other seeds, wherever they lie.

    Raises:
        FieldmarkError: For a damaged file.
    """
    out: dict[str, list[Measured]] = {}
    path = result_path(row, results, changes)
    if path.exists():
        record = load_record(path)
        for one in record["rows"]:
            for column, take in one["reproduces"].items():
                out.setdefault(column, []).append(
                    _measured(one, take, one["evaluated"], path.relative_to(results).as_posix(), one["training"])
                )
    older = {
        column: cell
        for column, cell in row.cells.items()
        if cell.results and column not in out and not changes and (Path(results) / cell.results).exists()
    }
    tests = over_seeds(results) if older else []
    return out | {column: _linked(Path(results), cell, tests) for column, cell in older.items()}


def outdated(row: Row, found: Mapping[str, Sequence[Measured]], folder: Path | None = None) -> bool:
    """Whether some of the numbers are of another training than the entry and its recipe now name.

    Args:
        row: The row.
        found: Its numbers.
        folder: Where the papers' files are; default: those that come with fieldmark.
    """
    return any(
        not one.linked
        and one.training != plan_of(row, row.cells[column], one.seed or 0, folder=folder).training.recipe.name
        for column, numbers in found.items()
        for one in numbers
    )


def _measured(row: Mapping[str, Any], take: str | None, made: Mapping[str, Any], file: str, training: str) -> Measured:
    return Measured(
        row["seed"], taken(row, take), made["commit"], machine_of(made), row.get("training_seconds"), training, file
    )


def _linked(results: Path, cell: Cell, tests: Sequence[OverSeeds]) -> list[Measured]:
    file = str(cell.results)
    record = load_record(results / file)
    row = record["rows"][0]
    facts = record["models"][row["model"]]
    found: dict[int | None, tuple[Mapping[str, Any], str]] = {}
    if facts.get("recipe_yaml"):
        same = training_of(facts["recipe_yaml"], file, last_stage_of(facts))[0], evaluation_of(row)
        for test in tests:
            if (test.training, test.evaluation) == same:
                found = {seed: (one, test.files[seed]) for seed, one in test.rows.items()}
    found[facts.get("seed")] = row, file
    out = []
    for seed, (one, file) in found.items():
        made = load_record(results / file)["provenance"]
        number = taken(one, cell.column.take)
        out.append(Measured(seed, number, made["commit"], machine_of(made), None, one["model"], file, linked=True))
    return out


def taken(row: Mapping[str, Any], take: str | None) -> Estimate:
    """The number of a result's row that a column holds: its mean, or one of its measures or conditions."""
    if take is None:
        return estimate_of(row)
    several = row.get("measures") or row.get("columns") or {}
    if take not in several:
        raise FieldmarkError(f"a result of task {row['task']!r} has no {take!r}; expected one of {', '.join(several)}")
    return estimate_of(several[take])


def machine_of(made: Mapping[str, Any]) -> str:
    """The machine of a provenance, in few words."""
    hardware = made["hardware"]
    return hardware.get("accelerator") or f"{hardware['processor']}, {hardware['cores']} cores"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() or one.suffix == ".zip")
    except OSError:
        return []
