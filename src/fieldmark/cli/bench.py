"""Measure speed against the peers, both sides in the same run, and write medians and ratios."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from fieldmark.benchmarks import BENCHMARKS
from fieldmark.cli.output import add_json_option, print_json, print_table
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.files import write_json

EXAMPLE = "fieldmark bench episodes --json benchmarks/episodes.json"
_OWN_OPTIONS = {"transport": ("data", "root", "qpth_python"), "gallery": ("photos", "classes", "folder")}
#: Says little without an accelerator: measured there when it is asked for by its name.
_FOR_ACCELERATORS = ("efficiency",)


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
    names = _asked_for(options.which)
    given = _given(options, names)
    from fieldmark.evaluation import provenance

    report: dict[str, Any] = {"asked": names, "benchmarks": {}, "provenance": provenance()}
    failed = False
    for name in names:
        found = _measure(name, {"repeats": options.repeats, **given.get(name, {})}, alone=len(names) == 1)
        report["benchmarks"][name] = found
        if options.json not in (None, "-"):
            write_json(options.json, report)  # what is measured stays, whatever becomes of the next one
        if options.json != "-":
            _print(f"{name}: {BENCHMARKS[name]}", found)
        for text in found.get("skipped", []):
            print(f"fieldmark: bench {name}: {text}", file=sys.stderr)
            failed = True
    if options.json == "-":
        print_json(report)
    return int(failed)


def _asked_for(which: str) -> list[str]:
    """The benchmarks to run."""
    if which != "all":
        return [which]
    import torch

    if torch.accelerator.is_available():
        return list(BENCHMARKS)
    for name in _FOR_ACCELERATORS:
        print(
            f"fieldmark: bench {name} is for accelerators and there is none here; left out of `all` (by its name it "
            "measures the processor)",
            file=sys.stderr,
        )
    return [name for name in BENCHMARKS if name not in _FOR_ACCELERATORS]


def _measure(name: str, options: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
    """The rows of one benchmark, with when and beside what they were measured.

    Among several, one that fails has no rows and says why under "skipped"; alone, its error comes out.
    """
    import torch

    from fieldmark.benchmarks.timing import eight_digits, one_line

    facts = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "threads": torch.get_num_threads()}
    started = time.perf_counter()
    try:
        found = importlib.import_module(f"fieldmark.benchmarks.{name}").run(**options)
    except Exception as error:
        if alone:
            raise
        found = {"rows": [], "skipped": [one_line(error)]}
    if hasattr(os, "getloadavg"):
        facts["load"] = os.getloadavg()
    return eight_digits({**facts, **found, "seconds": round(time.perf_counter() - started, 1)})


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, dict[str, Any]]:
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


def _print(title: str, found: Mapping[str, Any]) -> None:
    from fieldmark.benchmarks.verdicts import short, target_text, verdict

    print_table(
        title,
        ["what", "ours", "peer", "unit", "ratio", "target", ""],
        [
            (
                row["what"], short(row["ours"]), short(row["peer"]), row["unit"], short(row["ratio"]),
                target_text(row), verdict(row),
            )
            for row in found["rows"]
        ],
        right=["ours", "peer", "ratio", "target"],
    )  # fmt: skip
    for note in found.get("notes", []):
        print(note)
