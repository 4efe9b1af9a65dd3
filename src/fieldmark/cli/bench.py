"""Measure speed against the peers, both sides in the same run, and write medians and ratios."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.errors import FieldmarkError, unknown_name

EXAMPLE = "fieldmark bench episodes --json benchmarks/episodes.json"
BENCHMARKS = {
    "episodes": "episodes scored a second: prototype against easyfsl, logistic regression against scikit-learn",
    "training": "images trained a second: our step against a plain PyTorch loop with loader workers",
    "augmentation": "images augmented a second: ours against torchvision and kornia",
    "transport": "transport problems solved a second: ours against OpenCV, POT and QPTH; DeepEMD's layer and heads",
    "contrastive": "training steps of the spatial similarity a second: ours against the official formulas, with memory",
    "gallery": "searches a second: the index against all photos, with recall; photos enrolled and predicted a second",
    "lssa": "episodes of the spatial alignment a second: ours against all pairs materialised, with memory",
    "apinet": "pairs mined a second: ours against loops over images; steps with cached gradients, with memory",
    "ssanet": "scale responses a second: FFT against directly; inference with shared against re-extracted features",
}
_OWN_OPTIONS = {"transport": ("data", "root", "qpth_python"), "gallery": ("photos", "classes", "folder")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    listed = "; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    parser.add_argument("which", nargs="?", default="all", metavar="WHICH", help=f"all, or one of: {listed}")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats of which the median is reported")
    transport = parser.add_argument_group("transport")
    transport.add_argument(
        "--data",
        metavar="NAME",
        help="data set whose test images make the problems (`fieldmark data`); default: glyphs",
    )
    transport.add_argument("--root", metavar="PATH", help="folder, zip or list file that holds it")
    transport.add_argument(
        "--qpth-python",
        metavar="PATH",
        help="Python of an environment with torch, qpth and numpy < 2; default: no QPTH",
    )
    gallery = parser.add_argument_group("gallery")
    gallery.add_argument("--photos", type=int, metavar="N", help="photos to search in; default: 100000")
    gallery.add_argument("--classes", type=int, metavar="N", help="classes of 5 photos to enroll; default: 81")
    gallery.add_argument("--folder", metavar="DIR", help="class folders of photos to enroll; default: drawn photos")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks and print their tables."""
    if options.which != "all" and options.which not in BENCHMARKS:
        raise unknown_name("benchmark", options.which, ["all", *BENCHMARKS])
    if options.repeats < 1:
        raise FieldmarkError(f"--repeats is {options.repeats}; expected at least 1")
    names = list(BENCHMARKS) if options.which == "all" else [options.which]
    given = _given(options, names)
    from fieldmark.evaluation import provenance

    report: dict[str, Any] = {"benchmarks": {}, "provenance": provenance()}
    for name in names:
        module = importlib.import_module(f"fieldmark.benchmarks.{name}")
        report["benchmarks"][name] = module.run(repeats=options.repeats, **given.get(name, {}))
    if not emit_json(options.json, report):
        for name, found in report["benchmarks"].items():
            _print(f"{name}: {BENCHMARKS[name]}", found)
    return 0


def _given(options: argparse.Namespace, names: list[str]) -> dict[str, dict[str, Any]]:
    """The options that only one benchmark takes, by its name."""
    given: dict[str, dict[str, Any]] = {}
    for owner, own in _OWN_OPTIONS.items():
        found = {name: getattr(options, name) for name in own if getattr(options, name) is not None}
        if found and owner not in names:
            option = "--" + next(iter(found)).replace("_", "-")
            raise FieldmarkError(f"{option} is an option of the benchmark {owner}, not of {names[0]}; leave it out")
        given[owner] = found
    if "root" in given["transport"] and "data" not in given["transport"]:
        raise FieldmarkError("--root without --data; say which data set lies there (`fieldmark data` lists them)")
    for name, count in given["gallery"].items():
        if name != "folder" and count < 2:
            raise FieldmarkError(f"--{name} is {count}; expected at least 2")
    return given


def _print(title: str, found: dict[str, Any]) -> None:
    print_table(
        title,
        ["what", "ours", "peer", "unit", "ratio", "target", ""],
        [
            (
                row["what"],
                _short(row["ours"]),
                _short(row["peer"]),
                row["unit"],
                _short(row["ratio"]),
                row.get("target"),
                "FAIL" if row["ratio"] < (row.get("target") or 0) else "",
            )
            for row in found["rows"]
        ],
        right=["ours", "peer", "ratio", "target"],
    )
    for note in found.get("notes", []):
        print(note)


def _short(number: float) -> str:
    """Three digits at least.

    Example:
        >>> _short(12345.6), _short(12.345), _short(0.00833)
        ('12345.6', '12.35', '0.00833')
    """
    if number >= 100:
        return f"{number:.1f}"
    return f"{number:.2f}" if number >= 10 else f"{number:.3g}"
