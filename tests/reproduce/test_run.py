"""A row is trained, tested, written and shown; interrupted, it goes on; done, it is not done again."""

from __future__ import annotations

import json

import pytest

import fieldmark.reproduce.run as module
from fieldmark.cli.main import main
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import load_record
from fieldmark.evaluation.table import results_page
from fieldmark.reproduce import catalogue
from fieldmark.reproduce.page import papers_section
from fieldmark.reproduce.plan import Changes
from fieldmark.reproduce.state import Places, measured


@pytest.fixture
def go(tmp_path, papers):
    """A function: reproduce a row in the folder of the test."""

    def reproduce(row, **options):
        return module.reproduce_row(
            row, options.pop("places", Places()), results=tmp_path / "results", runs=tmp_path / "runs", folder=papers,
            **options,
        )  # fmt: skip

    return reproduce


def test_a_row_is_trained_tested_written_and_shown(go, row, papers, tmp_path, monkeypatch):
    path = go(row("ours"))
    assert path == tmp_path / "results" / "made_up" / "1-ours.json"
    record = load_record(path)
    assert record["entry"]["seeds"] == [0]
    assert record["entry"]["variant"] == "code"
    assert record["entry"]["columns"]["5-shot"]["published"] == [50.25, None]
    assert record["entry"]["columns"]["1-shot"]["protocol"]["episodes"] == 20
    assert [(one["column"], one["mean"]) for one in record["published"]] == [("1-shot", 0.4), ("5-shot", 0.5025)]
    assert [list(one["reproduces"]) for one in record["rows"]] == [["1-shot"], ["5-shot"]]
    assert [one["protocol"]["shot"] for one in record["rows"]] == [1, 5]
    assert all(one["training_seconds"] > 0 and one["count"] == 20 for one in record["rows"])
    assert len(list((tmp_path / "runs").iterdir())) == 1

    # A row of the same training is tested on the same model; a second seed is added to the first.
    monkeypatch.setattr("fieldmark.training.run.Job.run", None)
    go(row("ours-matching"))
    with pytest.raises(TypeError):
        go(row("ours"), seeds=[0, 1])  # this one would have to be trained
    monkeypatch.undo()
    before = path.read_text()
    go(row("ours"))
    assert path.read_text() == before  # nothing was left to do
    go(row("ours"), seeds=[0, 1])
    record = load_record(path)
    assert record["entry"]["seeds"] == [0, 1]
    assert len(record["models"]) == 2
    assert record["rows"][0] == json.loads(before)["rows"][0]
    found = measured(row("ours"), tmp_path / "results")
    assert [one.seed for one in found["1-shot"]] == [0, 1]

    page = results_page(tmp_path / "results", papers_section(tmp_path / "results", papers))
    (line,) = [one for one in page.splitlines() if one.startswith("| `ours` ")]
    assert "1-shot: 40.00 ± 0.50<br>5-shot: 50.25" in line
    assert "over episodes" in line
    assert "over seeds" in line
    assert "| 0, 1 |" in line
    assert "(made_up/1-ours.json)" in line
    (line,) = [one for one in page.splitlines() if one.startswith("| `ours-elsewhere` ")]
    assert line == "| `ours-elsewhere` Ours, on CUB | 1-shot: 43.00 ± 0.50 |  |  |  |  |  | data missing: cub-feat |"
    assert "Theirs" not in page
    assert "1 quoted rows are left out" in page


def test_an_interrupted_training_goes_on_and_leaves_no_result(go, row, tmp_path, monkeypatch):
    from fieldmark.training.run import Job

    whole = Job.run

    def stop(job):
        if job.stage.name == "again":
            raise KeyboardInterrupt
        return whole(job)

    monkeypatch.setattr(Job, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        go(row("ours"))
    assert not (tmp_path / "results").exists()
    (run,) = (tmp_path / "runs").iterdir()
    first = run / "stages" / "classify" / "done.json"
    made = first.stat().st_mtime_ns
    monkeypatch.undo()

    # Interrupted again between the training and the end of the tests.
    monkeypatch.setattr(module, "_add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        go(row("ours"))
    assert not (tmp_path / "results").exists()
    tested = {one: one.stat().st_mtime_ns for one in (run / "results").iterdir()}
    assert len(tested) == 2
    monkeypatch.undo()
    path = go(row("ours"))
    assert len(load_record(path)["rows"]) == 2
    assert first.stat().st_mtime_ns == made
    assert {one: one.stat().st_mtime_ns for one in (run / "results").iterdir()} == tested


def test_a_student_has_its_teacher_trained_first(go, row, tmp_path):
    record = load_record(go(row("ours-distilled")))
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert len(record["rows"]) == 1


def test_another_experiment_is_compared_with_nothing(go, row, papers, tmp_path):
    changes = Changes(on="glyphs", quick=True, settings={"seed": 0})
    path = go(row("ours-elsewhere"), changes=changes)
    assert path.name.startswith("1-ours-elsewhere-on-glyphs-quick-changed-")
    record = load_record(path)
    assert record["published"] == []
    assert record["entry"]["changes"]["on"] == "glyphs"
    assert record["rows"][0]["count"] == 5
    assert measured(row("ours-elsewhere"), tmp_path / "results") == {}
    page = papers_section(tmp_path / "results", papers)
    assert "compared with nothing" in page
    assert "| made_up/1/ours-elsewhere | on glyphs, quick, seed 0 |" in page


def test_without_data_nothing_is_trained(go, row, tmp_path):
    with pytest.raises(FieldmarkError, match="needs data set 'cub-feat'"):
        go(row("ours-elsewhere"), places=Places({}, [tmp_path]))
    assert not (tmp_path / "runs").exists()


def test_a_wrong_setting_is_named_before_anything_is_trained(go, row, tmp_path):
    with pytest.raises(FieldmarkError, match=r"did you mean 'stages.0.epochs'"):
        go(row("ours"), changes=Changes(settings={"stages.classify.epoch": 2}))
    with pytest.raises(FieldmarkError, match="did you mean 'channels'"):
        go(row("ours"), changes=Changes(settings={"backbone.options.chanels": 2}))
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def command(papers, tmp_path, monkeypatch, capsys):
    """A function: run the command on the made-up paper, in an empty folder; its status and what it printed."""
    monkeypatch.setattr(catalogue, "PAPERS", papers)
    monkeypatch.chdir(tmp_path)
    catalogue.load_papers.cache_clear()

    def call(*words):
        status = main(["reproduce", *words])
        out = capsys.readouterr()
        return status, out.out, out.err

    yield call
    catalogue.load_papers.cache_clear()


def test_the_command_lists_shows_and_runs(command, tmp_path):
    status, out, _ = command("--json", "-")
    (one,) = json.loads(out)
    assert status == 0
    assert (one["table"], one["rows"], one["quoted"], one["runnable"], one["done"]) == ("made_up/1", 5, 1, 3, 0)
    assert one["data_missing"] == ["cub-feat"]

    status, out, _ = command("made_up/1")
    assert status == 0
    assert "looked" not in out
    assert "quoted" in out
    assert "not here" in out

    status, out, err = command("made_up/1/ours", "--run", "--seed", "0")
    assert (status, err) == (0, "")
    assert "results/made_up/1-ours.json" in out
    status, out, _ = command("made_up/1/ours", "--json", "-")
    (one,) = json.loads(out)
    assert one["state"] == "done, runnable"
    assert [len(column["ours"]) for column in one["columns"]] == [1, 1]
    assert one["columns"][0]["published"] == [40.0, 0.5]

    # Of a whole table those rows are run that can be; the others are named.
    status, out, _ = command("made_up/1", "--run")
    assert status == 0
    assert "left out made_up/1/ours-elsewhere: " in out
    assert (tmp_path / "results" / "made_up" / "1-ours-distilled.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["made_up/1/our"], "did you mean 'ours'"),
        (["made_up/2"], "unknown table of paper 'made_up' '2'"),
        (["--run"], "nothing says which rows to run"),
        (["made_up/1/ours", "--seed", "3"], "--seed says how rows are run"),
        (["made_up/1/theirs", "--run"], "made_up/1/theirs is not run: its number was copied"),
        (["made_up/1/ours-elsewhere", "--run"], "needs data set 'cub-feat' (CUB-200-2011), which is not here"),
        (["made_up/1/ours", "--run", "--on", "gliphs"], "did you mean 'glyphs'"),
        (["made_up/1/ours-elsewhere", "--run", "--root", "cub-feats=x"], "did you mean 'cub-feat'"),
        (["made_up/1/ours-elsewhere", "--run", "--root", "gone"], "no such file or folder: gone"),
        (["made_up/1/ours", "--run", "--set", "seed"], "expected KEY=VALUE"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(command, words, message, tmp_path):
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()
