"""Every row of every table is there once, with its numbers, and what an own row names exists."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from fieldmark import descriptors, heads, methods
from fieldmark.data import DATASETS
from fieldmark.errors import FieldmarkError
from fieldmark.reproduce import find, load_papers
from fieldmark.reproduce.catalogue import PAPERS, read_paper
from fieldmark.reproduce.plan import plan_of
from fieldmark.training import load_recipe
from fieldmark.training.recipe import find_recipe

# Own rows by paper and table: ablations, and the authors' own rows of the tables that compare with others.
OWN = {
    "apinet": {"1": 2, "2": 7, "3": 4, "4": 9, "5": 9, "6": 4, "7": 3, "8": 3, "9": 3, "10": 3},  # 6: and TripletNet
    "deepemd": {"1": 7, "2": 18, "3": 16, "4": 9, "5": 6, "6": 16, "7a": 3, "7b": 3, "7c": 3, "8": 24},
    "lssa": {"1": 2, "2": 2, "3": 6, "4": 4, "5": 6, "6": 2},
    "scl": {
        "1": 8, "2": 4, "3": 4, "4": 4, "5": 3, "6": 2, "7": 2, "8": 2, "9": 2, "10": 6, "B.1": 12, "B.2": 8, "B.3": 4,
    },
    "ssanet": {"1": 3, "2": 3, "3": 6, "4": 3, "5": 5, "6": 2, "7": 1, "8": 1},
}  # fmt: skip
QUOTED = {
    "apinet": {"6": 25, "7": 16, "8": 18, "9": 9, "10": 4},
    "deepemd": {"7a": 24, "7b": 10, "7c": 9},
    "lssa": {"1": 9, "2": 10},
    "scl": {"6": 14, "7": 11, "8": 5, "9": 6, "10": 15},
    "ssanet": {"6": 9, "7": 5, "8": 10},
}
# What the text of a paper has in another form: a lost point.
READ_OTHERWISE = {"63.22"}
CELLS = [(row, cell) for row in find(None) for cell in row.cells.values() if cell.recipe]
TRAININGS = sorted({(cell.recipe, json.dumps(cell.options, sort_keys=True)) for _, cell in CELLS})
# Architectures of timm are built to check their options, which takes seconds.
LARGE = ("apinet/", "ssanet/", "baseline/cub_fine", "deepemd/retrieval_cub_resnet50")


@pytest.mark.parametrize("paper", OWN)
def test_every_row_has_its_entry(paper):
    tables = load_papers()[paper].tables
    assert {name: len(table.own) for name, table in tables.items()} == OWN[paper]
    quoted = {name: len(table.rows) - len(table.own) for name, table in tables.items()}
    assert {name: count for name, count in quoted.items() if count} == QUOTED[paper]


def test_all_papers_are_counted():
    assert set(load_papers()) == set(OWN)
    assert len(find(None)) == sum(n for one in (OWN, QUOTED) for tables in one.values() for n in tables.values())


@pytest.mark.parametrize("paper", OWN)
def test_rows_are_whole(paper):
    for row in find(paper):
        assert re.fullmatch(r"[a-z0-9-]+", row.id), row.address
        assert row.label, row.address
        assert row.cells, row.address
        for cell in row.cells.values():
            if row.table == "6" and row.paper == "deepemd":
                assert 0 < cell.value < 10, row.address  # seconds
            elif cell.value is None:
                assert row.note, f"{row.address}: a number that cannot be read is said to be so"
            else:
                assert 10 < cell.value < 100, row.address
                assert cell.ci95 is None or 0 < cell.ci95 < 2, row.address
            assert cell.column.data in DATASETS or cell.column.data is None, row.address


@pytest.mark.parametrize(("recipe", "options"), [
    pytest.param(
        recipe, options, marks=[pytest.mark.slow] if recipe.startswith(LARGE) else [], id=f"{recipe} {options}"[:90]
    )
    for recipe, options in TRAININGS
])  # fmt: skip
def test_recipe_takes_the_options(recipe, options):
    teachers = {key: "runs/teacher" for row, cell in CELLS if cell.recipe == recipe for key in cell.teacher}
    wanted = json.loads(options)
    if "distillation" in options:
        wanted |= teachers
    load_recipe(recipe, wanted)


def test_keys_and_objectives_of_the_large_ones_exist():
    """As far as it can be seen without building their architectures."""
    for row, cell in CELLS:
        if cell.recipe.startswith(LARGE):
            for stage in plan_of(row, cell).training.recipe.stages:
                methods.create(stage.objective.name, **stage.objective.options)


@pytest.mark.parametrize("spec", sorted({json.dumps(cell.evaluation, sort_keys=True) for _, cell in CELLS}))
def test_heads_and_descriptors_of_the_evaluations_exist(spec):
    evaluation = json.loads(spec)
    head = evaluation.get("head")
    if head is not None:
        name, options = (head, {}) if isinstance(head, str) else (head["name"], head.get("options", {}))
        heads.create(name, **options)
    if "descriptors" in evaluation:
        descriptors.create(evaluation["descriptors"]["name"], **evaluation["descriptors"]["options"])


def test_no_two_rows_of_a_table_are_the_same_experiment():
    """Rows that differ in print differ in what they run; a row of another table may be the same."""
    for paper in load_papers().values():
        for table in paper.tables.values():
            seen: dict[str, str] = {}
            for row in table.own:
                if row.missing:
                    continue
                key = json.dumps([[c.recipe, c.options, c.evaluation, c.teacher] for c in row.cells.values()])
                same = seen.setdefault(key, row.id)
                if same != row.id:
                    values = [[c.value for c in table.rows[one].cells.values()] for one in (same, row.id)]
                    assert values[0] == values[1], f"{paper.name}/{table.id}: {same} and {row.id}"


@pytest.mark.data
@pytest.mark.parametrize("paper", OWN)
def test_numbers_are_in_the_text_of_the_paper(paper, shared_file):
    text = shared_file(f"papers/{paper}.txt").read_text(encoding="utf-8")
    text = re.sub(r"</?b>|\\textbf|\\mathbf|[${}\s]", "", text).replace("\\pm", "±").replace(".±", "±")
    values = yaml.safe_load((PAPERS / f"{paper}.yaml").read_text(encoding="utf-8"))
    checked = 0
    for number, table in values["tables"].items():
        decimals = {1, 2, 3} if number == "6" and paper == "deepemd" else {0, 1, 2}
        for row in table["rows"]:
            for value, ci95 in row["published"].values():
                if value is None:
                    continue
                forms = [f"{value:.{d}f}" for d in decimals if round(value, d) == value]
                tails = [""] if ci95 is None else [f"±{ci95:.{d}f}" for d in (1, 2) if round(ci95, d) == ci95]
                found = any(form + tail in text for form in forms for tail in tails)
                assert found or READ_OTHERWISE & set(forms), f"{paper}/{number}/{row['id']}: {value} ± {ci95}"
                checked += 1
    assert checked > 30


def test_links_to_older_results_lead_somewhere():
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "results"
    linked = [cell.results for _, cell in CELLS if cell.results]
    assert len(linked) == 6
    assert all((folder / name).exists() for name in linked)


def test_recipes_of_the_entries_are_those_that_come_with_fieldmark():
    for recipe in {recipe for recipe, _ in TRAININGS}:
        assert find_recipe(recipe).is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("quoted: true", "quoted: true\n        recipe: scl/cifar_fs_conv4"), "is quoted and has a recipe"),
        (("recipe: lssa/cub_conv4", "note: x"), "has no recipe"),
        (("- id: second", "- id: first"), "has the row 'first' twice"),
        (("measure: accuracy", "measure: acuracy"), "did you mean 'accuracy'"),
        (("a: [2, null]", "b: [2, null]"), "unknown column"),
        (("a: [2, null]", "a: 2"), "is no published number"),
        (("label: Second", "lable: Second"), "did you mean 'label'"),
        (("variant: paper", "variant: code of theirs"), "unknown variant"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    text = """
title: T
variant: paper
tables:
  '1':
    caption: c
    measure: accuracy
    columns: {a: {label: A}}
    rows:
      - id: first
        label: First
        published: {a: [1, null]}
        quoted: true
      - id: second
        label: Second
        published: {a: [2, null]}
        recipe: lssa/cub_conv4
"""
    path = tmp_path / "made_up.yaml"
    path.write_text(text)
    assert len(read_paper(path).rows) == 2
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(FieldmarkError, match=message) as error:
        read_paper(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("scll", "did you mean 'scl'"),
        ("scl/b1", "unknown table of paper 'scl' 'b1'"),
        ("lssa/3/al", "did you mean 'all'"),
    ],
)
def test_unknown_addresses_name_the_nearest(address, message):
    with pytest.raises(FieldmarkError, match=message):
        find(address)
