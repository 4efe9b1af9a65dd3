"""The figures of ``fieldmark bench transport`` as tables of a page, between two marks.

``python -m fieldmark.benchmarks.transport_table benchmarks/transport.json docs/decisions/0005-transport.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.files import read_json, write_beside

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def tables(report: Mapping[str, Any]) -> str:
    """Markdown tables of a report: solver, gradients, layer and heads.

    Args:
        report: What ``fieldmark bench transport --json FILE`` wrote.
    """
    rows, made = report["benchmarks"]["transport"]["rows"], report["provenance"]
    machine = made["hardware"]
    parts = [
        f"`{made['command']}`, commit `{made['commit'][:12]}`, {machine['processor']} with {machine['cores']} cores,"
        f" {made['threads']} threads.",
        _solver([row for row in rows if row["case"] == "solver"]),
        _plain(
            "Forward and backward, with gradients for costs and weights",
            [row for row in rows if row["case"] == "gradients"],
        ),
        _layer([row for row in rows if row["case"] == "layer"]),
        _plain("Heads", [row for row in rows if row["case"] == "head"]),
    ]
    return "\n\n".join(part for part in parts if part)


def fill(page: str, report: Mapping[str, Any]) -> str:
    """The page with the tables between its marks.

    Raises:
        FieldmarkError: If a mark is missing.

    Example:
        >>> fill("no marks", {})
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: the page has no marks <!-- figures: begin --> and <!-- figures: end -->
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FieldmarkError(f"the page has no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables(report)}\n\n{END}{after}"


def _solver(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each batch and clock, peers side by side."""
    if not rows:
        return ""
    peers = list(dict.fromkeys(row["against"] for row in rows))
    head = [
        "problems x nodes",
        "images",
        "clock",
        "ours ms",
        "solver alone ms",
        *(f"{peer} ms (ratio)" for peer in peers),
    ]
    lines: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        key = (f"{row['problems']} x {row['nodes']}", row["images"], _clock(row))
        spent = row["milliseconds"]
        line = lines.setdefault(key, [_short(spent["ours"]), _short(spent["ours, solver alone"]), *["-"] * len(peers)])
        target = f" of {row['target']:g}" if "target" in row else ""
        line[2 + peers.index(row["against"])] = f"{_short(spent['peer'])} ({_short(row['ratio'])}{target})"
    return "**Solver**\n\n" + _table(head, ([*key, *line] for key, line in lines.items()))


def _plain(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each row."""
    if not rows:
        return ""
    cells = (
        (row["what"], _short(row["milliseconds"]["ours"]), _short(row["milliseconds"]["peer"]), _short(row["ratio"]),
         f"{row['target']:g}" if "target" in row else "")
        for row in rows
    )  # fmt: skip
    return f"**{title}**\n\n" + _table(["what", "ours ms", "peer ms", "ratio", "target"], cells)


def _layer(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each map, dimension and clock, peers side by side."""
    if not rows:
        return ""
    peers = list(dict.fromkeys(row["against"] for row in rows))
    head = ["nodes x dimension", "clock", "ours ms", "with backward ms", *(f"{peer} ms" for peer in peers)]
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key, spent = (f"{row['nodes']} x {row['dimension']}", _clock(row)), row["milliseconds"]
        line = lines.setdefault(key, [_short(spent["ours"]), _short(spent["ours with backward"]), *["-"] * len(peers)])
        line[2 + peers.index(row["against"])] = f"{_short(spent['peer'])} ({_short(row['ratio'])})"
    return "**Layer, forward**\n\n" + _table(head, ([*key, *line] for key, line in lines.items()))


def _clock(row: Mapping[str, Any]) -> str:
    return f"{row['clock']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    target = Path(sys.argv[2])
    text = fill(target.read_text(), read_json(sys.argv[1], "benchmark"))
    write_beside(target, lambda file: file.write(text.encode()))
