"""The whole line on the embedded data set, with a report to look at.

Trains a small model on the characters of some scripts and recognises characters of scripts it never saw from one and
five examples. Then enrolls characters of a new script in a gallery, asks it about new photos, with the reasons, and
about characters that are not enrolled. Writes report.html, which shows what it got right and wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.cli.output import add_json_option, emit_json, print_table

if TYPE_CHECKING:
    from fieldmark.cli.demo_gallery import NewScript

EXAMPLE = "fieldmark demo --out demo"
RECIPE = "baseline/glyphs_conv4"
HEADS = {"nearest prototype": "prototype", "local k-NN (DN4)": "local_knn", "logistic regression": "logistic"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out", default="demo", metavar="DIR", help="folder for the run and report.html; default: demo"
    )
    parser.add_argument("--episodes", type=int, default=600, help="episodes of each evaluation")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and episodes")
    parser.add_argument("--quick", action="store_true", help="the recipe's quick variant, for a first look")
    parser.add_argument("--restart", action="store_true", help="train anew instead of using the run in the folder")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Train, compare, report."""
    import time

    started = time.perf_counter()
    from fieldmark.cli.demo_gallery import enroll_new_script
    from fieldmark.evaluation import make_record, save_record
    from fieldmark.training import load_recipe, train

    out = Path(options.out)
    overrides = ["--seed", str(options.seed), "--evaluations", "[]"]  # compared below, all on the same episodes
    recipe = load_recipe(RECIPE, overrides=overrides, quick=options.quick)
    folder = train(recipe, out=out, resume=not options.restart)
    data, models, results = _compare(folder, options)
    rows = [{"model": model, **result.to_dict()} for (model, _, _), result in results.items()]
    new = enroll_new_script(folder, out, data, options.seed)
    record = {**make_record("demo", rows, models), "new_script": new.facts}
    save_record(out / "demo.json", record)
    report = _write_report(out / "report.html", folder, data, results, new, record, time.perf_counter() - started)
    if not emit_json(options.json, record):
        lines = [
            (model, head, *(results[model, head, shot].estimate.percent() for shot in (1, 5)))
            for model, head in dict.fromkeys((m, h) for m, h, _ in results)
        ]
        print_table(
            "5-way accuracy in % on characters of scripts the model never saw, 95% interval over episodes",
            ["model", "head", "1 shot", "5 shots"],
            lines,
            right=["1 shot", "5 shots"],
        )
        print(new.line)
        print("evidence:", *(one.page for one in new.examples))
        print(f"report: {report}   ({time.perf_counter() - started:.0f} s)")
    return 0


def _compare(folder: Path, options: argparse.Namespace) -> tuple[Any, dict[str, Any], dict[tuple[str, str, int], Any]]:
    import torch

    from fieldmark import data
    from fieldmark.cli.models import find_model, untrained
    from fieldmark.evaluation import evaluate_heads

    device = torch.device("cpu")
    model, facts = find_model(str(folder), device)
    pixels, pixel_facts = find_model("pixels", device)
    test = data.load("glyphs", split="test")
    fresh, fresh_facts = untrained(model, options.seed)
    compared = {
        "trained conv4": (model, facts, HEADS),
        "untrained conv4": (fresh, fresh_facts, {"nearest prototype": "prototype"}),
        "pixels": (pixels, pixel_facts, {"nearest neighbour": "nearest"}),
    }
    results: dict[tuple[str, str, int], Any] = {}
    for shot in (1, 5):
        for name, (one, known, heads) in compared.items():
            found = evaluate_heads(one, test, heads, 5, shot, 15, options.episodes, options.seed, facts=known)
            results |= {(name, head, shot): result for head, result in found.items()}
    return test, {name: known for name, (_, known, _) in compared.items()}, results


def _write_report(
    path: Path,
    folder: Path,
    data: Any,
    results: dict[tuple[str, str, int], Any],
    new: NewScript,
    record: dict[str, Any],
    seconds: float,
) -> Path:
    from fieldmark.cli.demo_gallery import section
    from fieldmark.evaluation import report
    from fieldmark.training.curves import read_curves

    tables = "".join(
        f"<h3>{shot} labelled image{'s' if shot > 1 else ''} a class</h3>"
        + report.accuracy_table({f"{m}, {h}": r for (m, h, s), r in results.items() if s == shot})
        for shot in (1, 5)
    )
    curves, borders, unit = read_curves(folder)
    best = max((key for key in results if key[2] == 1), key=lambda key: results[key].accuracy)
    shown = results[best]
    made = record["provenance"]
    hardware = made["hardware"]
    return report.write_report(
        path,
        "fieldmark demo: characters of new scripts",
        "A small convolutional network was trained on characters of some scripts. Here it is asked to tell apart "
        "characters of scripts it never saw, five at a time, from one or five examples of each.",
        [
            ("How often it is right", tables),
            ("A new script, enrolled", section(new, path.parent)),
            ("While it learned", report.learning_curve(borders, curves, unit)),
            ("Most confused characters", report.confusions(shown, data)),
            ("Example episodes", report.example_episodes(shown, data)),
        ],
        f"{seconds:.0f} s on {hardware['processor']}, {made['threads']} threads; seed {shown.episodes.facts['seed']}; "
        f"fieldmark {made['fieldmark']}, commit {made['commit'][:12]}, {made['time']}. All numbers: demo.json.",
    )
