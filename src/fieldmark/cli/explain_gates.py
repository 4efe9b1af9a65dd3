"""`fieldmark explain --gates`: the maps of the channels that API-Net's gates open in a pair of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fieldmark.cli.output import print_table
from fieldmark.errors import FieldmarkError

PARTS: tuple[str, ...] = ("channels",)
OPTIONS: tuple[str, ...] = ("--baseline", "--channels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this picture."""
    gates = parser.add_argument_group("gates (API-Net)")
    gates.add_argument(
        "--gates", action="store_const", dest="head", const="gates",
        help="maps of the channels that the pair's gates open most; --model is the run folder of an API-Net training",
    )  # fmt: skip
    gates.add_argument(
        "--baseline", metavar="MODEL", help="run folder or model file of a plain training of the same backbone"
    )
    gates.add_argument("--channels", type=int, default=5, help="channels of each gate; default: 5")


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be drawn."""
    if not 1 <= options.channels <= 8:
        raise FieldmarkError(f"--channels is {options.channels}; expected 1 to 8")


def find(options: argparse.Namespace, model: Any, facts: dict[str, Any], **how: Any) -> Any:
    """Look at both images through the gates."""
    from fieldmark.cli.models import find_model
    from fieldmark.explain.gates import gates, interaction_of

    interaction = interaction_of(options.model)
    baseline = None if options.baseline is None else find_model(options.baseline, model.device)[0]
    return gates(
        model, interaction, options.query, options.support, baseline=baseline, channels=options.channels, **how
    )


def drawable(found: Any) -> list[str]:
    """All there is."""
    return list(PARTS)


def draw(found: Any, what: Sequence[str], options: argparse.Namespace) -> Any:
    """The picture of the gates."""
    from fieldmark.explain.gates import gates_picture

    return gates_picture(found)


def show(found: Any, what: Sequence[str], options: argparse.Namespace) -> None:
    """Print the channels of both gates."""
    rows = [
        (one.name, channel, f"{gate:.4f}", f"{values.max():.4g}", "" if one.guess is None else one.guess.name)
        for one in found.views
        for channel, gate, values in zip(one.channels, one.gate, one.maps, strict=True)
    ]
    print_table(
        f"{options.out}: channels that the gates open most",
        ["image", "channel", "gate", "largest value", "prediction"],
        rows,
        right=["channel", "gate", "largest value"],
    )
