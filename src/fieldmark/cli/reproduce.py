"""The papers' tables, row by row: the published number beside ours, what a row needs, and running it.

ADDRESS is PAPER, PAPER/TABLE or PAPER/TABLE/ROW; without it all papers are listed. Nothing is trained without --run:
most rows take hours or days on a GPU. With it, every row of the address whose data is here is trained, tested by the
paper's protocol, and written to results/PAPER/TABLE-ROW.json; interrupted, the same command goes on. Data is looked
for in the folders that the environment's FIELDMARK_DATA names (default: data), by name, unless --root says where it
is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from fieldmark.cli.output import add_json_option, emit_json, print_table
from fieldmark.cli.values import parse_options
from fieldmark.errors import FieldmarkError

EXAMPLE = "fieldmark reproduce lssa/3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("address", nargs="?", metavar="ADDRESS", help="PAPER[/TABLE[/ROW]], as in lssa/3/all")
    parser.add_argument("--run", action="store_true", help="train and test the rows; default: show them")
    parser.add_argument(
        "--root", "--data.root", action="append", default=[], metavar="[DATA=]PATH", dest="root",
        help="where a data set is; without DATA= the only one that the row needs",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="of the training; several times: several"
    )
    parser.add_argument("--out", default="results", metavar="DIR", help="where results are; default: results")
    parser.add_argument("--runs", default="runs/reproduce", metavar="DIR", help="where run folders are made")
    changed = parser.add_argument_group("another experiment than the paper's (its outcome is compared with nothing)")
    changed.add_argument("--on", metavar="DATA", help="train and test on another data set")
    changed.add_argument("--quick", action="store_true", help="the recipes' quick variants, minutes on two cores")
    changed.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a key of the recipe, as of `fieldmark train`; trainer.KEY alone leaves the experiment what it is",
    )  # fmt: skip
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Show the rows, or run them."""
    from fieldmark.data import DATASETS
    from fieldmark.reproduce import find
    from fieldmark.reproduce.plan import Changes
    from fieldmark.reproduce.state import Places

    rows = find(options.address)
    if options.on:
        DATASETS.get(options.on)
    changes = Changes(options.on, options.quick, parse_options("--set", options.settings))
    places = Places.here(_roots(options.root))
    if options.run:
        if not options.address:
            raise FieldmarkError(
                "nothing says which rows to run; give their address: fieldmark reproduce lssa/3/all --run"
            )
        return _run(options, rows, places, changes)
    if changes or options.seed:
        given = "--seed" if options.seed else "--set" if options.settings else "--on" if options.on else "--quick"
        raise FieldmarkError(f"{given} says how rows are run, and nothing is run; add --run, or leave it out")
    return _overview(options, places) if not options.address else _show(options, rows, places)


def _roots(texts: Sequence[str]) -> dict[str, str]:
    """``DATA=PATH`` and ``PATH`` by data set.

    Example:
        >>> _roots(["cub=birds", "elsewhere/a=b"])
        {'cub': 'birds', '': 'elsewhere/a=b'}
    """
    from fieldmark.data import DATASETS
    from fieldmark.errors import unknown_name
    from fieldmark.evaluation.leakage import family_of

    known = {*DATASETS.names(), *(family_of(name) for name in DATASETS.names())}
    found: dict[str, str] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if sign and name not in known and "/" not in name:
            raise unknown_name("data set in --root", name, known)
        if sign and name in known:
            found[name] = path
        elif "" in found:
            raise FieldmarkError(f"--root {text!r}: one path was given already; say what each is, --root DATA=PATH")
        else:
            found[""] = text
    return found


def _run(options: argparse.Namespace, rows: Sequence[Any], places: Any, changes: Any) -> int:
    from fieldmark.reproduce.numbers import difference_text, ours_text, published_text
    from fieldmark.reproduce.run import reproduce_row, runnable
    from fieldmark.reproduce.state import measured

    seeds = list(dict.fromkeys(options.seed or [0]))
    written: dict[str, str] = {}
    left: dict[str, str] = {}
    lines = []
    for row in rows:
        if len(rows) > 1:
            if row.quoted:
                continue
            try:
                runnable(row, places, seeds, changes)
            except FieldmarkError as error:
                left[row.address] = str(error)
                continue
        path = reproduce_row(row, places, seeds=seeds, changes=changes, results=options.out, runs=options.runs)
        if path is None:  # another of several processes writes
            continue
        written[row.address] = str(path)
        found = measured(row, options.out, changes)
        for column, numbers in found.items():
            cell = row.cells[column]
            paper = "" if changes else published_text(cell, 2)
            gap = "" if changes else difference_text(numbers, cell)
            lines.append((row.address, cell.column.label, ours_text(numbers), paper, gap))
    if rows and not written and left:
        raise FieldmarkError(f"none of the {len(left)} rows can be run here; the first: {next(iter(left.values()))}")
    if not emit_json(options.json, {"written": written, "left_out": left}):
        if lines:
            print_table("Reproduced (in %, 95% interval)", ["row", "what", "ours", "paper", "difference"], lines)
        if changes:
            print("Another experiment than the paper's: compared with nothing.")
        for address, file in written.items():
            print(f"{address}: {file}")
        for address, why in left.items():
            print(f"left out {address}: {why}")
    return 0


def _overview(options: argparse.Namespace, places: Any) -> int:
    from fieldmark.reproduce import load_papers

    lines, values = [], []
    for paper in load_papers().values():
        for table in paper.tables.values():
            states = [_state(row, places, options.out) for row in table.rows.values()]
            one: dict[str, Any] = {
                "table": f"{paper.name}/{table.id}",
                "caption": table.caption,
                "rows": len(states),
                **{name: sum(name in state["state"].split(", ") for state in states) for name in _COUNTED},
                "data_missing": list(dict.fromkeys(name for state in states for name in state["data_missing"])),
            }
            values.append(one)
            counts = [one[name] or "" for name in ("rows", *_COUNTED)]
            lines.append((one["table"], table.caption, *counts, ", ".join(one["data_missing"])))
    if not emit_json(options.json, values):
        print_table(
            "Tables of the papers (fieldmark reproduce PAPER/TABLE)",
            ["table", "what", "rows", "quoted", "done", "can be run here", "data missing"], lines,
            right=["rows", "quoted", "done", "can be run here"],
        )  # fmt: skip
    return 0


_COUNTED = ("quoted", "done", "runnable")


def _state(row: Any, places: Any, results: str) -> dict[str, Any]:
    """What is to be said of a row: whether it is quoted, done, can be run, and what is missing."""
    from fieldmark.reproduce.plan import plan_of
    from fieldmark.reproduce.state import measured, missing_data, outdated

    if row.quoted or row.missing:
        return {"state": "quoted" if row.quoted else "cannot be run", "data_missing": [], "plans": {}, "found": {}}
    plans = {name: plan_of(row, cell) for name, cell in row.cells.items()}
    needs = list(dict.fromkeys(name for plan in plans.values() for name in plan.data))
    missing = missing_data(needs, places)
    found = measured(row, results)
    here = any(not set(plan.data) & set(missing) for plan in plans.values())
    words = [word for word, holds in (("done", bool(found)), ("runnable", here)) if holds]
    state = ", ".join(words) or "data missing"
    if outdated(row, found):
        state += ", of an older recipe"
    return {"state": state, "data_missing": missing, "plans": plans, "found": found}


def _show(options: argparse.Namespace, rows: Sequence[Any], places: Any) -> int:
    from fieldmark.reproduce import load_papers

    papers, values = load_papers(), []
    tables: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        table = papers[row.paper].tables[row.table]
        state = _state(row, places, options.out)
        values.append(_described(row, state, places))
        tables.setdefault(f"{row.paper}/{row.table}: {table.caption}", []).extend(_lines(row, table, state))
    if emit_json(options.json, values):
        return 0
    for title, lines in tables.items():
        print_table(
            title, ["row", "column", "paper", "ours", "difference", "state", "recipe"], lines,
            right=["paper", "ours", "difference"],
        )  # fmt: skip
    for name, one in {name: one for value in values for name, one in value["data"].items()}.items():
        missing = f"not here; {one['note']}" if len(rows) == 1 else "not here"
        print(f"data {name}: {missing if one['note'] else one['path'] or 'built in'}")
    for recipe, cost in {name: cost for value in values for name, cost in value["cost"].items()}.items():
        print(f"{recipe}: {cost}")
    if len(rows) == 1:
        _print_row(rows[0], values[0])
    else:
        print("One row with its options and protocol: fieldmark reproduce ADDRESS/ROW. Train and test: add --run.")
    return 0


def _lines(row: Any, table: Any, state: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The lines of a row, one for each of its numbers; the first says what the row is."""
    from fieldmark.reproduce.numbers import difference_text, ours_text, published_text

    said = state["state"] + (f": {row.missing}" if row.missing else "")
    firsts = [(row.id, said), (row.label, ""), *[("", "")] * len(row.cells)]
    if len(row.cells) == 1:
        firsts = [(f"{row.id}\n{row.label}", said)]
    out: list[tuple[str, ...]] = []
    for (first, said), (name, cell) in zip(firsts, row.cells.items(), strict=False):
        found = state["found"].get(name, [])
        out.append(
            (
                first, cell.column.label, published_text(cell, table.digits), ours_text(found) if found else "",
                difference_text(found, cell) if found else "", said, cell.recipe or "",
            )
        )  # fmt: skip
    return out


def _described(row: Any, state: Mapping[str, Any], places: Any) -> dict[str, Any]:
    """A row for machines."""
    from fieldmark.reproduce.plan import cost_of

    columns = [
        {
            "column": name,
            "label": cell.column.label,
            "published": [cell.value, cell.ci95],
            "ours": [
                {"seed": one.seed, **one.estimate.to_dict(), "commit": one.commit, "file": one.file}
                for one in state["found"].get(name, [])
            ],
            "recipe": cell.recipe,
            "options": dict(cell.options),
            "teacher": dict(cell.teacher),
            "protocol": dict(cell.evaluation),
            "data": list(state["plans"][name].data) if name in state["plans"] else [],
        }
        for name, cell in row.cells.items()
    ]
    needs = list(dict.fromkeys(name for plan in state["plans"].values() for name in plan.data))
    places_of = {name: places.find(name) for name in needs}
    recipes = list(dict.fromkeys(cell.recipe for cell in row.cells.values() if cell.recipe))
    return {
        "row": row.address,
        "label": row.label,
        "state": state["state"],
        "why": row.missing,
        "variant": row.variant,
        "note": row.note,
        "data": {name: {"path": path, "note": "" if path is not None else places.looked_for(name)}
                 for name, path in places_of.items()},
        "cost": {recipe: cost_of(recipe) for recipe in recipes},
        "columns": columns,
    }  # fmt: skip


def _print_row(row: Any, value: Mapping[str, Any]) -> None:
    """What one row is in full."""
    if row.note:
        print(f"Note: {row.note}")
    for one in value["columns"]:
        if one["recipe"]:
            options = " ".join(f"--{key} {_shell(text)}" for key, text in one["options"].items())
            print(f"{one['label']}: fieldmark train {one['recipe']} {options}".rstrip())
            print(f"  variant {row.variant}, protocol {one['protocol']}")
            if one["teacher"]:
                print("  teacher " + ", ".join(f"{key}: row {name}" for key, name in one["teacher"].items()))
    if value["columns"] and value["state"] not in ("quoted", "cannot be run"):
        print(f"Train and test: fieldmark reproduce {row.address} --run")


def _shell(value: Any) -> str:
    import json
    import shlex

    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
