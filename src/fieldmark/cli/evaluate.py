"""Accuracy of a model on few-shot episodes: mean, 95% interval, and paired differences on the same episodes.

MODEL is a run folder, a model.safetensors file, the name of a trained model (`fieldmark backbones`), or that of a
backbone (then with its pretrained weights, if it has any). Several heads (--head a,b) and several models (--baseline)
are scored on the very same episodes. With --task retrieval every image of the split looks for the others of its class;
with --task top1 it is named by the model's own classifier, or by a head that is fitted on the whole training split;
--task robustness does so with the images rotated and reduced as well; --task own-photos enrolls a few images of every
class, and measures the confidence of the answers and the rejection of classes that were left out too; --task
point-distance says how far a model's parts are from key points (CUB).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldmark.cli import own_photos, point_distance, retrieval, top1
from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.cli.tasks import check_task, note_given
from fieldmark.cli.values import count_or_all, heads_in, options_by_head, parse_options, published_figures
from fieldmark.errors import FieldmarkError

EXAMPLE = "fieldmark eval runs/glyphs_conv4 --data glyphs --split test --way 5 --shot 1 --head prototype,logistic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    note_given(parser)
    parser.add_argument("model", metavar="MODEL", help="run folder, model file, or name of a trained model or backbone")
    parser.add_argument(
        "--task",
        default="few-shot",
        help="few-shot (the default), retrieval, top1, robustness, own-photos or point-distance",
    )
    _add_data(parser.add_argument_group("data"))
    _add_protocol(parser.add_argument_group("protocol"))
    _add_method(parser.add_argument_group("method"))
    retrieval.add_arguments(parser)
    top1.add_arguments(parser)
    own_photos.add_arguments(parser)
    _add_output(parser.add_argument_group("output"))


def _add_data(data: argparse._ArgumentGroup) -> None:
    data.add_argument("--data", default="folder", metavar="NAME", help="data set (`fieldmark data`); default: folder")
    data.add_argument("--root", metavar="PATH", help="folder, zip or list file that holds it")
    data.add_argument(
        "--split", default=None, help="train, val, test, trainval or all; default: test where there is one"
    )
    data.add_argument("--size", type=int, help="pixels a side; default: what the model was trained at")
    data.add_argument("--fit", help="how images are brought to that size: crop, squash or pad")
    data.add_argument(
        "--support-split", metavar="SPLIT",
        help="few-shot, own-photos: draw the support images from this split; top1, robustness: fit the head on it "
        "(default: train)",
    )  # fmt: skip
    data.add_argument("--base-split", metavar="SPLIT", help="base images for heads that use them (centred prototype)")


def _add_protocol(protocol: argparse._ArgumentGroup) -> None:
    protocol.add_argument("--way", default="5", help="classes an episode, or `all`")
    protocol.add_argument("--shot", type=int, default=1, help="labelled images a class")
    protocol.add_argument("--queries", default="15", help="query images a class, or `all` (with --support-split)")
    protocol.add_argument("--episodes", type=int, default=600, help="how many episodes")
    protocol.add_argument("--seed", type=int, default=0, help="seed of the episodes")
    protocol.add_argument(
        "--runs", type=int, default=1, metavar="R",
        help="runs with the seeds SEED, SEED + 1 ...: the median run is reported, with its own interval",
    )  # fmt: skip
    protocol.add_argument("--episodes-file", metavar="FILE", help="use the episodes saved in FILE")
    protocol.add_argument("--save-episodes", metavar="FILE", help="save the episodes to FILE (.npz)")
    protocol.add_argument("--support-copies", type=int, default=0, metavar="K", help="augmented copies of the support")
    protocol.add_argument("--interval", default="normal", choices=("normal", "student"), help="kind of 95%% interval")
    protocol.add_argument("--allow-leakage", action="store_true", help="test on classes that were trained on")


def _add_method(method: argparse._ArgumentGroup) -> None:
    method.add_argument(
        "--head", metavar="NAME[,NAME...]",
        help="heads (`fieldmark heads`); LABEL=NAME lets one stand twice, with other options; default: prototype, for "
        "top1 and robustness `classifier`, the model's own, for own-photos whitened, logistic and prototype",
    )  # fmt: skip
    method.add_argument(
        "--head-option", action="append", default=[], metavar="KEY=VALUE",
        help="of all heads, or of one: logistic.C=10, LABEL.C=10",
    )  # fmt: skip
    method.add_argument(
        "--descriptors", metavar="NAME",
        help="local descriptors for heads that take them: dense, feature_pyramid, grid or sampling; default: those "
        "that the model was trained with, else dense",
    )  # fmt: skip
    method.add_argument(
        "--descriptor-option", action="append", default=[], metavar="KEY=VALUE", help="of them: sizes=[5,3,2]"
    )
    method.add_argument(
        "--baseline", action="append", default=[], metavar="MODEL",
        help="another model on the same episodes; `untrained`: the same backbone with fresh weights",
    )  # fmt: skip
    method.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    method.add_argument("--batch-size", type=int, help="images encoded at a time; default: by their size")


def _add_output(output: argparse._ArgumentGroup) -> None:
    output.add_argument("--name", help="name of the result; default: made from model and protocol")
    output.add_argument(
        "--published",
        action="append",
        default=[],
        metavar="[HEAD:]LABEL=PERCENT",
        help="a published accuracy to stand beside ours",
    )
    output.add_argument("--against", metavar="FILE", help="paired differences to the rows of an earlier result")
    output.add_argument(
        "--cost", type=int, default=0, metavar="EPISODES",
        help="few-shot: measure on so many episodes what a query costs each head, in time of one thread and in memory",
    )  # fmt: skip
    output.add_argument("--worst", type=int, default=0, metavar="N", help="also list the N classes recognised worst")
    add_json_option(output)


def run(options: argparse.Namespace) -> int:
    """Evaluate and report."""
    check_task(options)
    if options.task != "few-shot":
        other: Any = {"retrieval": retrieval, "own-photos": own_photos, "point-distance": point_distance}
        return other.get(options.task, top1).run(options)
    from fieldmark.evaluation import load_record, make_record

    earlier = load_record(options.against) if options.against else None
    models, results = _evaluate(options)
    rows = [{"model": model, **result.to_dict()} for (model, _), result in results.items()]
    protocol = rows[0]["protocol"]
    name = options.name or f"{Path(options.model).name}-{options.data}-{protocol['way']}way-{protocol['shot']}shot"
    published = published_figures(options.published)
    record = make_record(name, rows, models, published)
    if options.save_episodes:
        next(iter(results.values())).median.episodes.save(options.save_episodes)
    if not emit_json(options.json, record):
        _print(record, results, options)
        if earlier:
            print_differences(record, earlier, options.against)
    return 0


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], Any]]:
    from fieldmark import heads
    from fieldmark.cli.models import choose_device, choose_extractor, find_model, image_size, untrained
    from fieldmark.evaluation import evaluate_runs

    if options.runs > 1 and (options.save_episodes or options.episodes_file):
        given = "--save-episodes" if options.save_episodes else "--episodes-file"
        raise FieldmarkError(f"{given} is for one set of episodes, --runs {options.runs} for as many; leave one out")
    named = heads_in("prototype" if options.head is None else options.head)
    head_options = options_by_head(named, options.head_option)
    for label, name in named.items():
        heads.create(name, **head_options[label])  # a wrong name or option is refused before anything is loaded
    chosen = parse_options("--descriptor-option", options.descriptor_option)
    if options.cost < 0:
        raise FieldmarkError(f"--cost is {options.cost}; expected a number of episodes, or 0 not to measure it")
    way, queries = count_or_all("--way", options.way), count_or_all("--queries", options.queries)
    device = choose_device(options.device)
    model, facts = find_model(options.model, device)
    extractor = choose_extractor(options.descriptors, chosen, facts)
    models = {options.model: (model, facts)}
    for text in options.baseline:
        models[text] = untrained(model, seed=0) if text == "untrained" else find_model(text, device)
    check_heads({key: one for key, (one, _) in models.items()}, named, head_options)
    size = options.size or image_size(model, facts)
    data, support, base, episodes = _load_data(options, size, facts)
    results: dict[tuple[str, str], Any] = {}
    for key, (one, known) in models.items():
        found = evaluate_runs(
            one, data, named, options.runs, way, options.shot, queries, episodes,
            options.seed, head_options=head_options, descriptors=extractor, support_data=support,
            support_copies=options.support_copies, base_data=base, facts=known,
            allow_leakage=options.allow_leakage, interval=options.interval, batch_size=options.batch_size,
            cost_episodes=options.cost,
        )  # fmt: skip
        results |= {(key, label): result for label, result in found.items()}
        if options.runs == 1:
            episodes = next(iter(found.values())).median.episodes
    return {key: known for key, (_, known) in models.items()}, results


def check_heads(
    models: Mapping[str, Any], named: Mapping[str, str], head_options: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a head with parts that were not trained with a model before its data is loaded."""
    from fieldmark import heads

    for key, model in models.items():
        for label, name in named.items():
            try:
                heads.create_for(model, name, **head_options[label])
            except FieldmarkError as error:
                raise FieldmarkError(f"{key}: {error}") from None


def _load_data(options: argparse.Namespace, size: int | None, facts: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Query data, support data, base data, and the episodes (a number, or those of a file or of the data set)."""
    from fieldmark import data
    from fieldmark.data import EpisodeIndex

    common = how(options, size, facts)
    store = load_query_data(options, size, facts)
    support = data.load(options.data, options.root, options.support_split, **common) if options.support_split else None
    base = data.load(options.data, options.root, options.base_split, **common) if options.base_split else None
    if options.episodes_file:
        return store, support, base, EpisodeIndex.load(options.episodes_file)
    return store, support, base, data.own_episodes(options.data, store) or options.episodes


def load_query_data(options: argparse.Namespace, size: int | None, facts: dict[str, Any]) -> Any:
    """The images to be tested: of the split that was named, or of the test split where there is one."""
    from fieldmark import data

    facts_of = data.DATASETS.get(options.data).facts
    drawn = not facts_of.get("episodes")
    split = options.split or ("test" if drawn and "test" in facts_of["splits"] else None)
    return data.load(options.data, options.root, split, **how(options, size, facts))


def how(options: argparse.Namespace, size: int | None, facts: dict[str, Any]) -> dict[str, Any]:
    """How images are stored: as large as was asked for, and as the model was trained."""
    return {"size": size, "fit": options.fit or (facts.get("manifest") or {}).get("fit")}


def _print(record: dict[str, Any], results: dict[tuple[str, str], Any], options: argparse.Namespace) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.table import scorer_of

    runs = next(iter(results.values()))
    first = runs.median
    manifest, facts = first.manifest, first.episodes.facts
    lines = []
    for ((key, _), result), row in zip(results.items(), record["rows"], strict=True):
        gap = "" if result is runs else result.difference(runs).points()
        seconds = sum(one.seconds["scoring"] for one in result.results)
        each = [", ".join(one.estimate.percent() for one in result.results)] if options.runs > 1 else []
        named = label_of(key, record["models"][key]), scorer_of(row)
        lines.append((*named, result.estimate.percent(), *each, gap, f"{seconds:.1f} s"))
    title = (
        f"{manifest['name']} {manifest.get('split') or ''} ({manifest['size'][0]} px), "
        f"{facts['way']}-way {facts['shot']}-shot, "
        f"{facts.get('queries') or 'all'} queries a class, {len(first.episodes)} episodes, {_seeds(runs)}: "
        f"{_descriptors_of(one.median for one in results.values())}accuracy in %, 95% interval over episodes"
    )
    every = ["each run"] if options.runs > 1 else []
    columns = ["model", "head", "accuracy", *every, "difference to first (paired)", "scoring"]
    print_table(title, columns, lines, right=["accuracy", "scoring"])
    for row in record["rows"][:1]:
        if row["leaked_classes"]:
            print(f"Note: {len(row['leaked_classes'])} of the test classes were trained on (--allow-leakage).")
    if options.cost:
        _print_costs(record, results)
    if options.worst:
        worst = sorted(first.class_accuracies.items(), key=lambda item: item[1])[: options.worst]
        print_table("Classes recognised worst", ["class", "accuracy %"], [(n, f"{100 * a:.1f}") for n, a in worst])


def _print_costs(record: dict[str, Any], results: dict[tuple[str, str], Any]) -> None:
    from fieldmark.evaluation.results import label_of
    from fieldmark.evaluation.table import scorer_of

    lines = []
    for ((model, _), result), row in zip(results.items(), record["rows"], strict=True):
        cost = result.median.cost
        lines.append((
            label_of(model, record["models"][model]), scorer_of(row), f"{cost['milliseconds_per_query']:.3g}",
            f"{cost['milliseconds_one_query']:.3g}", f"{cost['support_bytes_per_class'] / 1e3:.3g}",
            f"{cost['peak_bytes_one_query'] / 1e6:.3g}", f"{cost['encoder_milliseconds_per_image']:.3g}",
        ))  # fmt: skip
    columns = ["ms a query", "ms, one query", "support, kB a class", "peak, MB", "encoder, ms an image"]
    title = (
        "Cost on one thread of the processor: a query of an episode, a query that comes alone (fitting included), "
        "descriptors kept, memory of scoring one query, encoding one image"
    )
    print_table(title, ["model", "head", *columns], lines, right=columns)


def _seeds(runs: Any) -> str:
    """Words for the seed, or for what is made of several."""
    if len(runs.seeds) == 1:
        return f"seed {runs.median.episodes.facts.get('seed')}"
    return f"median of {len(runs.seeds)} runs with seeds {runs.seeds[0]} to {runs.seeds[-1]}"


def _descriptors_of(results: Iterable[Any]) -> str:
    """Words for the title, where local descriptors are not simply the places of the map."""
    for name, options in ((one.descriptors["name"], one.descriptors["options"]) for one in results):
        if name not in ("pooled", "spatial", "dense"):
            chosen = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
            return f"local descriptors {name} ({chosen}); "
    return ""


def print_differences(record: dict[str, Any], earlier: dict[str, Any], where: str) -> None:
    """The paired differences between all rows of two records."""
    from fieldmark.evaluation import compare_rows
    from fieldmark.evaluation.table import scorer_of

    lines = [
        (new["model"], scorer_of(new), old["model"], scorer_of(old), compare_rows(new, old).points())
        for new in record["rows"]
        for old in earlier["rows"]
    ]
    print_table(
        f"Paired differences to {where}",
        ["model", "head", "earlier model", "earlier head", "difference"],
        lines,
    )
