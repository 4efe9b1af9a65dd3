"""What commands print: tables for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fieldmark.files import json_text, write_json


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in ``right`` are set flush right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    print(json_text(value))


def add_json_option(parser: Any) -> None:
    """The ``--json`` option that every command has."""
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON to FILE (- for standard output)")


def emit_json(target: str | None, value: Any) -> bool:
    """Write ``value`` where ``--json`` says; True if standard output was taken (no table then)."""
    if target is None:
        return False
    if target == "-":
        print_json(value)
        return True
    write_json(target, value)
    return False
