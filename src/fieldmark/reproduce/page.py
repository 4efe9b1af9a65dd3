"""The papers' part of ``results/README.md``: every own row with the published number, ours, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.data import DATASETS
from fieldmark.evaluation.results import load_records
from fieldmark.reproduce.catalogue import Paper, Row, Table, load_papers
from fieldmark.reproduce.numbers import cost_text, difference_text, ours_text, published_text, seeds_text
from fieldmark.reproduce.plan import plan_of
from fieldmark.reproduce.state import Measured, machine_of, measured, names_of, outdated, taken

_HEAD = """## The five papers, row by row

Every row that the authors measured themselves; rows that they copied from others are left out. `ours` is empty where
a row was never run. The interval is that over episodes (images, queries); with several seeds that over seeds stands
beside it. `data missing` names data sets of which no result in this folder has images. What a row would cost and how it
is run: `fieldmark reproduce PAPER/TABLE/ROW`.
"""
_COLUMNS = ("row", "paper", "ours", "difference", "seeds", "cost", "commit", "state")


def papers_section(folder: str | Path, papers: Path | None = None) -> str:
    """The tables of all papers, from the entries and the results files of a folder.

    Args:
        folder: The results, with a folder for each paper.
        papers: Where the papers' files are; default: those that come with fieldmark.

    Raises:
        FieldmarkError: For a damaged results file.
    """
    folder = Path(folder)
    at_hand = data_at_hand(folder)
    parts = [_HEAD]
    for paper in load_papers(papers).values():
        parts.append(_paper(paper, folder, at_hand, papers))
    variations = _variations(folder)
    if variations:
        parts.append(variations)
    return "\n".join(parts)


def data_at_hand(folder: Path) -> set[str]:
    """Names that the files of those data sets go by of which some result has images."""
    names: set[str] = set()
    for _, record in load_records(folder):
        for row in record["rows"]:
            names |= set(names_of(row["manifest"]["name"]))
    return names


def _paper(paper: Paper, folder: Path, at_hand: set[str], papers: Path | None) -> str:
    source = ", ".join(str(one) for one in (paper.authors, paper.venue) if one)
    lines = [f"### {paper.name}: {paper.title}", "", *([f"{source}.", ""] if source else [])]
    if paper.note:
        lines += [paper.note, ""]
    for table in paper.tables.values():
        lines.append(_table(table, folder, at_hand, papers))
    return "\n".join(lines)


def _table(table: Table, folder: Path, at_hand: set[str], papers: Path | None) -> str:
    quoted = len(table.rows) - len(table.own)
    more = f" {quoted} quoted rows are left out." if quoted else ""
    address = f"{table.own[0].paper}/{table.id}"
    lines = [f"#### Table {table.id}: {table.caption}", "", f"`fieldmark reproduce {address}`.{more}"]
    lines += ["", table.note, ""] if table.note else [""]
    lines += [_cells(*_COLUMNS), "|---" * len(_COLUMNS) + "|"]
    lines += [_row(row, table, folder, at_hand, papers) for row in table.own]
    return "\n".join(lines) + "\n"


def _row(row: Row, table: Table, folder: Path, at_hand: set[str], papers: Path | None) -> str:
    found = measured(row, folder)
    several = len(table.columns) > 1
    columns = [(name, cell, found.get(name, [])) for name, cell in row.cells.items()]

    def lines(texts: Sequence[str]) -> str:
        return "<br>".join(texts) if any(texts) else ""

    return _cells(
        f"`{row.id}` {row.label}" + (f"<br>{row.note}" if row.note else ""),
        lines([(f"{c.column.label}: " if several else "") + published_text(c, table.digits) for _, c, _ in columns]),
        lines([ours_text(one) for _, _, one in columns]),
        lines([difference_text(one, cell) for _, cell, one in columns]),
        _same([seeds_text(one) for _, _, one in columns]),
        _same([cost_text(one) for _, _, one in columns]),
        _same([_sources(one) for _, _, one in columns]),
        row.missing or ("an older recipe" if outdated(row, found, papers) else _needs(row, at_hand, papers)),
    )


def _needs(row: Row, at_hand: set[str], papers: Path | None) -> str:
    names = [name for cell in row.cells.values() for name in plan_of(row, cell, folder=papers).data]
    missing = [
        name
        for name in dict.fromkeys(names)
        if DATASETS.get(name).facts["needs_root"] and at_hand.isdisjoint(names_of(name))
    ]
    return f"data missing: {', '.join(missing)}" if missing else ""


def _sources(found: Sequence[Measured]) -> str:
    links = dict.fromkeys(f"[{one.commit[:7]}]({one.file})" for one in found)
    return ", ".join(links)


def _same(texts: Sequence[str]) -> str:
    """One text for all columns where they agree, as far as they have any."""
    some = list(dict.fromkeys(text for text in texts if text))
    return some[0] if len(some) == 1 else "<br>".join(texts) if some else ""


def _variations(folder: Path) -> str:
    lines = []
    for file, record in load_records(folder):
        entry = record.get("entry") or {}
        if entry.get("changes"):
            for row in record["rows"]:
                lines.append(_variation(entry, row, file))
    if not lines:
        return ""
    head = [
        "### Rows on other data, or with other settings",
        "",
        "The parts of a row, on another experiment than the paper's: compared with nothing.",
        "",
        _cells("row", "what is different", "columns", "ours", "seed", "cost", "commit"),
        "|---" * 7 + "|",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _variation(entry: Mapping[str, Any], row: Mapping[str, Any], file: str) -> str:
    changes = entry["changes"]
    told = [f"on {changes['on']}"] if changes["on"] else []
    told += ["quick"] if changes["quick"] else []
    told += [f"{key} {value}" for key, value in changes["settings"].items()]
    made = row["evaluated"]
    one = Measured(
        row["seed"], taken(row, next(iter(row["reproduces"].values()))), made["commit"], machine_of(made),
        row.get("training_seconds"), row["training"], file,
    )  # fmt: skip
    numbers = [taken(row, take).percent() for take in row["reproduces"].values()]
    return _cells(
        f"{entry['paper']}/{entry['table']}/{entry['row']}", ", ".join(told), "<br>".join(row["reproduces"]),
        "<br>".join(numbers), str(row["seed"]), cost_text([one]), f"[{one.commit[:7]}]({file})",
    )  # fmt: skip


def _cells(*texts: str) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"
