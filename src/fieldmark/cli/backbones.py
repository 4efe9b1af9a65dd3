"""List the backbones and the trained models that come with fieldmark: maps, weights, data, licences, accuracies."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

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
    trained = [
        {**asdict(backbones.describe(card.name)), "options": "", "card": dict(card.facts)}
        for card in backbones.zoo.cards()
    ]
    if not emit_json(options.json, rows + trained):
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
        _print_trained(trained)
    return 0


def _print_trained(rows: list[dict[str, Any]]) -> None:
    """The cards in short."""
    from fieldmark.evaluation.cards import accuracy, headlines, short_commit
    from fieldmark.evaluation.table import scorer_of

    def origin(card: dict[str, Any]) -> str:
        places = " x ".join(map(str, card["map"]))
        return (
            f"{card['data']}, {card['classes']} classes at {card['size'][0]} px; map {places}\n"
            f"recipe {card['recipe']}, seed {card['seed']}, commit {short_commit(card['commit'])}\n"
            f"licence of the data: {card['licence_of_data']}"
        )

    def measured(card: dict[str, Any]) -> str:
        lines = [
            f"{row['way']}-way {row['shot']}-shot {accuracy(row)}, {scorer_of(row)}\n  results/{row['file']}"
            for row in headlines(card)
        ]
        return "\n".join(lines)

    print_table(
        "Trained models that come with fieldmark, used by name wherever a backbone or model file is; no network needed",
        ["name", "trained on", "accuracy on new classes, %"],
        [(card["name"], origin(card), measured(card)) for card in (row["card"] for row in rows)],
    )
