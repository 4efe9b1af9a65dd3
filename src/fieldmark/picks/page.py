"""``docs/what_to_pick.md`` from the results: no number in it is typed by hand, and no sentence that depends on one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.evaluation.results import estimate_of
from fieldmark.evaluation.statistics import percent, points_above
from fieldmark.files import write_beside
from fieldmark.picks.catalogue import Listed, load_list
from fieldmark.picks.figure import draw
from fieldmark.picks.method import how_section, missing_section
from fieldmark.picks.verdicts import Contest, Contrast, alignment, cheapest_as_good, contests, tally, to_pooled
from fieldmark.picks.wording import emphasised, joined, many, number, shots_text, table
from fieldmark.reproduce.state import machine_of

IMAGES = "images/what_to_pick"
_COSTS = {
    "ms a query": ("milliseconds_per_query", 1),
    "ms alone": ("milliseconds_one_query", 1),
    "kB a class": ("support_bytes_per_class", 1e-3),
    "peak MB": ("peak_bytes_one_query", 1e-6),
}
_FAMILIES = {"pooled": "pooled", "votes": "places vote", "aligned": "aligned"}

_HEAD = """# What to pick

The same frozen features, the same episodes, every head: does aligning parts beat pooling them, where, by how much, and
at what cost? Made by `make results` from the files in `results/picks`; every number below comes from there, and so
does every sentence that depends on one.
"""


def write_page(path: str | Path, listed: Listed, out: str | Path) -> Path:
    """Write the page and its pictures.

    Args:
        path: The page; pictures go to ``images/what_to_pick`` beside it.
        listed: The list of comparisons.
        out: Folder of the results.
    """
    path, text = Path(path), page(listed, out)
    for name, group in _by_comparison(contests(listed, out)).items():
        draw(group, path.parent / IMAGES / _picture(name))
    return write_beside(path, lambda file: file.write(text.encode()))


def page(listed: Listed, out: str | Path) -> str:
    """The text of the page, from whatever results there are.

    Raises:
        FieldmarkError: For a damaged results file.
    """
    every = contests(listed, out)
    parts = [_HEAD]
    if every:
        parts += [_in_short(every), _by_data(every), _by_head(every), _cheapest(every), _costs(every)]
        parts += [_comparison(group) for group in _by_comparison(every).values()]
    else:
        parts.append("Nothing has been measured yet: `make picks`.\n")
    return "\n".join([*parts, how_section(listed), missing_section(listed, every)])


def readme_section(folder: str | Path) -> str:
    """What ``results/README.md`` says of the comparisons: the files, and where the page is; "" without any file."""
    every = contests(load_list(), Path(folder) / "picks")
    if not every:
        return ""
    lines = [
        "",
        "## What a user would pick",
        "",
        "Heads on the same frozen features and episodes, with what a query costs: "
        "[docs/what_to_pick.md](../docs/what_to_pick.md).",
        "",
        *table(["data", "backbone", "shots", "episodes", "machine", "commit"], (_source(one) for one in every)),
    ]
    return "\n".join(lines) + "\n"


def _source(one: Contest) -> list[str]:
    made = one.record["provenance"]
    count = next(iter(one.rows.values()))["count"]
    return [
        one.comparison.data.title, one.comparison.backbone.title, str(one.shot), str(count), machine_of(made),
        f"[{made['commit'][:7]}](picks/{one.file})",
    ]  # fmt: skip


def _in_short(every: Sequence[Contest]) -> str:
    """When alignment pays, in sentences."""
    pairs = alignment(every)
    lines = ["## When alignment pays, and when it does not", ""]
    if not pairs:
        return "\n".join([*lines, "No comparison of aligned with pooled heads has been measured yet."]) + "\n"
    by_shot = _rule(_grouped(pairs, lambda one: one.shot), "at", shots_text)
    lines += [f"**{by_shot} {_rule(_grouped(pairs, _architecture), 'with', str)}**", ""]
    for shot, group in sorted(_grouped(pairs, lambda one: one.shot).items()):
        lines.append(f"- **{shots_text(shot)}**: {_counted(group)}")
    lines += ["", *_price(pairs), "By backbone:", ""]
    for name, group in _grouped(pairs, _architecture).items():
        lines.append(f"- **{name}**: {_counted(group, named=False)}")
    lines += ["", "By the size of the map:", ""]
    for places, group in sorted(_grouped(pairs, lambda one: one.places).items()):
        lines.append(f"- **{places} places**: {_counted(group, named=False)}")
    return "\n".join(lines) + "\n"


def _rule(
    groups: Mapping[Any, Sequence[tuple[Contest, Contrast]]], preposition: str, name: Callable[[Any], str]
) -> str:
    """The plain answer: for which groups alignment pays in most comparisons, in some, in none."""
    found: dict[str, list[str]] = {"most": [], "some": [], "none": []}
    for key, group in sorted(groups.items()):
        counted = tally(group)
        if 2 * len(counted.better) > counted.count:
            found["most"].append(name(key))
        elif len(counted.better) > len(counted.worse):
            found["some"].append(name(key))
        else:
            found["none"].append(name(key))
    said = {
        "most": "{} alignment pays in more than half of the comparisons.",
        "some": "{} alignment is clearly ahead in half of the comparisons at most, and clearly behind in fewer.",
        "none": "{} alignment does not pay: it is clearly ahead no more often than clearly behind.",
    }
    where = {key: f"{preposition.capitalize()} {joined(names)}" for key, names in found.items() if names}
    return " ".join(said[key].format(place) for key, place in where.items())


def _price(pairs: Sequence[tuple[Contest, Contrast]]) -> list[str]:
    """What is paid where alignment is ahead."""
    ahead = tally(pairs).better
    if not ahead:
        return []
    ours, theirs = (
        [statistics.fmean(one.milliseconds(key) for key in keys) for one, keys in side]
        for side in (((one, it.first) for one, it in ahead), ((one, it.second) for one, it in ahead))
    )
    shares = [cost / one.encoder_milliseconds for cost, (one, _) in zip(ours, ahead, strict=True)]
    return [
        f"Where it is clearly ahead, the aligned head takes {number(statistics.median(ours))} ms a query in the median "
        f"(from {number(min(ours))} to {number(max(ours))}), {number(statistics.median(shares))} times what encoding "
        f"the image takes; the pooled head that it beats takes {number(statistics.median(theirs))} ms.",
        "",
    ]


def _counted(group: Sequence[tuple[Contest, Contrast]], named: bool = True) -> str:
    counted = tally(group)
    text = (
        f"the best aligned head is clearly ahead of the best pooled one in {len(counted.better)} of "
        f"{many(counted.count, 'comparison')}, clearly behind in {len(counted.worse)}, not told apart in "
        f"{len(counted.open)}; {points_above(counted.mean, 0)} points on average."
    )
    if named:
        for title, pairs in (("Ahead", counted.better), ("Behind", counted.worse)):
            if pairs:
                listed = "; ".join(f"{one.label} ({it.difference.points()})" for one, it in pairs)
                text += f" {title}: {listed}."
    return text


def _by_data(every: Sequence[Contest]) -> str:
    """The best aligned head less the best pooled one, as a table."""
    shots = sorted({one.shot for one in every})
    found = {(one.comparison.address, one.shot): contrast for one, contrast in alignment(every)}
    rows = []
    for address, group in _by_comparison(every).items():
        cells = [_difference(found.get((address, shot)), group[0]) for shot in shots]
        rows.append([group[0].comparison.data.title, group[0].comparison.backbone.title, str(group[0].places), *cells])
    text = [
        "The best aligned head less the best pooled one, in points (bold: clear), with the names of the two:",
        "",
        *table(["data", "backbone", "places", *map(shots_text, shots)], rows),
    ]
    return "\n".join(text) + "\n"


def _difference(contrast: Contrast | None, contest: Contest) -> str:
    if contrast is None:
        return ""
    sides = (" / ".join(contest.spec(key).title for key in side) for side in (contrast.first, contrast.second))
    return f"{emphasised(contrast)}<br>{' vs '.join(sides)}"


def _by_head(every: Sequence[Contest]) -> str:
    """Every head against the best pooled one, over all comparisons, with what it costs."""
    keys = list(dict.fromkeys(key for one in every for key in one.rows))
    rows = []
    for key in keys:
        having = [one for one in every if key in one.rows]
        spec = having[0].spec(key)
        having = [one for one in having if one.places > 1 or spec.family == "pooled"]
        if not having:
            continue
        counted = tally([(one, it) for one in having if (it := to_pooled(one, key)) is not None])
        verdicts = (
            [f"{len(counted.better)}", f"{len(counted.worse)}", f"{len(counted.open)}"] if counted.count else 3 * [""]
        )
        mean = points_above(counted.mean, 0) if counted.count else ""
        rows.append([spec.title, _FAMILIES[spec.family], *verdicts, mean, *_median_cost(having, key)])
    columns = ["head", "family", "ahead", "behind", "open", "mean difference", *_COSTS]
    text = [
        "## Every head against the best (other) pooled one",
        "",
        "In how many comparisons it is clearly ahead, clearly behind, or neither; the mean difference in points; and",
        "medians of what it costs. Heads on local descriptors only where an image has more than one place.",
        "",
        *table(columns, rows),
    ]
    return "\n".join(text) + "\n"


def _median_cost(having: Sequence[Contest], key: str) -> list[str]:
    costs = [one.rows[key]["cost"] for one in having]
    return [number(scale * statistics.median(cost[name] for cost in costs)) for name, scale in _COSTS.values()]


def _cheapest(every: Sequence[Contest]) -> str:
    """The head that costs least of those that are as good as the best."""
    shots = sorted({one.shot for one in every})
    picks = {(one.comparison.address, one.shot): (one, cheapest_as_good(one)) for one in every}
    rows = []
    for address, group in _by_comparison(every).items():
        cells = []
        for shot in shots:
            one, key = picks.get((address, shot), (None, ""))
            cells.append(f"{one.spec(key).title}, {estimate_of(one.rows[key]).percent()}" if one else "")
        rows.append([group[0].comparison.data.title, group[0].comparison.backbone.title, *cells])
    counts: dict[str, int] = {}
    for one, key in picks.values():
        counts[one.spec(key).title] = counts.get(one.spec(key).title, 0) + 1
    order = sorted(counts.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {count}" for name, count in order)
    text = [
        "## The cheapest head that is not clearly worse than the best",
        "",
        f"Over {many(len(picks), 'comparison')}: {told}. The fewer the episodes, the more heads are not clearly worse.",
        "",
        *table(["data", "backbone", *map(shots_text, shots)], rows),
    ]
    return "\n".join(text) + "\n"


def _costs(every: Sequence[Contest]) -> str:
    """What encoder and heads take, for each backbone."""
    lines = ["## Time of a query", ""]
    for name, group in _grouped([(one, None) for one in every], _architecture).items():
        found = [one for one, _ in group]
        encoder = statistics.median(one.encoder_milliseconds for one in found)
        told = []
        for family, title in _FAMILIES.items():
            times = {
                found[0].spec(key).title: statistics.median(one.milliseconds(key) for one in found if key in one.rows)
                for key in found[0].family(family)  # type: ignore[arg-type]
            }
            if times:
                least, most = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
                ends = f"{number(times[least])} ms ({least})"
                if most != least:
                    ends += f" to {number(times[most])} ms ({most})"
                told.append(f"{title} {ends}")
        lines.append(
            f"- **{name}**: encoding an image {number(encoder)} ms; then a query costs, in the median: "
            f"{'; '.join(told)}."
        )
    return "\n".join(lines) + "\n"


def _comparison(group: Sequence[Contest]) -> str:
    """Picture and table of one data set and backbone."""
    first = group[0]
    episodes = ", ".join(f"{next(iter(one.rows.values()))['count']} at {shots_text(one.shot)}" for one in group)
    size = next(iter(first.rows.values()))["manifest"]["size"][0]
    taken = first.comparison.backbone.input
    lines = [
        f"## {first.label}",
        "",
        f"{size} px"
        + (f", enlarged to {taken}" if taken and taken != size else "")
        + f"; {many(first.places, 'place')} an "
        f"image; episodes: {episodes}; bars: 95% interval over the episodes. {_chosen(group)}",
        "",
        f"![{_alternative(group)}]({IMAGES}/{_picture(first.comparison.address)})",
        "",
    ]
    columns = ["head"]
    for one in group:
        columns += [shots_text(one.shot), "to the best pooled"]
    columns += _COSTS
    keys = list(dict.fromkeys(key for one in group for key in one.rows))
    rows = []
    for key in keys:
        cells = [first.spec(key).title]
        for one in group:
            contrast = to_pooled(one, key) if key in one.rows else None
            cells += [
                estimate_of(one.rows[key]).percent() if key in one.rows else "",
                emphasised(contrast) if contrast else "",
            ]
        having = [one for one in group if key in one.rows]
        each = [_median_cost([one], key) for one in having]
        rows.append([*cells, *(" / ".join(of) for of in zip(*each, strict=True))])
    lines += [*table(columns, rows), "", "Costs at " + " / ".join(shots_text(one.shot) for one in group) + "."]
    files = ", ".join(f"`results/picks/{one.file}`" for one in group)
    machines = joined(list(dict.fromkeys(machine_of(one.record["provenance"]) for one in group)))
    return "\n".join([*lines, f"{files}; {machines}."]) + "\n"


def _chosen(group: Sequence[Contest]) -> str:
    """What was chosen on validation classes."""
    told = []
    for key, found in group[0].record["pick"]["chosen"].items():
        if key in group[0].rows:
            options = ", ".join(f"{name} {value}" for name, value in found["options"].items())
            told.append(f"{group[0].spec(key).title}: {options}, chosen on `{found['split']}`.")
    return " ".join(told)


def _alternative(group: Sequence[Contest]) -> str:
    ends = [
        f"at {shots_text(one.shot)} {one.spec(best).title} is highest with {percent(one.rows[best]['mean'])} %"
        for one in group
        for best in [max(one.rows, key=lambda key: one.rows[key]["mean"])]
    ]
    return f"Accuracy against milliseconds a query, {group[0].label}, a panel a number of shots: {'; '.join(ends)}"


def _architecture(one: Contest) -> str:
    return one.comparison.backbone.title.split(" (")[0]


def _by_comparison(every: Sequence[Contest]) -> dict[str, list[Contest]]:
    found: dict[str, list[Contest]] = {}
    for one in every:
        found.setdefault(one.comparison.address, []).append(one)
    return found


def _grouped(
    pairs: Iterable[tuple[Contest, Any]], key: Callable[[Contest], Any]
) -> dict[Any, list[tuple[Contest, Any]]]:
    found: dict[Any, list[tuple[Contest, Any]]] = {}
    for pair in pairs:
        found.setdefault(key(pair[0]), []).append(pair)
    return found


def _picture(address: str) -> str:
    return f"{address.replace('/', '-')}.webp"
