"""List the recipes that can be trained, with what each costs and is expected to give."""

from __future__ import annotations

import argparse

from fieldmark.cli.output import add_json_option, emit_json, print_table

EXAMPLE = "fieldmark recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the recipes."""
    from fieldmark.training.recipe import list_recipes

    rows = [{"name": one.name, "head": one.head_comment, "path": str(one.path)} for one in list_recipes()]
    if not emit_json(options.json, rows):
        print_table(
            "Recipes (fieldmark train NAME; --quick finishes in minutes)",
            ["name", "cost, expectation and outcome"],
            [(r["name"], r["head"]) for r in rows],
        )
    return 0
