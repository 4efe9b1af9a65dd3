"""The curves of a run, for plots: training loss and meta-validation accuracy over all stages."""

from __future__ import annotations

import csv
from pathlib import Path

from fieldmark.errors import FieldmarkError

_SHOWN = {"train_loss": "training loss", "val_accuracy": "accuracy on\nvalidation classes"}

Curve = tuple[list[float], list[float]]


def read_curves(folder: str | Path) -> tuple[dict[str, Curve], list[float], str]:
    r"""Curves from a run's ``metrics.csv``.

    Args:
        folder: The run folder.

    Returns:
        For each label the horizontal and vertical values; where a new stage begins; the unit of the horizontal axis.

    Raises:
        FieldmarkError: If the folder holds no metrics.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.csv").write_text("stage,epoch,train_loss\na,1,2.0\na,2,1.5\nb,1,1.0\n")
        >>> read_curves(folder)
        ({'training loss': ([1, 2, 3], [2.0, 1.5, 1.0])}, [2.5], 'epochs')
    """
    path = Path(folder) / "metrics.csv"
    if not path.exists():
        raise FieldmarkError(f"no metrics at {path}; expected the folder of a training run")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, Curve] = {}
    for column, label in _SHOWN.items():
        points = [(place, float(row[column])) for place, row in enumerate(rows, 1) if row.get(column)]
        if points:
            curves[label] = ([place for place, _ in points], [value for _, value in points])
    borders = [place - 0.5 for place in range(2, len(rows) + 1) if rows[place - 1]["stage"] != rows[place - 2]["stage"]]
    return curves, borders, "epochs"
