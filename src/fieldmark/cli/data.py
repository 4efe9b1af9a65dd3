"""List the data sets, or examine a folder of your own images: `fieldmark data check FOLDER`."""

from __future__ import annotations

import argparse

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import FieldmarkError, unknown_name

EXAMPLE = "fieldmark data check photos/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", nargs="?", default="list", metavar="ACTION", help="list (default) or check")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="what to check: folder, zip or list file")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """List, or check; a check that finds errors ends with status 1."""
    if options.action == "check":
        return _check(options)
    if options.action != "list":
        raise unknown_name("action of `fieldmark data`", options.action, ("list", "check"))
    from fieldmark.data import DATASETS

    rows = [
        {"name": entry.name, "summary": entry.summary, "source": entry.source, **_plain(entry.facts)}
        for entry in DATASETS
    ]
    if not emit_json(options.json, rows):
        print_table(
            "Data sets (--data NAME --root PATH)",
            ["name", "classes", "images", "px", "splits", "what", "source"],
            [
                (
                    r["name"], r["classes"] or "any", r["images"] or "", r["size"], ", ".join(r["splits"]),
                    r["summary"], r["source"],
                )
                for r in rows
            ],
            right=["classes", "images", "px"],
        )  # fmt: skip
    return 0


def _check(options: argparse.Namespace) -> int:
    if not options.folder:
        raise FieldmarkError("nothing to check; give a folder, a zip or a list file: fieldmark data check FOLDER")
    from fieldmark.data.check import check_folder, render

    report = check_folder(options.folder)
    if not emit_json(options.json, report.to_dict()):
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            console.width = 160
        console.print(render(report))
    return 0 if report.ok else 1


def _plain(facts: dict) -> dict:
    return {
        key: value
        for key, value in facts.items()
        if isinstance(value, str | int | float | list | tuple | dict | type(None))
    }
