"""The top1 and robustness tasks of `fieldmark eval`: every image of a split is named, as it is or changed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmark.cli.output import emit_json, print_table
from fieldmark.cli.values import heads_in, names_in, options_by_head, parse_options, published_figures
from fieldmark.errors import FieldmarkError

Results = dict[tuple[str, str], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that only these tasks have."""
    group = parser.add_argument_group("robustness (--task robustness)")
    group.add_argument(
        "--change", default="rotated,any_angle,reduced", metavar="NAME[,NAME]",
        help="rotated (by 90, 180 or 270 degrees), any_angle, reduced (and zero-padded)",
    )  # fmt: skip
    group.add_argument(
        "--ratio", type=float, metavar="R", help="side of reduced images as a share; default: 300 of 448 pixels"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate and report."""
    from fieldmark.cli.evaluate import print_differences
    from fieldmark.evaluation import load_record, make_record

    earlier = load_record(options.against) if options.against else None
    published = published_figures(options.published)
    models, results = _evaluate(options)
    rows = [{"model": model, **result.to_dict()} for (model, _), result in results.items()]
    name = options.name or f"{Path(options.model).name}-{options.data}-{options.task}"
    record = make_record(name, rows, models, published)
    if not emit_json(options.json, record):
        (_print_top1 if options.task == "top1" else _print_robustness)(record, results)
        _print_worst(next(iter(results.values())), options)
        if earlier:
            print_differences(record, earlier, options.against)
    return 0


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], Results]:
    from fieldmark import data, heads
    from fieldmark.cli.evaluate import how, load_query_data
    from fieldmark.cli.models import choose_device, choose_extractor, find_model, image_size, untrained
    from fieldmark.evaluation.robustness import RATIO, make_change
    from fieldmark.evaluation.top1 import CLASSIFIER

    named = heads_in(options.head or CLASSIFIER)
    fitted = {label: name for label, name in named.items() if name != CLASSIFIER}
    head_options = options_by_head(fitted, options.head_option)
    for label, name in fitted.items():
        heads.create(name, **head_options[label])  # a wrong name or option is refused before anything is loaded
    if options.support_split and not fitted:
        raise FieldmarkError("--support-split is what a head is fitted on, and none is named; add --head logistic")
    changed: dict[str, Any] = {}
    if options.task == "robustness":
        ratio = RATIO if options.ratio is None else options.ratio
        changed = {"changes": names_in("--change", options.change), "ratio": ratio}
        for name in changed["changes"]:
            make_change(name, 1, ratio)
    device = choose_device(options.device)
    model, facts = find_model(options.model, device)
    extractor = choose_extractor(
        options.descriptors, parse_options("--descriptor-option", options.descriptor_option), facts
    )
    models = {options.model: (model, facts)}
    for text in options.baseline:
        models[text] = untrained(model, seed=0) if text == "untrained" else find_model(text, device)
    plan = [(key, label) for key, (one, _) in models.items() for label in _scorers(key, one, named)]
    for key, label in plan:
        _check(key, models[key][0], named[label], head_options.get(label, {}))
    size = options.size or image_size(model, facts)
    store = load_query_data(options, size, facts)
    support = None
    if fitted:
        support = data.load(options.data, options.root, options.support_split or "train", **how(options, size, facts))
    results: Results = {}
    described: dict[str, dict[tuple[str, str], Any]] = {key: {} for key in models}
    for key, label in plan:
        given: dict[str, Any] = {"facts": models[key][1], "seed": options.seed, "interval": options.interval}
        if label in fitted:
            given |= {"head": fitted[label], "head_options": head_options[label], "support_data": support}
            given |= {"descriptors": extractor}
            if options.task == "top1":
                given["described"] = described[key]  # several heads share the images' descriptors
        results[key, label] = _one(models[key][0], store, {**given, **changed}, options)
    return {key: known for key, (_, known) in models.items()}, results


def _one(model: Any, store: Any, given: dict[str, Any], options: argparse.Namespace) -> Any:
    from fieldmark.evaluation import evaluate_robustness, evaluate_top1

    evaluate: Any = evaluate_top1 if options.task == "top1" else evaluate_robustness
    return evaluate(model, store, batch_size=options.batch_size, **given)


def _scorers(key: str, model: Any, named: Mapping[str, str]) -> list[str]:
    """What names the images of a model: what was asked for, without a classifier where it has none but a head is there.

    Raises:
        FieldmarkError: If nothing is left.
    """
    from fieldmark.evaluation.top1 import CLASSIFIER

    if getattr(model, "classifier", None) is not None:
        return list(named)
    left = [label for label, name in named.items() if name != CLASSIFIER]
    if not left:
        raise FieldmarkError(
            f"{key} has no classifier of its own; fit a head on the training images (--head logistic, or --head "
            "classifier,logistic where other models have one)"
        )
    return left


def _check(key: str, model: Any, name: str, options: Mapping[str, Any]) -> None:
    """Refuse parts that were not trained with a model before its data is loaded."""
    from fieldmark import classifiers, heads
    from fieldmark.evaluation.top1 import CLASSIFIER

    try:
        if name == CLASSIFIER:
            classifiers.classifier_of(model)
        else:
            heads.create_for(model, name, **options)
    except FieldmarkError as error:
        raise FieldmarkError(f"{key}: {error}") from None


def _title(record: Mapping[str, Any], what: str) -> str:
    row = record["rows"][0]
    manifest = row["manifest"]
    return (
        f"{manifest['name']} {manifest.get('split') or ''} ({manifest['size'][0]} px), {row['count']} images of "
        f"{row['protocol']['classes']} classes: {what}in %, 95% interval over images"
    )


def _print_top1(record: Mapping[str, Any], results: Results) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.statistics import percent
    from fieldmark.evaluation.table import scorer_of

    first = next(iter(results.values()))
    lines = []
    for ((model, _), result), row in zip(results.items(), record["rows"], strict=True):
        gap = "" if result is first else result.difference(first).points()
        seconds = f"{sum(result.seconds.values()):.1f} s"
        cells = result.estimate.percent(), result.estimate5.percent(), percent(result.mean_class_accuracy)
        lines.append((label_of(model, row), scorer_of(row), *cells, gap, seconds))
    columns = ["model", "by", "top-1", "top-5", "mean over classes", "top-1, difference to first (paired)", "time"]
    right = ["top-1", "top-5", "mean over classes", "time"]
    print_table(_title(record, "accuracy "), columns, lines, right=right)
    _print_notes(results, lambda result: result.notes)


def _print_robustness(record: Mapping[str, Any], results: Results) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.robustness import CHANGES, PLAIN
    from fieldmark.evaluation.table import scorer_of

    first = next(iter(results.values()))
    called = {PLAIN: PLAIN, **{name: CHANGES[name] for name in first.columns if name != PLAIN}}
    names = [(label_of(row["model"], row), scorer_of(row)) for row in record["rows"]]
    lines, gaps = [], []
    for name, result in zip(names, results.values(), strict=True):
        cells = [
            result.columns[column].estimate.percent()
            + ("" if column == PLAIN else f" ({result.lost(column).percent()})")
            for column in called
        ]
        lines.append((*name, *cells))
        gaps.append((*name, *(result.difference(first, column).points() for column in called)))
    how = f"reduced to {first.ratio:.3g} of the side, angles by seed {first.seed}"
    what = f"top-1 (paired difference to plain), {how}, "
    print_table(_title(record, what), ["model", "by", *called.values()], lines)
    if len(results) > 1:
        print_table("Paired differences to the first row", ["model", "by", *called.values()], gaps[1:])
    _print_notes(results, lambda result: result.plain.notes)


def _print_notes(results: Results, notes_of: Any) -> None:
    several = len({model for model, _ in results}) > 1
    for note in dict.fromkeys(
        f"{model}: {note}" if several else note for (model, _), one in results.items() for note in notes_of(one)
    ):
        print(f"Note: {note}")


def _print_worst(first: Any, options: argparse.Namespace) -> None:
    if not options.worst:
        return
    result = first if options.task == "top1" else first.plain
    worst = sorted(result.class_accuracies.items(), key=lambda item: item[1])[: options.worst]
    print_table("Classes recognised worst", ["class", "accuracy %"], [(n, f"{100 * a:.1f}") for n, a in worst])
    pairs = result.confused(options.worst)
    print_table("Classes confused most", ["images of", "taken for", "images"], pairs, right=["images"])
