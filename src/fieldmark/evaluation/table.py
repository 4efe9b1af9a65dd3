"""``results/README.md`` from the results files: paper, ours, difference (``python -m fieldmark.evaluation.table``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fieldmark.evaluation.results import compare_rows, estimate_of, label_of, load_record
from fieldmark.evaluation.robustness import CHANGES
from fieldmark.evaluation.saved_episodes import episodes_section
from fieldmark.evaluation.seeds import OverSeeds, SeedDifferences, differences, on_other_images, over_seeds
from fieldmark.evaluation.statistics import Estimate, percent, points_above
from fieldmark.files import write_beside
from fieldmark.heads import HEADS

_HEAD = """# Results

Made by `make results` from the JSON files in this folder; every number of ours was measured by the command in its file.
Accuracy in %, with the half width of the 95% interval over episodes (or images, where it says so); `paired` is the
difference on the same episodes, with its own interval; `difference` is ours minus published. A model called
`(best-test-epoch)` had its epoch chosen on the test images, and its figures are too good.
"""


def results_page(folder: str | Path, papers: str = "") -> str:
    """The page for all results files of a folder (without its subfolders).

    Args:
        folder: The results files.
        papers: What stands before their sections: :func:`fieldmark.reproduce.page.papers_section`,
            :func:`fieldmark.picks.page.readme_section`, :func:`seeds_section` and
            :func:`fieldmark.evaluation.saved_episodes.episodes_section`.

    Raises:
        FieldmarkError: If a file lacks a required field.
    """
    parts = [_HEAD, papers] if papers else [_HEAD]
    for path in sorted(Path(folder).glob("*.json")):
        parts.append(_section(load_record(path), path.name))
    return "\n".join(parts)


_SEEDS = """## Over training seeds

Models of the same recipe but for the seed, on the same images and episodes. The first interval is that over episodes
(mean of the seeds'), the second that over seeds (Student, 95%).
"""
_DIFFERENCES = """Less the first row of the same file, by a model of the same seed on the same images and episodes, in
points; the interval is that over seeds (Student, 95%). What a seed's models have in common cancels.
"""


def seeds_section(folder: str | Path) -> str:
    """What was trained with several seeds, and the names of the recipes that were not.

    Args:
        folder: The results, see :func:`fieldmark.evaluation.seeds.over_seeds`.

    Raises:
        FieldmarkError: For a damaged results file.
    """
    found = over_seeds(folder)
    several = [one for one in found if len(one.rows) > 1]
    apart = on_other_images(found)
    repeated = {one.training for one in [*several, *(group[0] for group in apart)]}
    single = dict.fromkeys(f"`{one.recipe}`" for one in found if one.training not in repeated)
    lines = [_SEEDS]
    if several:
        columns = ["recipe", "test", "by", "ours, over episodes", "over seeds", "seeds", "each", "files"]
        lines += [*_heading(columns), *map(_seeds_line, several), ""]
    if between := differences(several, folder):
        columns = ["recipe", "by", "less", "test", "difference over seeds", "seeds", "each"]
        lines += [_DIFFERENCES, *_heading(columns), *map(_difference_line, between), ""]
    for group in apart:
        each = [f"{percent(row['mean'])} (seed {seed})" for one in group for seed, row in one.rows.items()]
        lines += [f"`{group[0].recipe}`, {_test(group[0].row)}, each seed on images of its own: {', '.join(each)}.", ""]
    if single:
        lines += [f"Of one training seed so far, so that nothing is known of their spread: {', '.join(single)}.", ""]
    return "\n".join(lines) if found else ""


def _seeds_line(one: OverSeeds) -> str:
    row = one.row
    links = dict.fromkeys(f"[{number}]({file})" for number, file in one.files.items())
    return _cells(
        f"`{one.recipe}`", _test(row), scorer_of(row), one.over_episodes.percent(),
        f"± {one.over_seeds.percent().partition('± ')[2]}", ", ".join(map(str, one.rows)),
        ", ".join(percent(row["mean"]) for row in one.rows.values()), " ".join(links),
    )  # fmt: skip


def _difference_line(one: SeedDifferences) -> str:
    return _cells(
        f"`{one.other.recipe}`", scorer_of(one.other.row), f"`{one.first.recipe}`, {scorer_of(one.first.row)}",
        _test(one.first.row), one.over_seeds.points(), ", ".join(map(str, one.each)),
        ", ".join(points_above(value, 0) for value in one.each.values()),
    )  # fmt: skip


def _test(row: Mapping[str, Any]) -> str:
    return f"{row['manifest']['name']} {row['manifest'].get('split') or ''}; {_KINDS[row['task']].protocol(row)}"


def _section(record: Mapping[str, Any], file: str) -> str:
    first, made = record["rows"][0], record["provenance"]
    manifest, kind = first["manifest"], _KINDS[first["task"]]
    hardware = made["hardware"]
    machine = hardware.get("accelerator") or f"{hardware['processor']}, {hardware['cores']} cores"
    lines = [
        f"## {record['name']}",
        "",
        f"{manifest['name']} {manifest.get('split') or ''} at {manifest['size'][0]} px; {kind.protocol(first)}; "
        f"{machine}, {made['threads']} thread{'s' * (made['threads'] != 1)}. "
        f"[`{file}`]({file})",
        "",
        f"    {made['command']}",
        "",
        *_heading(kind.columns),
    ]
    for index, row in enumerate(record["rows"]):
        published = record["published"] if index == 0 or _trained(record, row) else []
        gap = compare_rows(row, first).points() if index else ""  # on the same episodes
        lines.append(kind.line(row, published, gap))
    return "\n".join(lines) + "\n"


def _trained(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return row["model"] == record["rows"][0]["model"]


def _few_shot_protocol(row: Mapping[str, Any]) -> str:
    protocol = row["protocol"]
    seeds = f"seed {protocol.get('seed')}"
    if row.get("runs"):
        seeds = f"median of {len(row['runs'])} runs, seeds {', '.join(str(run['seed']) for run in row['runs'])}"
    return f"{protocol['way']}-way {protocol['shot']}-shot, {row['count']} episodes, {seeds}"


def _few_shot_line(row: Mapping[str, Any], published: list[Mapping[str, Any]], gap: str) -> str:
    return _cells(
        label_of(row["model"], row), scorer_of(row), estimate_of(row).percent(), gap, *_beside(row, published)
    )


def _top1_protocol(row: Mapping[str, Any]) -> str:
    return f"top-1, {row['count']} images of {row['protocol']['classes']} classes, intervals over images"


def scorer_of(row: Mapping[str, Any]) -> str:
    """What names the images: the model's classifier, or a head and what it was fitted on.

    A head that was trained with its model has all its options on record; those that it has by itself are left out.

    Example:
        >>> scorer_of({"head": "prototype", "head_options": {"transform": "l2"}})
        'prototype (transform l2)'
        >>> scorer_of({"head": "prototype", "head_options": {**HEADS.defaults("prototype"), "metric": "cosine"}})
        'prototype (metric cosine)'
    """
    options = dict(row["head_options"])
    own = HEADS.defaults(row["head"]) if row["head"] in HEADS else {}
    if own.keys() == options.keys():
        options = {key: value for key, value in options.items() if value != own[key]}
    name = f"classifier {options.pop('name', '')}".strip() if row["head"] == "classifier" else row["head"]
    given = ", ".join(f"{key} {value}" for key, value in options.items() if row["head"] != "classifier")
    return f"{name} ({given})" if given else name


def _top1_line(row: Mapping[str, Any], published: list[Mapping[str, Any]], gap: str) -> str:
    return _cells(label_of(row["model"], row), scorer_of(row), *_accuracies(row), gap, *_beside(row, published))


def _accuracies(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Top-1, top-5 and the mean over classes."""
    top5 = Estimate.from_dict(row["top5"])
    return estimate_of(row).percent(), top5.percent(), percent(row["mean_class_accuracy"])


def _robustness_protocol(row: Mapping[str, Any]) -> str:
    protocol = row["protocol"]
    return (
        f"robustness, {row['count']} images of {protocol['classes']} classes, reduced to {protocol['ratio']:.3g} of "
        f"the side, angles by seed {protocol['seed']}, intervals over images; in brackets paired differences to plain"
    )


def _robustness_line(row: Mapping[str, Any], published: list[Mapping[str, Any]], gap: str) -> str:
    columns = row["columns"]
    cells = [
        f"{estimate_of(columns[name]).percent()} ({Estimate.from_dict(columns[name]['lost']).percent()})"
        if name in columns
        else ""
        for name in CHANGES
    ]
    who = label_of(row["model"], row), scorer_of(row)
    return _cells(*who, *_accuracies(row), *cells, gap, *_beside(row, published))


def _retrieval_protocol(row: Mapping[str, Any]) -> str:
    return f"retrieval, {row['count']} queries among {row['protocol']['gallery']} images, intervals over queries"


def _retrieval_line(row: Mapping[str, Any], published: list[Mapping[str, Any]], gap: str) -> str:
    metric, shortlist = row["head"], row["protocol"]["shortlist"]
    if shortlist is not None:
        metric = f"{metric}, {row['descriptors']['name']}, shortlist {shortlist}"
    measures = [Estimate.from_dict(one).percent() for one in row["measures"].values()]
    return _cells(label_of(row["model"], row), metric, *measures, gap, *_beside(row, published))


OWN_PHOTOS = {
    "ece": "calibration error",
    "ece_uncalibrated": "without calibration",
    "risk_coverage": "risk over coverage",
    "auroc": "AUROC, known to unknown",
    "false_reject": "known rejected",
    "rejected": "unknown rejected",
}
"""What is shown of the measures of own photos."""


def _own_photos_protocol(row: Mapping[str, Any]) -> str:
    protocol = row["protocol"]
    return (
        f"{protocol['way']} classes of up to {protocol['shot']} photos, {row['queries_per_episode']} asked about, "
        f"{row['count']} draws, seed {protocol['seed']}, intervals over draws (Student); "
        f"{protocol['left_out']} classes left out for rejection"
    )


def _own_photos_line(row: Mapping[str, Any], published: list[Mapping[str, Any]], gap: str) -> str:
    found = row["measures"]
    cells = [Estimate.from_dict(found[name]).percent() if name in found else "" for name in OWN_PHOTOS]
    return _cells(label_of(row["model"], row), scorer_of(row), estimate_of(row).percent(), gap, *cells)


def _beside(row: Mapping[str, Any], published: list[Mapping[str, Any]]) -> tuple[str, str]:
    """The published figures for a row's mean, and ours less these."""
    named = [one for one in published if one.get("head") in (None, row["head"])]
    theirs = "<br>".join(f"{100 * one['mean']:.2f} ({one['label']})" for one in named)
    gaps = "<br>".join(points_above(row["mean"], one["mean"]) for one in named)
    return theirs, gaps


def _heading(columns: Sequence[str]) -> tuple[str, str]:
    return _cells(*columns), "|---" * len(columns) + "|"


def _cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


class _Kind(NamedTuple):
    """How the results of a task are shown."""

    columns: Sequence[str]
    protocol: Callable[[Mapping[str, Any]], str]
    line: Callable[[Mapping[str, Any], list[Mapping[str, Any]], str], str]


_KINDS = {
    "few-shot": _Kind(
        ("model", "head", "ours", "paired, to the first row", "published", "difference"),
        _few_shot_protocol,
        _few_shot_line,
    ),
    "top1": _Kind(
        (
            "model",
            "by",
            "top-1",
            "top-5",
            "mean over classes",
            "top-1, paired, to the first row",
            "published",
            "difference",
        ),
        _top1_protocol,
        _top1_line,
    ),
    "robustness": _Kind(
        (
            "model",
            "by",
            "plain",
            "top-5",
            "mean over classes",
            *CHANGES.values(),
            "plain, paired, to the first row",
            "published",
            "difference",
        ),
        _robustness_protocol,
        _robustness_line,
    ),
    "own-photos": _Kind(
        ("model", "head", "accuracy", "paired, to the first row", *OWN_PHOTOS.values()),
        _own_photos_protocol,
        _own_photos_line,
    ),
    "retrieval": _Kind(
        (
            "model",
            "metric",
            "P@1",
            "R-Precision",
            "MAP@R",
            "P@1, paired, to the first row",
            "P@1 published",
            "difference",
        ),
        _retrieval_protocol,
        _retrieval_line,
    ),
}


def main() -> int:
    """Write ``README.md`` into the folder given as argument (default: results)."""
    from fieldmark.picks.page import readme_section  # later rooms: this is the command, not the module
    from fieldmark.reproduce.page import papers_section

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    before = papers_section(folder) + readme_section(folder) + seeds_section(folder) + episodes_section(folder)
    page = results_page(folder, before)
    write_beside(folder / "README.md", lambda file: file.write(page.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
