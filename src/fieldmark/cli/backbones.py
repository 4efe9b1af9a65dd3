"""List the backbones: map shape, parameters, what the weights were trained on and their licence."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from fieldmark.cli.output import add_json_option, emit_json, print_table

EXAMPLE = "fieldmark backbones --timm '*vit_small*'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--timm", metavar="PATTERN", help="list timm's models that match (every one of them can be used)"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the registry of backbones, or timm's."""
    if options.timm:
        import timm

        names = timm.list_models(options.timm)
        if not emit_json(options.json, names):
            print_table(f"timm models like {options.timm}", ["name"], [(name,) for name in names])
        return 0
    from fieldmark import backbones
    from fieldmark.cli.listing import options_of

    rows = [
        {**asdict(backbones.describe(name)), "options": options_of(backbones.BACKBONES.get(name))}
        for name in backbones.names()
    ]
    if not emit_json(options.json, rows):
        print_table(
            "Backbones; besides these, every timm model by its name (--timm PATTERN lists them)",
            ["name", "map (C, h, w)", "at px", "parameters", "pre-trained on", "licence of weights", "what", "options"],
            [
                (
                    r["name"], " x ".join(map(str, r["output_shape"])), r["default_size"], f"{r['parameters']:,}",
                    r["pretraining"], r["licence"], r["summary"], r["options"],
                )
                for r in rows
            ],
            right=["parameters", "at px"],
        )  # fmt: skip
    return 0
