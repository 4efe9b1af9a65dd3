"""The folder of a run: what is in it, what is done already, and whose recipe it holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.files import read_json, write_beside, write_json
from fieldmark.training.schema import Recipe
from fieldmark.training.typed import build, parse_yaml

# How and where a run is done may change between two sittings; what decides its outcome may not.
_MAY_DIFFER = ("trainer", "loggers", "data.root", "name")


class RunFolder:
    """``runs/NAME``: recipe.yaml, metrics.csv, tensorboard/, stages/, model.safetensors, results/.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.csv"
        self.model = path / "model.safetensors"
        self.results = path / "results"

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.path / "stages" / name

    def outcome(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left: its rows, best epoch and checkpoint; None while it is not finished."""
        path = self.stage(stage) / "done.json"
        return read_json(path, "stage") if path.exists() else None

    def finish(self, stage: str, outcome: dict[str, Any]) -> None:
        """Mark a stage as finished."""
        write_json(self.stage(stage) / "done.json", outcome)

    def claim(self, recipe: Recipe, resume: bool) -> None:
        """Make the folder this recipe's, or find that it is.

        Raises:
            FieldmarkError: If another recipe was run in it; the first key that differs is named.
        """
        if not resume:
            self.clear()
        if self.recipe.exists():
            self._require_same(recipe)
        elif self.path.exists() and any(self.path.iterdir()):
            raise FieldmarkError(f"{self.path} exists and is not a run; choose another --name or --out")
        write_beside(self.recipe, lambda file: file.write(recipe.to_yaml().encode()))

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        if not self.recipe.exists():
            return
        for name in ("stages", "results", "tensorboard"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in (self.metrics, self.model, self.recipe):
            path.unlink(missing_ok=True)

    def _require_same(self, recipe: Recipe) -> None:
        # Keys that are younger than the run have their defaults in it.
        written = build(Recipe, parse_yaml(self.recipe.read_text(encoding="utf-8"), str(self.recipe)))
        before = _flat(parse_yaml(written.to_yaml(), str(self.recipe)))
        now = _flat(parse_yaml(recipe.to_yaml(), "recipe"))
        for key in sorted({*before, *now}):
            free = any(key == one or key.startswith(one + ".") for one in _MAY_DIFFER) or key.endswith("data.root")
            if not free and before.get(key) != now.get(key):
                raise FieldmarkError(
                    f"{self.path} holds a run with another recipe: {key} was {before.get(key)!r} and now is "
                    f"{now.get(key)!r}; choose another --name, or begin anew with --restart"
                )


def _flat(tree: Any, key: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        parts = tree.items()
    elif isinstance(tree, list) and tree:
        parts = enumerate(tree)  # type: ignore[assignment]
    else:
        return {key: tree}
    out: dict[str, Any] = {}
    for name, value in parts:
        out.update(_flat(value, f"{key}.{name}" if key else str(name)))
    return out
