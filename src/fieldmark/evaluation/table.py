"""``results/README.md`` from the results files: paper, ours, difference (``python -m fieldmark.evaluation.table``)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmark.evaluation.results import estimate_of, load_record
from fieldmark.files import write_beside

_HEAD = """# Results

Made by `make results` from the JSON files in this folder; every number was measured by the command that stands with it.
Accuracy in %, with the half width of the 95% interval over episodes; `difference` is ours minus published.
"""


def results_page(folder: str | Path) -> str:
    """The page for all results files of a folder (without its subfolders).

    Raises:
        FieldmarkError: If a file lacks a required field.
    """
    parts = [_HEAD]
    for path in sorted(Path(folder).glob("*.json")):
        parts.append(_section(load_record(path), path.name))
    return "\n".join(parts)


def _section(record: Mapping[str, Any], file: str) -> str:
    first, made = record["rows"][0], record["provenance"]
    manifest, protocol = first["manifest"], first["protocol"]
    hardware = made["hardware"]
    machine = hardware.get("accelerator") or f"{hardware['processor']}, {hardware['cores']} cores"
    lines = [
        f"## {record['name']}",
        "",
        f"{manifest['name']} {manifest.get('split') or ''} at {manifest['size'][0]} px; {protocol['way']}-way "
        f"{protocol['shot']}-shot, {first['count']} episodes, seed {protocol.get('seed')}; "
        f"{machine}, {made['threads']} threads. "
        f"[`{file}`]({file})",
        "",
        f"    {made['command']}",
        "",
        "| model | head | ours | published | difference |",
        "|---|---|---|---|---|",
    ]
    for index, row in enumerate(record["rows"]):
        lines.append(_line(row, record["published"] if index == 0 or _trained(record, row) else []))
    return "\n".join(lines) + "\n"


def _trained(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return row["model"] == record["rows"][0]["model"]


def _line(row: Mapping[str, Any], published: list[Mapping[str, Any]]) -> str:
    ours = estimate_of(row).percent()
    named = [one for one in published if one.get("head") in (None, row["head"])]
    theirs = "<br>".join(f"{100 * one['mean']:.2f} ({one['label']})" for one in named)
    gaps = "<br>".join(f"{math.floor(100 * (row['mean'] - one['mean']) * 100) / 100:+.2f}" for one in named)
    return f"| {row['model']} | {row['head']} | {ours} | {theirs} | {gaps} |"


def main() -> int:
    """Write ``README.md`` into the folder given as argument (default: results)."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    write_beside(folder / "README.md", lambda file: file.write(results_page(folder).encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
