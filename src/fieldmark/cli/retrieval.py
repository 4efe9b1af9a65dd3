"""The retrieval task of `fieldmark eval`: every image of a split is looked for among all others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fieldmark.cli.output import emit_json, print_table
from fieldmark.cli.values import count_or_all, names_in, parse_options, published_figures
from fieldmark.errors import FieldmarkError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that only this task has."""
    group = parser.add_argument_group("retrieval (--task retrieval)")
    group.add_argument(
        "--metric", default="pooled", metavar="NAME[,NAME]",
        help="pooled (cosine of pooled embeddings), emd (re-ranks by local descriptors), or both",
    )  # fmt: skip
    group.add_argument(
        "--metric-option", action="append", default=[], metavar="KEY=VALUE", help="of emd: variant=paper"
    )
    group.add_argument(
        "--shortlist", default="200", metavar="N",
        help="re-rank the first N of the pooled ranking, or `all`: the exact ranking",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Evaluate and report."""
    from fieldmark.cli.evaluate import print_differences
    from fieldmark.evaluation import load_record, make_record

    earlier = load_record(options.against) if options.against else None
    published = published_figures(options.published)
    models, results = _evaluate(options)
    rows = [{"model": model, **result.to_dict()} for (model, _), result in results.items()]
    name = options.name or f"{Path(options.model).name}-{options.data}-retrieval"
    record = make_record(name, rows, models, published)
    if not emit_json(options.json, record):
        _print(record, results, options)
        if earlier:
            print_differences(record, earlier, options.against)
    return 0


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], Any]]:
    from fieldmark.cli.evaluate import load_query_data
    from fieldmark.cli.models import choose_device, choose_extractor, find_model, image_size, untrained
    from fieldmark.evaluation import evaluate_metrics
    from fieldmark.evaluation.retrieval import make_similarity

    metrics: list[Any] = names_in("--metric", options.metric)
    metric_options = parse_options("--metric-option", options.metric_option)
    if metric_options and set(metrics) == {"pooled"}:
        raise FieldmarkError("--metric-option is for metrics on local descriptors, and --metric is pooled; add emd")
    for name in metrics:
        make_similarity(name, metric_options)  # a wrong name or option is refused before anything is loaded
    shortlist = count_or_all("--shortlist", options.shortlist)
    chosen = parse_options("--descriptor-option", options.descriptor_option)
    device = choose_device(options.device)
    model, facts = find_model(options.model, device)
    extractor = choose_extractor(options.descriptors, chosen, facts)
    data = load_query_data(options, options.size or image_size(model, facts), facts)
    models = {options.model: (model, facts)}
    for text in options.baseline:
        models[text] = untrained(model, seed=0) if text == "untrained" else find_model(text, device)
    results: dict[tuple[str, str], Any] = {}
    for key, (one, known) in models.items():
        found = evaluate_metrics(
            one, data, metrics, shortlist, metric_options, extractor, seed=options.seed, facts=known,
            allow_leakage=options.allow_leakage, interval=options.interval, batch_size=options.batch_size,
        )  # fmt: skip
        results |= {(key, name): result for name, result in found.items()}
    return {key: known for key, (_, known) in models.items()}, results


def _print(record: dict[str, Any], results: dict[tuple[str, str], Any], options: argparse.Namespace) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.retrieval import MEASURES

    first = next(iter(results.values()))
    lines = []
    for key, result in results.items():
        cells = [one.percent() for one in result.estimates.values()]
        gap = "" if result is first else result.difference(first, "map_at_r").points()
        named = label_of(key[0], record["models"][key[0]]), key[1]
        lines.append((*named, *cells, gap, f"{result.seconds['scoring']:.1f} s"))
    manifest = first.manifest
    print_table(
        f"{manifest['name']} {manifest.get('split') or ''} ({manifest['size'][0]} px), retrieval: {len(first.queries)} "
        f"queries among {first.gallery} images, in %, 95% interval over queries",
        ["model", "metric", *MEASURES.values(), "MAP@R, difference to first (paired)", "ranking"],
        lines,
        right=[*MEASURES.values(), "ranking"],
    )
    for note in dict.fromkeys(note for result in results.values() for note in result.notes):
        print(f"Note: {note}")
    if options.worst:
        worst = sorted(first.class_precision.items(), key=lambda item: item[1])[: options.worst]
        print_table("Classes found worst", ["class", "P@1 %"], [(n, f"{100 * a:.1f}") for n, a in worst])
