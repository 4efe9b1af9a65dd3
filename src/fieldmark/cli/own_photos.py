"""The own-photos task of `fieldmark eval`: a few images of every class are enrolled, the others are asked about."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmark.cli.output import emit_json, print_table
from fieldmark.cli.values import count_or_all, heads_in, options_by_head, parse_options, published_figures
from fieldmark.errors import FieldmarkError

HEADS = "whitened,logistic,prototype"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that only this task has."""
    group = parser.add_argument_group("own photos (--task own-photos)")
    group.add_argument("--draws", type=int, default=5, metavar="N", help="draws of the enrolled images; default: 5")
    group.add_argument(
        "--leave-out", type=int, default=0, metavar="N",
        help="classes that a second classifier does not know in each draw: are they rejected? default: 0",
    )  # fmt: skip
    group.add_argument("--keep", metavar="FOLDER", help="keep the descriptors there from one call to the next")


def run(options: argparse.Namespace) -> int:
    """Evaluate and report."""
    from fieldmark.cli.evaluate import print_differences
    from fieldmark.evaluation import load_record, make_record

    earlier = load_record(options.against) if options.against else None
    published = published_figures(options.published)
    models, results = _evaluate(options)
    rows = [{"model": model, **result.to_dict()} for (model, _), result in results.items()]
    name = options.name or f"{Path(options.model).name}-{options.data}-own-photos-{options.shot}shot"
    record = make_record(name, rows, models, published)
    if not emit_json(options.json, record):
        _print(record, results)
        if earlier:
            print_differences(record, earlier, options.against)
    return 0


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], Any]]:
    from fieldmark import data, heads
    from fieldmark.cli.evaluate import check_heads, how, load_query_data
    from fieldmark.cli.models import choose_device, choose_extractor, find_model, image_size, untrained
    from fieldmark.gallery.measuring import evaluate_own_photos

    named = heads_in(options.head or HEADS)
    head_options = options_by_head(named, options.head_option)
    for label, name in named.items():
        heads.create(name, **head_options[label])  # a wrong name or option is refused before anything is loaded
    queries = count_or_all("--queries", options.queries) if "--queries" in options.given else None
    if options.draws < 2:
        raise FieldmarkError(f"--draws is {options.draws}; expected at least 2, for the intervals")
    device = choose_device(options.device)
    model, facts = find_model(options.model, device)
    chosen = parse_options("--descriptor-option", options.descriptor_option)
    extractor = choose_extractor(options.descriptors, chosen, facts)
    models = {options.model: (model, facts)}
    for text in options.baseline:
        models[text] = untrained(model, seed=0) if text == "untrained" else find_model(text, device)
    check_heads({key: one for key, (one, _) in models.items()}, named, head_options)
    size = options.size or image_size(model, facts)
    store = load_query_data(options, size, facts)
    support = None
    if options.support_split:
        support = data.load(options.data, options.root, options.support_split, **how(options, size, facts))
    results: dict[tuple[str, str], Any] = {}
    for key, (one, known) in models.items():
        found = evaluate_own_photos(
            one, store, named, options.shot, queries, options.draws, options.seed, head_options=head_options,
            left_out=options.leave_out, support_data=support, descriptors=extractor, facts=known,
            allow_leakage=options.allow_leakage, keep=options.keep, batch_size=options.batch_size,
        )  # fmt: skip
        results |= {(key, label): result for label, result in found.items()}
    return {key: known for key, (_, known) in models.items()}, results


def _print(record: Mapping[str, Any], results: Mapping[tuple[str, str], Any]) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.table import OWN_PHOTOS, scorer_of

    first = next(iter(results.values()))
    shown = {name: title for name, title in OWN_PHOTOS.items() if name in first.measures}
    lines = []
    for ((model, _), result), row in zip(results.items(), record["rows"], strict=True):
        gap = "" if result is first else result.difference(first).points()
        cells = [result.measures[name].percent() for name in shown]
        lines.append((label_of(model, row), scorer_of(row), result.estimate.percent(), gap, *cells))
    manifest, facts = first.manifest, first.episodes.facts
    without = f", {first.left_out} left out for rejection" if first.left_out else ""
    print_table(
        f"{manifest['name']} {manifest.get('split') or ''} ({manifest['size'][0]} px), {facts['way']} classes"
        f"{without}, up to {facts['shot']} images enrolled of each, {first.hits.shape[1]} asked about, "
        f"{len(first.hits)} draws, seed {facts['seed']}: in %, 95% interval over draws (Student)",
        ["model", "head", "accuracy", "difference to first (paired)", *shown.values()],
        lines,
    )
    if first.leaked_classes:
        print(f"Note: {len(first.leaked_classes)} of the classes were trained on (--allow-leakage).")
