"""`fieldmark bench`: what is measured stays, and what fails is one line that costs its own rows alone."""

import importlib
import inspect
import json
import sys
import types

import pytest
import torch

from fieldmark.benchmarks import augmentation, episodes, transport, transport_peers
from fieldmark.benchmarks.timing import make_row, run_jobs
from fieldmark.benchmarks.transport_problems import Noise
from fieldmark.cli import bench
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError, MissingExtraError


@pytest.fixture
def benchmarks(monkeypatch):
    """A function that puts made-up benchmarks in the place of all."""

    def put(**runs):
        monkeypatch.setattr(bench, "BENCHMARKS", dict.fromkeys(runs, "made up"))
        special = [name for name in bench._FOR_ACCELERATORS if name in runs]
        monkeypatch.setattr(bench, "_FOR_ACCELERATORS", special)
        for name, run in runs.items():
            module = types.ModuleType(name)
            module.run = run
            monkeypatch.setitem(sys.modules, f"fieldmark.benchmarks.{name}", module)

    return put


def measured(repeats):
    return {"rows": [make_row("a row", [0.1] * repeats, [0.3] * repeats, 1, "things/s", 2.0)], "notes": ["a note"]}


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_every_benchmark_can_be_run_by_its_name(name):
    run = importlib.import_module(f"fieldmark.benchmarks.{name}").run
    assert "repeats" in inspect.signature(run).parameters
    assert all(one.default is not one.empty for one in inspect.signature(run).parameters.values())


@pytest.mark.parametrize("accelerator", [False, True])
def test_all_goes_through_every_benchmark(accelerator, monkeypatch, benchmarks, tmp_path, capsys):
    seen = []

    def noted(name):
        return lambda repeats: seen.append(name) or measured(repeats)

    wanted = list(bench.BENCHMARKS)
    benchmarks(**{name: noted(name) for name in wanted})
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    target = tmp_path / "all.json"
    assert cli.main(["bench", "all", "--repeats", "1", "--json", str(target)]) == 0
    expected = [name for name in wanted if accelerator or name != "efficiency"]
    assert seen == expected
    report = json.loads(target.read_text())
    assert report["asked"] == expected == list(report["benchmarks"])
    found = report["benchmarks"]["episodes"]
    assert found["threads"] == torch.get_num_threads()
    assert len(found["time"]) == len("2026-01-01T00:00:00+00:00")
    assert found["seconds"] >= 0
    assert {"commit", "hardware", "command"} <= set(report["provenance"])
    captured = capsys.readouterr()
    assert captured.out.count("a row") == len(expected)
    assert ("efficiency is for accelerators" in captured.err) is not accelerator


def test_a_benchmark_that_fails_is_one_line_and_costs_no_other(benchmarks, tmp_path, capsys):
    target = tmp_path / "all.json"

    def missing(repeats):
        # What came before is already in the file.
        assert json.loads(target.read_text())["benchmarks"]["first"]["rows"][0]["what"] == "a row"
        raise MissingExtraError("somepeer", "bench", "fieldmark bench second")

    def broken(repeats):
        return [][0]

    benchmarks(first=measured, second=missing, third=broken, fourth=measured)
    assert cli.main(["bench", "all", "--repeats", "2", "--json", str(target)]) == 1
    found = json.loads(target.read_text())["benchmarks"]
    assert [len(one["rows"]) for one in found.values()] == [1, 0, 0, 1]
    assert len(found["fourth"]["rows"][0]["repeats"]["ours"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("fieldmark: bench second: fieldmark bench second needs the package 'somepeer'")
    assert lines[0].endswith("pip install 'fieldmark[bench]'")
    assert lines[1] == "fieldmark: bench third: IndexError: list index out of range"


def test_what_was_measured_before_an_interruption_stays(benchmarks, tmp_path, capsys):
    def stopped(repeats):
        raise KeyboardInterrupt

    benchmarks(first=measured, second=stopped)
    target = tmp_path / "all.json"
    assert cli.main(["bench", "--json", str(target)]) == cli.EXIT_INTERRUPTED
    report = json.loads(target.read_text())
    assert list(report["benchmarks"]) == ["first"]
    assert report["asked"] == ["first", "second"]


def test_alone_its_error_is_the_commands(benchmarks, capsys):
    def missing(repeats):
        raise MissingExtraError("somepeer", "bench", "fieldmark bench second")

    benchmarks(second=missing)
    assert cli.main(["bench", "second"]) == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_json_on_standard_output_is_json_alone(benchmarks, capsys):
    benchmarks(first=measured)
    assert cli.main(["bench", "first", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"]["first"]
    assert found["notes"] == ["a note"]
    assert found["rows"][0]["peer"] == 3.3333333  # things a second, with eight digits


def test_jobs_that_fail_leave_the_rows_of_the_others():
    def fail():
        raise FieldmarkError("no peer")

    assert run_jobs([fail, lambda: [{"what": "a"}], fail]) == {"rows": [{"what": "a"}], "skipped": ["no peer"]}
    with pytest.raises(FieldmarkError, match="no peer"):
        run_jobs([fail])
    assert run_jobs([]) == {"rows": [], "skipped": []}


def test_without_easyfsl_logistic_regression_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "easyfsl", None)
    monkeypatch.setattr(episodes, "CLASSES", 6)
    monkeypatch.setattr(episodes, "IMAGES", 22)
    monkeypatch.setattr(episodes, "EPISODES", {name: {"ours": 2, "peer": 1} for name in episodes.EPISODES})
    found = episodes.run(repeats=1)
    assert [row["what"].split(",")[0] for row in found["rows"]] == ["logistic"]
    assert len(found["skipped"]) == 1
    assert "'easyfsl'" in found["skipped"][0]


def test_without_kornia_torchvision_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    monkeypatch.setattr(augmentation, "SECONDS", 1e-3)
    monkeypatch.setattr(augmentation, "BATCH", 4)
    monkeypatch.setattr(augmentation, "_workers", lambda images, transform: 1.0)
    found = augmentation.run(repeats=1, sizes=(8,))
    assert len(found["rows"]) == 2 * 2
    assert "'kornia'" in found["skipped"][0]


@pytest.mark.parametrize(("missing", "left"), [("cv2", {"ot.emd", "ot.emd on tensors", "emd_c"}), ("ot", {"OpenCV"})])
def test_without_one_peer_of_transport_the_other_is_measured(missing, left, monkeypatch):
    pytest.importorskip("cv2", reason="OpenCV is not installed (extra: bench)")
    pytest.importorskip("ot", reason="POT is not installed (extra: bench)")
    monkeypatch.setitem(sys.modules, missing, None)
    loops, lines = transport_peers.available_loops()
    assert set(loops) == left
    assert len(lines) == 1
    rows = transport.solver_rows(Noise(), 9, 5, 1)
    assert {row["against"] for row in rows} == left
    assert {row["relative_error"]["ours"] is None for row in rows} == {missing == "ot"}
