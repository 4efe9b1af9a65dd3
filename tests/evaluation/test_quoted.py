"""Tables of the documentation say what the results files say."""

import json
import re
from pathlib import Path

import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.quoted import fill, fill_pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "<!-- from results" in path.read_text()]


def table(rows, *columns):
    lines = ["<!-- from results", f"rows: {json.dumps(rows)}", f"columns: {json.dumps(list(columns))}", "-->", ""]
    return "\n".join(["Before.", "", *lines, "| old |", "", "<!-- end -->", "", "After.", ""])


def test_there_are_such_pages():
    assert len(PAGES) >= 5


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_the_files_say(path):
    text = path.read_text()
    assert text.count("<!-- from results") == text.count("<!-- end -->")
    assert fill(text, ROOT / "results", str(path)) == text, "run: make results"


def test_no_other_page_has_a_table_of_measured_numbers():
    generated = {"models.md", "what_to_pick.md"}
    for path in (ROOT / "docs").rglob("*.md"):
        bare = re.sub(r"<!-- from results.*?<!-- end -->", "", path.read_text(), flags=re.DOTALL)
        if path.name not in generated:
            assert not re.search(r"^\|.*\d ± \d", bare, re.MULTILINE), path


@pytest.fixture
def results(tmp_path):
    def row(model, head, hits, **more):
        share = sum(hits) / (10 * len(hits))
        return {
            "model": model, "task": "few-shot", "mean": share, "ci95": 0.01, "count": len(hits), "over": "episodes",
            "interval": "normal", "head": head, "head_options": {}, "protocol": {}, "episode_hash": "e",
            "queries_per_episode": 10, "hits_per_episode": hits, "leaked_classes": [], "seconds": {},
            "manifest": json.loads((ROOT / "results/glyphs_conv4_1shot.json").read_text())["rows"][0]["manifest"],
            **more,
        }  # fmt: skip

    ece = {"mean": 0.25, "ci95": 0.002, "count": 2, "over": "draws", "interval": "student"}
    record = json.loads((ROOT / "results/glyphs_conv4_1shot.json").read_text())
    record["rows"] = [
        row("runs/a", "prototype", [5, 6], measures={"ece": ece}), row("runs/a", "nearest", [7, 9]),
        row("runs/b", "prototype", [4, 4]),
    ]  # fmt: skip
    record["models"] = {"runs/a": {}, "runs/b": {}}
    (tmp_path / "made_1shot.json").write_text(json.dumps(record))
    return tmp_path


def test_cells_are_means_differences_and_measures(results):
    cell = {"file": "made_{shot}shot", "model": "a", "head": "prototype"}
    page = table(
        [{"shot": 1}],
        {"shots": "{shot}"}, {"mean": cell}, {"ece": {**cell, "measure": "ece"}},
        {"to the better": {**cell, "against": [{"head": "nearest"}, {"model": "b"}]}},
        {"to itself": {**cell, "against": {}}}, {"to the paper": {**cell, "published": 60.25}},
    )  # fmt: skip
    text = fill(page, results, "page")
    assert text.startswith("Before.\n\n<!-- from results")
    assert text.endswith("<!-- end -->\n\nAfter.\n")
    assert "| shots | mean | ece | to the better | to itself | to the paper |\n|---|---|---|---|---|---|\n" in text
    # Differences of the two episodes: -0.2 and -0.3, whose half width is 1.96 * 0.05 / sqrt(2).
    assert "| 1 | 55.00 ± 1.00 | 25.00 ± 0.20 | -25.00 ± 6.93 |  | -5.25 |" in text
    assert "| old |" not in text
    assert fill(text, results, "page") == text


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"file": "made_1shot"}, r"made_1shot.json has 3 rows with \{\}; expected one"),
        ({"file": "made_1shot", "model": "c"}, "has 0 rows"),
        ({"file": "none"}, "no result file at .*none.json"),
        ({"file": "made_1shot", "head": "nearest", "measure": "ece"}, "has no measure 'ece'"),
        ({"file": "made_1shot", "hed": "nearest"}, r"page: a column has \['hed'\]; expected file and "),
        ({"head": "nearest"}, r"page: a column has \['head'\]; expected file and "),
        ({"file": "{nofile}"}, r"page: '\{nofile\}' asks for 'nofile'; the table's row has"),
        (
            {"file": "made_1shot", "model": "a", "head": "prototype", "measure": "ece", "against": {}},
            "'ece' is not of single images",
        ),
    ],
)
def test_what_cannot_be_found_is_named(results, column, words):
    with pytest.raises(FieldmarkError, match=words):
        fill(table([{}], {"a": column}), results, "page")


def test_a_head_with_options_goes_by_what_the_results_page_writes(results):
    record = json.loads((results / "made_1shot.json").read_text())
    record["rows"][1] = {**record["rows"][0], "head_options": {"metric": "cosine"}, "mean": 0.5}
    (results / "made_1shot.json").write_text(json.dumps(record))
    page = table([{}], {"mean": {"file": "made_1shot", "model": "a", "head": "prototype (metric cosine)"}})
    assert "| 50.00 ± 1.00 |" in fill(page, results, "page")


def test_a_difference_may_be_to_a_row_of_another_file(results):
    record = json.loads((results / "made_1shot.json").read_text())
    record["rows"] = [{**record["rows"][1], "hits_per_episode": [6, 8]}]
    (results / "other.json").write_text(json.dumps(record))
    cell = {"file": "other", "head": "nearest", "against": {"file": "made_1shot", "model": "a"}}
    assert "| -10.00 ± 0.00 |" in fill(table([{}], {"gap": cell}), results, "page")


def test_a_list_is_the_mean_over_seeds(results):
    record = json.loads((results / "made_1shot.json").read_text())
    record["rows"][1]["hits_per_episode"] = [4, 6]  # of nearest; 5 and 6 are those of prototype
    record["rows"][1]["mean"] = 0.5
    (results / "again_1shot.json").write_text(json.dumps(record))
    seeds = [{"file": file, "head": "nearest", "model": "a"} for file in ("made_1shot", "again_1shot")]
    gaps = [{**one, "against": {"head": "prototype"}} for one in seeds]
    page = table([{}], {"mean": seeds}, {"gap": gaps}, {"to the paper": [{**one, "published": 60} for one in seeds]})
    # 0.8 and 0.5, +0.25 and -0.05; half widths by Student's 12.706 of one degree of freedom, times half of 0.3.
    assert "| 65.00 ± 190.60 | +10.00 ± 190.60 | +5.00 |" in fill(page, results, "page")
    assert "| 80.00 ± ? |" in fill(table([{}], {"one seed": seeds[:1]}), results, "page")
    itself = {**seeds[0], "against": {}}
    assert "|  |" in fill(table([{}], {"to itself once": [gaps[1], itself]}), results, "page")
    with pytest.raises(FieldmarkError, match="page: a column has 'made' among its seeds; expected file and"):
        fill(table([{}], {"mean": ["made"]}), results, "page")


def test_conditions_are_compared_by_their_own_hits(results):
    record = json.loads((results / "made_1shot.json").read_text())
    for row, hits in zip(record["rows"][:2], ([1, 4], [3, 2]), strict=True):
        rotated = {"mean": sum(hits) / 20, "ci95": 0.01, "hits_per_image": hits}
        row["columns"] = {"plain": {"mean": row["mean"], "ci95": 0.01}, "rotated": rotated}
    (results / "changed_1shot.json").write_text(json.dumps(record))
    cell = {"file": "changed_1shot", "head": "nearest", "against": {"model": "a", "head": "prototype"}}
    page = table([{}], *({name: {**cell, "measure": name}} for name in ("plain", "rotated")))
    # Differences of the two episodes: 0.2 and 0.3, 1.96 * 0.05 / sqrt(2); 0.2 and -0.2 where rotated.
    assert "| +25.00 ± 6.93 | 0.00 ± 27.72 |" in fill(page, results, "page")


def test_a_description_without_rows_is_refused(results):
    with pytest.raises(FieldmarkError, match="page: a table from results is described by rows and columns"):
        fill("<!-- from results\nrows: []\n-->\n<!-- end -->", results, "page")


def test_a_table_without_an_end_does_not_take_the_prose_up_to_the_next_one(results):
    page = table([{}], {"a": "b"})
    with pytest.raises(FieldmarkError, match=r"page: 2 times .*, 1 times"):
        fill(page.replace("<!-- end -->", "Prose.") + page, results, "page")


def test_only_pages_that_change_are_written(results):
    (results / "docs").mkdir()
    stale, plain = results / "docs" / "stale.md", results / "docs" / "plain.md"
    stale.write_text(table([{}], {"mean": {"file": "made_1shot", "head": "nearest"}}))
    plain.write_text("Nothing.\n")
    assert fill_pages(results, results / "docs") == [stale]
    assert "| 80.00 ± 1.00 |" in stale.read_text()
    assert fill_pages(results, results / "docs") == []
