"""Measure speed against the peers, both sides in the same run, and write medians and ratios."""

from __future__ import annotations

import argparse
import importlib

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import unknown_name

EXAMPLE = "fieldmark bench episodes --json benchmarks/episodes.json"
BENCHMARKS = {
    "episodes": "episodes scored a second: prototype against easyfsl, logistic regression against scikit-learn",
    "training": "images trained a second: our step against a plain PyTorch loop with loader workers",
    "augmentation": "images augmented a second: ours against torchvision and kornia",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    listed = "; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    parser.add_argument("which", nargs="?", default="all", metavar="WHICH", help=f"all, or one of: {listed}")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats of which the median is reported")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks and print their tables."""
    if options.which != "all" and options.which not in BENCHMARKS:
        raise unknown_name("benchmark", options.which, ["all", *BENCHMARKS])
    names = list(BENCHMARKS) if options.which == "all" else [options.which]
    from fieldmark.evaluation import provenance

    report = {"benchmarks": {}, "provenance": provenance()}
    for name in names:
        module = importlib.import_module(f"fieldmark.benchmarks.{name}")
        report["benchmarks"][name] = module.run(repeats=options.repeats)
    if not emit_json(options.json, report):
        for name, found in report["benchmarks"].items():
            print_table(
                f"{name}: {BENCHMARKS[name]}",
                ["what", "ours", "peer", "unit", "ratio", "target"],
                [
                    (
                        r["what"],
                        f"{r['ours']:.1f}",
                        f"{r['peer']:.1f}",
                        r["unit"],
                        f"{r['ratio']:.2f}",
                        r.get("target"),
                    )
                    for r in found["rows"]
                ],
                right=["ours", "peer", "ratio", "target"],
            )
    return 0
