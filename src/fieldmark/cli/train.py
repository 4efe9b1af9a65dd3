"""Train a recipe into runs/NAME; run the same command again after an interruption and it goes on where it was.

RECIPE is a name (`fieldmark recipes`) or a YAML file. Any key of it can be given on the command line, list items by
their name or number: --data.root DIR --stages.pretrain.epochs 3 --trainer.devices 2 --trainer.strategy ddp
"""

from __future__ import annotations

import argparse
from typing import Any

from fieldmark.cli.output import add_json_option, emit_json, print_table

EXAMPLE = "fieldmark train baseline/glyphs_conv4 --quick"
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; everything else is a key of the recipe."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe or a YAML file")
    parser.add_argument("--quick", action="store_true", help="the recipe's quick variant, minutes on two cores")
    parser.add_argument("--out", default="runs", metavar="DIR", help="where run folders are made; default: runs")
    parser.add_argument("--restart", action="store_true", help="begin anew instead of resuming")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Train, evaluate as the recipe says, and print the results."""
    from fieldmark.training import is_main_process, load_recipe, train

    recipe = load_recipe(options.recipe, overrides=options.overrides, quick=options.quick)
    folder = train(recipe, out=options.out, resume=not options.restart)
    if not is_main_process():  # with several processes one of them reports
        return 0
    from fieldmark.evaluation.results import estimate_of, label_of, load_record
    from fieldmark.evaluation.table import scorer_of

    records = [load_record(path) for path in sorted((folder / "results").glob("*.json"))]
    if not emit_json(options.json, {"run": str(folder), "results": records}):
        print(f"model: {folder / 'model.safetensors'}")
        rows = [
            (what, label_of(row["model"], row), scorer_of(row), estimate_of(one).percent())
            for record in records
            for row in record["rows"]
            for what, one in _lines_of(record["name"], row)
        ]
        over = sorted({row["over"] for record in records for row in record["rows"]})
        if rows:
            print_table(
                f"Evaluations (accuracy in %, 95% interval over {' or '.join(over)})",
                ["what", "model", "head", "accuracy"],
                rows,
            )
    return 0


def _lines_of(name: str, row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a row says, a line each: of robustness every column."""
    columns = row.get("columns") or {}
    return [(f"{name}, {column}", one) for column, one in columns.items()] or [(name, row)]
