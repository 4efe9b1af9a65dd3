"""Results files: written by a command, never by hand, and compared only where comparing makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data import Manifest, require_comparable
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.provenance import provenance
from fieldmark.evaluation.statistics import Estimate, hits_of_file, paired_difference
from fieldmark.files import read_json, write_json

FORMAT = "fieldmark-result-1"
ROW_FIELDS = (
    "model", "task", "mean", "ci95", "count", "over", "interval", "head", "protocol", "episode_hash",
    "queries_per_episode", "hits_per_episode", "leaked_classes", "manifest", "seconds",
)  # fmt: skip
PROVENANCE_FIELDS = ("fieldmark", "commit", "command", "time", "hardware", "threads", "versions")


def make_record(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A results record.

    Args:
        name: Short name of what was measured.
        rows: One row a model and head (``FewShotResult.to_dict()`` with ``model``).
        models: For each model named in a row, what is known of it (backbone, parameters, seed, recipe ...).
        published: Numbers to compare with: ``{"label", "mean" (0 to 1), "source", "head"?}``.
    """
    record = {
        "format": FORMAT,
        "name": name,
        "rows": [{**row, **_selection(models.get(row["model"], {}))} for row in rows],
        "models": {key: dict(value) for key, value in models.items()},
        "published": [dict(one) for one in published],
        "provenance": provenance(),
    }
    check_record(record, name)
    return record


def _selection(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a model whose epoch was chosen on test images says so itself."""
    return {"model_selection": facts["model_selection"]} if facts.get("model_selection") else {}


def label_of(model: str, facts: Mapping[str, Any]) -> str:
    """The name of a model in a table, with what has to be known of how its epoch was chosen.

    Args:
        model: Its name.
        facts: Of the model, or a row of a record.

    Example:
        >>> label_of("cub_fine", {}), label_of("cub_fine", {"model_selection": "best-test-epoch"})
        ('cub_fine', 'cub_fine (best-test-epoch)')
    """
    selection = facts.get("model_selection")
    return f"{model} ({selection})" if selection else model


def check_record(record: Any, where: str | Path) -> None:
    """Refuse a record that lacks a required field, naming the field; a run may leave the row's own hits to the row.

    Raises:
        FieldmarkError: With the file and the missing field.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FieldmarkError(f"{where} is not a fieldmark result (expected the format {FORMAT!r})")
    for row in record.get("rows", []):
        for field in ROW_FIELDS:
            if field not in row:
                raise FieldmarkError(f"{where}: a row lacks the field {field!r}")
        if row["model"] not in record.get("models", {}):
            raise FieldmarkError(f"{where}: nothing is said of the model {row['model']!r}")
        for run in row.get("runs") or []:
            if "hits_per_episode" not in run and run["episode_hash"] != row["episode_hash"]:
                raise FieldmarkError(f"{where}: a run lacks the field 'hits_per_episode', and the row's are of another")
    for field in PROVENANCE_FIELDS:
        if field not in record.get("provenance", {}):
            raise FieldmarkError(f"{where}: the provenance lacks the field {field!r}")
    if not record.get("rows"):
        raise FieldmarkError(f"{where}: the result has no rows")


def save_record(path: str | Path, record: Mapping[str, Any]) -> Path:
    """Write a checked record as JSON, beside and renamed."""
    check_record(record, path)
    return write_json(path, record)


def load_record(path: str | Path) -> dict[str, Any]:
    """Read a record that :func:`save_record` wrote, and check it."""
    record = read_json(path, "result")
    check_record(record, path)
    return record


def load_records(folder: str | Path, within: str = "*") -> Iterator[tuple[str, dict[str, Any]]]:
    """All records of a folder of results and of folders in it, with their files' names relative to it.

    Args:
        folder: The results; those in itself come first.
        within: Which of its folders count, as a pattern.

    Raises:
        FieldmarkError: For a damaged file.

    Example:
        >>> list(load_records("no such folder"))
        []
    """
    folder = Path(folder)
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob(f"{within}/*.json"))]:
        yield path.relative_to(folder).as_posix(), load_record(path)


def accuracies(row: Mapping[str, Any]) -> np.ndarray:
    """Accuracy of every episode of a row, exactly as measured."""
    return hits_of_file(row["hits_per_episode"]) / row["queries_per_episode"]


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """Mean and interval of a row as they were measured."""
    return Estimate.from_dict(row)


def compare_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> Estimate:
    """Paired difference ``first - second`` of two rows; of several runs over the episodes of all of them.

    Raises:
        FieldmarkError: If the images differ (by the manifest, naming the field) or the episodes do.
    """
    require_comparable(Manifest.from_dict(first["manifest"]), Manifest.from_dict(second["manifest"]))
    runs = runs_of(first), runs_of(second)
    hashes = [[run["episode_hash"] for run in one] for one in runs]
    if hashes[0] != hashes[1]:
        raise FieldmarkError(
            "these results used different episodes "
            f"({first['episode_hash'][:12]} and {second['episode_hash'][:12]}); "
            "evaluate both with --episodes-file, or with the same --seed, --runs, --way, --shot and --queries"
        )
    ours, theirs = (np.concatenate([accuracies(run) for run in one]) for one in runs)
    return paired_difference(ours, theirs, first["interval"])


def runs_of(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The runs of a row, each with the fields of the row that it does not have itself; a row without any is one."""
    return [{**row, **run} for run in row.get("runs") or [{}]]
