"""Tables in the documentation that quote results: each says where its numbers are, and is filled in from there.

``python -m fieldmark.evaluation.quoted results docs`` (`make results` runs it) fills in every table of every page.

A table stands between two comments. The first holds, as YAML, its rows and columns:

```
<!-- from results
rows:
  - {loss: cross-entropy, model: ce_only}
  - {loss: spatial contrast, model: sc}
columns:
  - losses: "{loss}"
  - 1 shot: {file: fc100_1shot, model: "{model}"}
  - paired: {file: fc100_1shot, model: "{model}", against: {model: sc}}
-->
<!-- end -->
```

A column is a text, or names a row of a results file: the ``file``; the ``model`` (the end of its name is enough) or the
``head`` where the file has several (with options as the results page writes them: ``logistic (C 10)``); the ``measure``
or condition, where it is not the accuracy. With ``against`` the cell is the paired difference to another row of the
file, or of another ``file``, or to the better one of a list; with ``published`` the difference to that number. A list
of such names, one a training seed, is the mean over them with the interval over seeds. Words in braces are those of
the table's row.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.results import compare_rows, estimate_of, load_record
from fieldmark.evaluation.robustness import PLAIN
from fieldmark.evaluation.statistics import Estimate, estimate, points_above
from fieldmark.evaluation.table import scorer_of
from fieldmark.files import write_beside
from fieldmark.training.typed import parse_yaml

_BEGIN, _END = "<!-- from results\n", "<!-- end -->"
_TABLE = re.compile(f"({_BEGIN}(.*?)-->\n).*?({_END})", re.DOTALL)
_WHICH = ("model", "head")
_KEYS = ("file", "measure", "against", "published", *_WHICH)


def fill(text: str, results: str | Path, where: str) -> str:
    r"""A page with its tables filled in.

    Args:
        text: The page.
        results: Folder of the results files.
        where: The page's name, for messages.

    Raises:
        FieldmarkError: For a description that is no YAML, a missing file, a row that is not there or not the only one.

    Example:
        >>> page = ["<!-- from results", "rows: [{a: x}]", 'columns: [{A: "{a}"}]', "-->", "<!-- end -->"]
        >>> print(fill("\n".join(page), "results", "page").partition("-->")[2].strip())
        | A |
        |---|
        | x |
        <BLANKLINE>
        <!-- end -->
    """
    if text.count(_BEGIN) != text.count(_END):
        raise FieldmarkError(f"{where}: {text.count(_BEGIN)} times {_BEGIN!r}, {text.count(_END)} times {_END!r}")
    load = functools.cache(load_record)  # a file is read once a page

    def filled(found: re.Match[str]) -> str:
        said = parse_yaml(found[2], where)
        if not isinstance(said, dict) or set(said) != {"rows", "columns"}:
            raise FieldmarkError(f"{where}: a table from results is described by rows and columns, got {said!r}")
        columns = [next(iter(one.items())) for one in said["columns"]]
        lines = [
            _cells([name for name, _ in columns]),
            "|---" * len(columns) + "|",
            *(_cells([_cell(_named(column, row, where), Path(results), where, load) for _, column in columns])
              for row in said["rows"]),
        ]  # fmt: skip
        return "{}\n{}\n\n{}".format(found[1], "\n".join(lines), found[3])

    return _TABLE.sub(filled, text)


def fill_pages(results: str | Path, docs: str | Path) -> list[Path]:
    """Fill in the tables of all pages of a folder; those that changed."""
    changed = []
    for path in sorted(Path(docs).rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = fill(before, results, str(path))
        if after != before:
            write_beside(path, lambda file, text=after: file.write(text.encode()))  # type: ignore[misc]
            changed.append(path)
    return changed


def _named(value: Any, row: Mapping[str, Any], where: str) -> Any:
    """A column's description with the words of a row in the place of their names."""
    if isinstance(value, dict):
        return {key: _named(one, row, where) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one, row, where) for one in value]
    try:
        return value.format_map(row) if isinstance(value, str) else value
    except KeyError as error:
        raise FieldmarkError(f"{where}: {value!r} asks for {error}; the table's row has {', '.join(row)}") from None


def _cell(said: Any, results: Path, where: str, load: Callable[[Path], Mapping[str, Any]]) -> str:
    if not isinstance(said, dict | list):
        return str(said)
    named = said if isinstance(said, list) else [said]
    every = [one for one in (_estimate(one, results, where, load) for one in named) if one is not None]
    if len(every) < len(named):
        return ""  # the row that the others are compared with
    first = named[0]
    found = estimate([one.mean for one in every], "seeds", "student") if isinstance(said, list) else every[0]
    if "published" in first:
        return points_above(found.mean, float(first["published"]) / 100)
    return found.points() if "against" in first else found.percent()


def _estimate(said: Any, results: Path, where: str, load: Callable[[Path], Mapping[str, Any]]) -> Estimate | None:
    """The number that a description names; None for a row's difference to itself."""
    if not isinstance(said, dict):
        raise FieldmarkError(
            f"{where}: a column has {said!r} among its seeds; expected file and {', '.join(_KEYS[1:])}"
        )
    if (unknown := set(said) - set(_KEYS)) or "file" not in said:
        raise FieldmarkError(
            f"{where}: a column has {sorted(unknown or said)}; expected file and {', '.join(_KEYS[1:])}"
        )
    row = _row(said, results, load)
    if "against" not in said:
        return estimate_of(row)
    against = said["against"] if isinstance(said["against"], list) else [said["against"]]
    others = [_row({**said, **one}, results, load) for one in against]
    if row["hits_per_episode"] is None:
        raise FieldmarkError(
            f"{where}: {said['measure']!r} is not of single images in {said['file']}; a paired difference needs those"
        )
    best = max(others, key=lambda other: other["mean"])
    return None if best == row else compare_rows(row, best)


def _row(said: Mapping[str, Any], results: Path, load: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row that a description names, with the numbers of its measure."""
    path = results / f"{said['file']}.json"
    which = {key: said[key] for key in _WHICH if key in said}
    found = [row for row in load(path)["rows"] if all(value in _names(row, key) for key, value in which.items())]
    if len(found) != 1:
        raise FieldmarkError(f"{path} has {len(found)} rows with {which}; expected one")
    return _measured(found[0], said.get("measure"), path)


def _names(row: Mapping[str, Any], key: str) -> tuple[str, str]:
    """What a row's model or head goes by."""
    return (row["head"], scorer_of(row)) if key == "head" else (row["model"], Path(row["model"]).stem)


def _measured(row: Mapping[str, Any], measure: str | None, path: Path) -> Mapping[str, Any]:
    """A row whose numbers are those of a measure, or of changed images."""
    if measure is None:
        return row
    several = {**row.get("measures", {}), **row.get("columns", {})}
    if measure not in several:
        raise FieldmarkError(f"{path} has no measure {measure!r}; expected one of {', '.join(several)}")
    one = several[measure]
    hits = row["hits_per_episode"] if measure == PLAIN else one.get("hits_per_image")
    return {**row, **one, "hits_per_episode": hits}


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def main(arguments: Sequence[str]) -> int:
    """Fill in the pages."""
    if len(arguments) != 2:
        raise FieldmarkError("expected the folder of results and that of pages: results docs")
    fill_pages(*arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
