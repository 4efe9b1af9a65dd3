"""The tables of the five papers: every row with its numbers, and what reproduces it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.training.typed import parse_yaml

PAPERS = Path(__file__).resolve().parent / "papers"
MEASURES = ("accuracy", "retrieval", "seconds")
VARIANTS = ("paper", "code")

_DEFAULTS = ("recipe", "options", "evaluation")
_KEYS = {
    "paper": ("title", "authors", "venue", "year", "variant", "note", "tables"),
    "table": ("caption", "measure", "note", "missing", "columns", "rows", *_DEFAULTS),
    "column": ("label", "data", "of", "take", *_DEFAULTS),
    "row": (
        "id", "label", "published", "note", "quoted", "missing", "variant", "teacher", "where", "results", *_DEFAULTS,
    ),
    "where": _DEFAULTS,
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        id: Its name in the entries and in results.
        label: As a reader knows it.
        data: The data set that is tested on; None where there is none (a time).
        of: What stands for ``{of}`` in the names of recipes.
        take: Which of an evaluation's numbers it holds, where there are several (``rotated``, ``map_at_r``).
    """

    id: str
    label: str
    data: str | None
    of: str
    take: str | None


@dataclass(frozen=True)
class Cell:
    """A number of a table: what was published, and what reproduces it.

    Attributes:
        column: Where it stands.
        value: As published, in the table's unit; None where it cannot be read.
        ci95: Half width of its interval; None where there is none.
        recipe: The recipe that trains the model; None of quoted rows and of those that no recipe can express.
        options: Overrides of the recipe, as ``fieldmark train`` takes them.
        teacher: For each key of the recipe that wants a finished model the row of the same table whose model it is.
        evaluation: The paper's protocol: keys of a recipe's evaluation with ``head`` for its one head, or
            ``task: retrieval`` with ``metric``, ``metric_options``, ``descriptors`` and ``shortlist``.
        results: An older results file of this very row, measured before there were entries.
    """

    column: Column
    value: float | None
    ci95: float | None
    recipe: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    results: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        paper: Name of the paper.
        table: Number of the table.
        id: Unique in its table.
        label: As printed.
        cells: By column.
        quoted: The authors copied it from others: it is never run.
        missing: Why an own row cannot be run, if it cannot.
        variant: Whether it follows the paper's text or the official code where they differ.
        note: What a reader has to know.
    """

    paper: str
    table: str
    id: str
    label: str
    cells: Mapping[str, Cell]
    quoted: bool = False
    missing: str = ""
    variant: str = "code"
    note: str = ""

    @property
    def address(self) -> str:
        """What ``fieldmark reproduce`` calls it."""
        return f"{self.paper}/{self.table}/{self.id}"


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    id: str
    caption: str
    measure: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    note: str = ""

    @property
    def own(self) -> list[Row]:
        """The rows that the authors measured themselves."""
        return [row for row in self.rows.values() if not row.quoted]

    @property
    def digits(self) -> int:
        """How many digits behind the point the table prints."""
        numbers = [x for row in self.rows.values() for cell in row.cells.values() for x in (cell.value, cell.ci95)]
        return max((len(f"{x:g}".partition(".")[2]) for x in numbers if x is not None), default=1)


@dataclass(frozen=True)
class Paper:
    """A paper and its tables."""

    name: str
    title: str
    authors: str | None
    venue: str | None
    year: int | None
    tables: Mapping[str, Table]
    note: str = ""

    @property
    def rows(self) -> list[Row]:
        """All rows of all tables, in the paper's order."""
        return [row for table in self.tables.values() for row in table.rows.values()]


@functools.cache
def load_papers(folder: Path | None = None) -> Mapping[str, Paper]:
    """The papers by name, with all their tables.

    Args:
        folder: Where their YAML files are; default: those that come with fieldmark.

    Raises:
        FieldmarkError: For an entry that cannot be meant: an unknown key or column, a row twice, a quoted row with a
            recipe, an own row with neither recipe nor reason.

    Example:
        >>> lssa = load_papers()["lssa"]
        >>> row = lssa.tables["3"].rows["all"]
        >>> row.cells["cub"].value, row.cells["cub"].recipe
        (73.07, 'lssa/cub_conv4')
    """
    return {path.stem: read_paper(path) for path in sorted((folder or PAPERS).glob("*.yaml"))}


def read_paper(path: Path) -> Paper:
    """One paper's YAML file, checked; see :func:`load_papers`."""
    values = _mapping(parse_yaml(path.read_text(encoding="utf-8"), str(path)), path.stem)
    _check_keys(values, "paper", path.stem)
    variant = values.get("variant", "code")
    tables = {
        str(number): _read_table(path.stem, str(number), _mapping(table, f"{path.stem}/{number}"), variant)
        for number, table in _mapping(values.get("tables"), path.stem).items()
    }
    return Paper(
        path.stem, values["title"], values.get("authors"), values.get("venue"), values.get("year"), tables,
        _text(values.get("note")),
    )  # fmt: skip


def find(address: str | None, folder: Path | None = None) -> list[Row]:
    """The rows that an address names: PAPER, PAPER/TABLE or PAPER/TABLE/ROW; none: all rows of all papers.

    Raises:
        FieldmarkError: For an unknown paper, table or row, with the nearest.

    Example:
        >>> [row.id for row in find("lssa/6")]
        ['baseline', 'ours']
        >>> find("lsa/6")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown paper 'lsa'; did you mean 'lssa'? Known: apinet, deepemd, ...
    """
    papers = load_papers(folder)
    if not address:
        return [row for paper in papers.values() for row in paper.rows]
    name, *rest = address.strip("/").split("/")
    if name not in papers:
        raise unknown_name("paper", name, papers)
    paper = papers[name]
    if not rest:
        return paper.rows
    if rest[0] not in paper.tables:
        raise unknown_name(f"table of paper {name!r}", rest[0], paper.tables)
    table = paper.tables[rest[0]]
    if len(rest) == 1:
        return list(table.rows.values())
    row = "/".join(rest[1:])
    if row not in table.rows:
        raise unknown_name(f"row of {name}/{table.id}", row, table.rows)
    return [table.rows[row]]


def _read_table(paper: str, number: str, values: Mapping[str, Any], variant: str) -> Table:
    where = f"{paper}/{number}"
    _check_keys(values, "table", where)
    if values.get("measure") not in MEASURES:
        raise unknown_name(f"measure of {where}", str(values.get("measure")), MEASURES)
    columns = {}
    for name, one in _mapping(values.get("columns"), where).items():
        _check_keys(_mapping(one, f"{where}, column {name}"), "column", f"{where}, column {name}")
        columns[name] = Column(name, one["label"], one.get("data"), one.get("of", name), one.get("take"))
    rows: dict[str, Row] = {}
    for one in values.get("rows") or []:
        row = _read_row(paper, number, values, columns, one, variant)
        if row.id in rows:
            raise FieldmarkError(f"{where} has the row {row.id!r} twice; expected a name of its own for each")
        rows[row.id] = row
    for row in rows.values():
        for cell in row.cells.values():
            for name in cell.teacher.values():
                if name not in rows:
                    raise unknown_name(f"teacher of {row.address}", name, rows)
    return Table(number, values["caption"], values["measure"], columns, rows, _text(values.get("note")))


def _read_row(
    paper: str, number: str, table: Mapping[str, Any], columns: Mapping[str, Column], values: Any, variant: str
) -> Row:
    name = str(_mapping(values, f"{paper}/{number}").get("id"))
    where = f"{paper}/{number}/{name}"
    _check_keys(values, "row", where)
    quoted, missing = bool(values.get("quoted")), _text(values.get("missing") or table.get("missing"))
    cells = {}
    for column, pair in _mapping(values.get("published"), where).items():
        if column not in columns:
            raise unknown_name(f"column of {where}", column, columns)
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(x is None or isinstance(x, int | float) for x in pair)
        ):
            raise FieldmarkError(f"{where}, column {column}: {pair!r} is no published number; expected [VALUE, CI95]")
        parts = [] if quoted or missing else _parts(table, columns[column], values, where)
        cells[column] = _cell(columns[column], pair, parts, values, where)
    if quoted and any(key in values for key in ("recipe", "options", "evaluation", "teacher")):
        raise FieldmarkError(f"{where} is quoted and has a recipe; a quoted row is never run")
    if not (quoted or missing or all(cell.recipe for cell in cells.values())):
        raise FieldmarkError(f"{where} has no recipe; expected recipe, quoted: true, or missing: WHY")
    chosen = values.get("variant", variant)
    if chosen not in VARIANTS:
        raise unknown_name(f"variant of {where}", chosen, VARIANTS)
    label, note = _text(values.get("label")) or name, _text(values.get("note"))
    return Row(paper, number, name, label, cells, quoted, missing, chosen, note)


def _parts(table: Mapping[str, Any], column: Column, row: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """What a cell is put together from, the later overriding the earlier: table, column, row, row in this column."""
    special = _mapping(row.get("where") or {}, f"{where}, where")
    for one in special.values():
        _check_keys(_mapping(one, f"{where}, where"), "where", f"{where}, where")
    mine = [special[name] for name in dict.fromkeys((column.of, column.id)) if name in special]
    return [table, table["columns"][column.id], row, *mine]


def _cell(
    column: Column, pair: Sequence[Any], parts: Iterable[Mapping[str, Any]], row: Mapping[str, Any], where: str
) -> Cell:
    value, ci95 = (None if x is None else float(x) for x in pair)
    recipe: str | None = None
    options: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    for part in parts:
        recipe = part.get("recipe") or recipe
        options |= _mapping(part.get("options") or {}, f"{where}, options")
        evaluation |= _mapping(part.get("evaluation") or {}, f"{where}, evaluation")
    return Cell(
        column, value, ci95, recipe.replace("{of}", column.of) if recipe else None, options,
        dict(row.get("teacher") or {}), evaluation, dict(row.get("results") or {}).get(column.id),
    )  # fmt: skip


def _check_keys(values: Mapping[str, Any], kind: str, where: str) -> None:
    for key in values:
        if key not in _KEYS[kind]:
            raise unknown_name(f"key of {where}", str(key), _KEYS[kind])


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldmarkError(f"{where} has {value!r} where a mapping is expected")
    return value


def _text(value: Any) -> str:
    return " ".join(str(value or "").split())
