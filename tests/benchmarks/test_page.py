"""The speed page is what the recorded files say, all of them, and says what they do not."""

import json
from pathlib import Path

import pytest

from fieldmark.benchmarks.page import FIGURE, main, read_folder, speed_figure, speed_page
from fieldmark.benchmarks.timing import make_row
from fieldmark.benchmarks.verdicts import verdict
from fieldmark.errors import FieldmarkError

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_files_say():
    measured = read_folder(ROOT / "benchmarks")
    assert (ROOT / "docs" / "speed.md").read_text() == speed_page(measured), "run: make results"
    assert (ROOT / "docs" / FIGURE).read_text() == speed_figure(measured), "run: make results"


def test_every_recorded_row_is_on_the_page_with_its_verdict():
    page = (ROOT / "docs" / "speed.md").read_text()
    files = sorted((ROOT / "benchmarks").glob("*.json"))
    assert files
    rows = [
        row for path in files for found in json.loads(path.read_text())["benchmarks"].values() for row in found["rows"]
    ]
    assert all(f"| {row['what']} |" in page for row in rows)
    missed = sum("target" in row and row["ratio"] < row["target"] for row in rows)
    assert page.count("| FAIL") == 2 * missed  # in their tables, and together at the top
    assert (ROOT / "docs" / FIGURE).read_text().count('stroke="#c62828"') == missed


@pytest.fixture
def folder(tmp_path):
    """Two reports: one of today, one that lacks nearly everything."""
    rows = [
        make_row("fast", [1.0], [8.0], 1, "steps/s", 8.0, threads=2),
        make_row("slow | odd", [1.0], [7.9], 1, "steps/s", 8.0, quoted=True),
        make_row("late", [0.6], [1.0], 1, "steps/s", target_seconds=0.5),
        make_row("plain", [1.0], [1.0], 1, "steps/s"),
    ]
    made = {
        "commit": "0123456789abcdef+changes", "command": "fieldmark bench all", "time": "2026-01-02T03:04:05+00:00",
        "threads": 4, "versions": {"torch": "2.15.0"},
        "hardware": {"processor": "P", "cores": 8, "accelerator": "GPU"},
    }  # fmt: skip
    new = {
        "asked": ["lssa", "unheard_of", "never_run"],
        "provenance": made,
        "benchmarks": {
            "lssa": {"rows": rows, "notes": ["a note"], "load": [1.25, 1, 1], "time": "2026-01-02T05:06:07+00:00"},
            "unheard_of": {"rows": [], "skipped": ["needs a package"]},
        },
    }
    (tmp_path / "new.json").write_text(json.dumps(new))
    (tmp_path / "old.json").write_text(json.dumps({"benchmarks": {"lssa": {"rows": rows[:1]}}}))
    return tmp_path


def test_page_of_made_up_reports(folder):
    page = speed_page(read_folder(folder))
    assert "| fast | 1 | 0.125 | steps/s | 8 | 8 | PASS |" in page
    assert "| slow \\| odd | 1 | 0.127 | steps/s | 7.9 | 8 | FAIL, quoted peer |" in page
    assert "| late | 1.67 | 1 | steps/s | 1.67 | at most 0.5 s | FAIL |" in page
    assert "| plain | 1 | 1 | steps/s | 1 |  |  |" in page
    assert "`benchmarks/new.json`: GPU (P, 8 cores); threads: 4; torch 2.15.0; 2026-01-02 05:06 UTC; " in page
    assert "commit `0123456789ab+changes`; load 1.2." in page
    assert "- a note" in page
    assert "- Not measured: needs a package" in page
    assert "- Not measured: the run ended before it" in page
    assert "LSSA's head against the same computation" in page  # what the module says it compares
    assert page.count("## lssa (") == 2
    old = page.split("## lssa (old)")[1]
    assert "Not recorded yet: `episodes` (episodes scored a second" in page
    assert "; `lssa` (" not in page
    assert old.count("not recorded") == 7  # command, hardware, threads, torch, time, commit, load


def test_many_rows_without_a_target_are_folded_away(folder):
    rows = [make_row(f"row {i}", [1.0], [2.0], 1, "steps/s", 1.0 if i == 7 else None) for i in range(40)]
    (folder / "new.json").write_text(json.dumps({"benchmarks": {"many": {"rows": rows}}}))
    page = speed_page(read_folder(folder))
    assert "<summary>39 rows without a target</summary>" in page
    assert page.index("| row 7 |") < page.index("<details") < page.index("| row 0 |") < page.index("</details>")


def test_figure_has_a_mark_for_each_row(folder):
    figure = speed_figure(read_folder(folder))
    assert figure.count('stroke="#1b7f4d"') == 2
    assert figure.count('stroke="#c62828"') == 2
    assert figure.count('stroke="#8a9099"') == 1
    assert "unheard_of" not in figure


def test_command_writes_page_and_figure(folder, tmp_path):
    page = tmp_path / "docs" / "speed.md"
    assert main([str(folder), str(page)]) == 0
    assert page.read_text() == speed_page(read_folder(folder))
    assert (page.parent / FIGURE).read_text().startswith("<svg")


def test_a_file_that_is_no_report_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(FieldmarkError, match=r"x\.json is no report"):
        read_folder(tmp_path)


def test_verdict_needs_both_targets():
    row = make_row("both", [0.4], [4.0], 1, "steps/s", 8.0, target_seconds=0.5)
    assert verdict(row) == "PASS"
    assert verdict(row | {"target_seconds": 0.3}) == "FAIL"
    assert verdict(row | {"target": 11.0}) == "FAIL"
