"""List the heads: what turns a support set and queries into scores."""

from __future__ import annotations

import argparse

from fieldmark.cli.output import add_json_option, emit_json, print_table

EXAMPLE = "fieldmark heads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the registry of heads."""
    from fieldmark.cli.listing import options_of
    from fieldmark.heads import HEADS

    rows = [
        {
            "name": entry.name,
            "descriptors": getattr(entry.make, "descriptors", ""),
            "summary": entry.summary,
            "options": options_of(entry),
            "source": entry.source,
        }
        for entry in HEADS
    ]
    if not emit_json(options.json, rows):
        print_table(
            "Heads (--head NAME, --head-option KEY=VALUE)",
            ["name", "uses", "what it does", "options", "source"],
            [(r["name"], r["descriptors"], r["summary"], r["options"], r["source"]) for r in rows],
        )
    return 0
