"""The page of all recorded benchmarks, docs/speed.md, with its figure, from the files in benchmarks/.

``python -m fieldmark.benchmarks.page benchmarks docs/speed.md`` (`make results` runs it).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark.benchmarks import BENCHMARKS
from fieldmark.benchmarks.figure import draw
from fieldmark.benchmarks.verdicts import short, target_text, verdict
from fieldmark.errors import FieldmarkError
from fieldmark.files import read_json, write_beside

FIGURE = "images/speed.svg"
_UNKNOWN = "not recorded"
_MANY = 24  # rows from which on those without a target are folded away
_HEAD = f"""# Speed

Made by `make results` from the files in `benchmarks/` of the repository, each written by the command under its heading
(`fieldmark bench`); no number on this page is typed. Both sides are measured in turn in the same run, and a figure is
the median of its repeats. `ratio` is ours over the peer's: above 1 we do more in a second, or need less memory (unit
MB). `target` is the ratio to reach, PASS or FAIL whether it is reached; rows without one are for information. A peer
that is *quoted* was not run: its figure is a paper's or a recording, from other hardware. `wall` is the clock, with all
threads; `cpu` is processor time, with one. The load is the machine's over the last minute at the end, our own included.

![One mark for each row of the tables below, by benchmark, on a logarithmic axis of ours over the peer's]({FIGURE})

*One mark a row: green reaches its target, red misses it, grey has none; short marks are against quoted figures.*
"""


@dataclass(frozen=True)
class Measured:
    """One benchmark of one file.

    Attributes:
        file: Name of the file.
        topic: Name of the benchmark.
        found: What it gave.
        made: The file's provenance.
    """

    file: str
    topic: str
    found: Mapping[str, Any]
    made: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The benchmark, and the file where it is called otherwise."""
        stem = Path(self.file).stem
        return self.topic if stem == self.topic else f"{self.topic} ({stem})"

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Its rows."""
        return self.found["rows"]

    def fact(self, key: str) -> Any:
        """What is known of this benchmark, else of the whole file; None if it was not recorded."""
        return self.found.get(key, self.made.get(key))


def read_folder(folder: str | Path) -> list[Measured]:
    """All benchmarks of all files of a folder.

    Raises:
        FieldmarkError: If a file is not what ``fieldmark bench --json`` writes.
    """
    out = []
    for path in sorted(Path(folder).glob("*.json")):
        report = read_json(path, "benchmark")
        if not isinstance(report, dict) or not isinstance(report.get("benchmarks"), dict):
            raise FieldmarkError(f"{path} is no report of `fieldmark bench`; expected an object with 'benchmarks'")
        made = report.get("provenance") or {}
        for topic in dict.fromkeys([*report["benchmarks"], *report.get("asked", [])]):
            found = report["benchmarks"].get(topic, {"rows": [], "skipped": ["the run ended before it"]})
            out.append(Measured(path.name, topic, found, made))
    return out


def speed_page(measured: Sequence[Measured]) -> str:
    """The page.

    Args:
        measured: As :func:`read_folder` gives it.
    """
    parts = [_HEAD, _summary(measured), _missed(measured), *map(_section, measured)]
    return "\n".join(parts)


def speed_figure(measured: Sequence[Measured]) -> str:
    """The figure, as SVG."""
    lines = [(one.title, [(row["ratio"], verdict(row), _quoted(row)) for row in one.rows]) for one in measured]
    return draw([line for line in lines if line[1]])


def _summary(measured: Sequence[Measured]) -> str:
    head = ["benchmark", "rows", "reached", "missed", "no target", "hardware", "threads", "measured", "commit"]
    lines = []
    for one in measured:
        verdicts = [verdict(row) for row in one.rows]
        quoted = sum(_quoted(row) for row in one.rows if verdict(row) == "PASS")
        reached = f"{verdicts.count('PASS')}" + (f" ({quoted} against quoted figures)" if quoted else "")
        link = f"[{one.title}](#{_anchor(one.title)})"
        counts = (len(verdicts), reached, verdicts.count("FAIL"), verdicts.count(""))
        lines.append([link, *map(str, counts), _hardware(one), _threads(one), _time(one), _commit(one)])
    parts = [_table(head, lines)]
    recorded = {one.topic for one in measured if one.rows}
    if never := [f"`{topic}` ({text})" for topic, text in BENCHMARKS.items() if topic not in recorded]:
        parts.append(f"Not recorded yet: {'; '.join(never)}.")
    return "\n\n".join(parts) + "\n"


def _missed(measured: Sequence[Measured]) -> str:
    lines = [[one.title, *_cells(row)] for one in measured for row in one.rows if verdict(row) == "FAIL"]
    text = _table(["benchmark", *_COLUMNS], lines) if lines else "None."
    return f"## Targets that are missed\n\n{text}\n"


def _section(one: Measured) -> str:
    versions = one.made.get("versions") or {}
    torch = f"torch {versions['torch']}" if "torch" in versions else f"version of torch {_UNKNOWN}"
    load = one.fact("load")
    facts = [
        _hardware(one),
        f"threads: {_threads(one)}",
        torch,
        _time(one),
        f"commit {_commit(one)}",
        f"load {load[0]:.1f}" if load else f"load {_UNKNOWN}",
    ]
    parts = [
        f"## {one.title}",
        _about(one.topic),
        f"    {one.made.get('command', f'command {_UNKNOWN}')}",
        f"`benchmarks/{one.file}`: {'; '.join(facts)}.",
        "\n".join(f"- {note}" for note in one.found.get("notes", [])),
        "\n".join(f"- Not measured: {text}" for text in one.found.get("skipped", [])),
        _rows(one.rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_COLUMNS = ["what", "ours", "peer", "unit", "ratio", "target", ""]


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """One table; of many rows, those with a target, and the others folded away."""
    shown = [row for row in rows if verdict(row)]
    if len(rows) <= _MANY or not shown:
        return _table(_COLUMNS, map(_cells, rows)) if rows else ""
    others = [row for row in rows if not verdict(row)]
    tables = [_table(_COLUMNS, map(_cells, some)) for some in (shown, others) if some]
    if not others:
        return tables[0]
    fold = f'<details markdown="1"><summary>{len(others)} rows without a target</summary>'
    return f"{tables[0]}\n\n{fold}\n\n{tables[1]}\n\n</details>"


def _cells(row: Mapping[str, Any]) -> list[str]:
    judged = verdict(row) + (", quoted peer" if verdict(row) and _quoted(row) else "")
    return [
        row["what"].replace("|", "\\|"), short(row["ours"]), short(row["peer"]), row["unit"], short(row["ratio"]),
        target_text(row), judged,
    ]  # fmt: skip


def _quoted(row: Mapping[str, Any]) -> bool:
    return bool(row.get("quoted"))


def _hardware(one: Measured) -> str:
    facts = one.fact("hardware")
    if not facts:
        return f"hardware {_UNKNOWN}"
    processor = f"{facts.get('processor', 'processor ' + _UNKNOWN)}, {facts.get('cores', '?')} cores"
    return f"{facts['accelerator']} ({processor})" if facts.get("accelerator") else processor


def _threads(one: Measured) -> str:
    return str(one.fact("threads") or _UNKNOWN)


def _time(one: Measured) -> str:
    """Day and minute, in UTC."""
    text = one.fact("time")
    return f"{text[:10]} {text[11:16]} UTC" if text else f"time {_UNKNOWN}"


def _commit(one: Measured) -> str:
    whole = one.fact("commit")
    if not whole:
        return _UNKNOWN
    bare, plus, changes = whole.partition("+")
    return f"`{bare[:12]}{plus}{changes}`"


def _about(topic: str) -> str:
    """The first paragraph of what the benchmark's module says of itself; nothing for one that is not here."""
    path = Path(__file__).with_name(f"{topic}.py")
    if not path.exists():
        return ""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.split("\n\n")[0]


def _anchor(title: str) -> str:
    """As the documentation's site makes it from a heading.

    Example:
        >>> _anchor("episodes (episodes_one_thread)")
        'episodes-episodes_one_thread'
    """
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " _-")
    return "-".join(kept.split())


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def main(arguments: Sequence[str]) -> int:
    """Write the page, and the figure beside it."""
    if len(arguments) != 2:
        raise FieldmarkError("expected the folder of reports and the page: benchmarks docs/speed.md")
    folder, target = map(Path, arguments)
    measured = read_folder(folder)
    for path, text in ((target, speed_page(measured)), (target.parent / FIGURE, speed_figure(measured))):
        write_beside(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
