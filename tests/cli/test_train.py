"""`fieldmark train` as a user meets it: overrides, refusals, interruption, kill and resume."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fieldmark.cli import main as cli

RECIPE = """
name: small
data: {name: glyphs}
backbone: {name: conv4, options: {channels: 16}}
augmentation: [{name: random_crop, padding: 2}, flip]
stages:
  - name: classify
    objective: cross_entropy
    epochs: 3
    steps_per_epoch: 12
    batch_size: 32
evaluations:
  - {episodes: 20, queries: 5, heads: [prototype, {name: prototype, options: {metric: cosine}}, logistic]}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_train_then_eval_of_the_run(recipe, tmp_path, capsys):
    status, out, err = run(capsys, "train", recipe, "--out", tmp_path / "runs", "--stages.classify.epochs", "1")
    assert status == 0, err
    assert "prototype (metric cosine)" in out  # the same head with other options is told apart
    folder = tmp_path / "runs" / "small"
    assert {"recipe.yaml", "metrics.csv", "model.safetensors"} <= {p.name for p in folder.iterdir()}
    status, out, err = run(
        capsys, "eval", folder, "--data", "glyphs", "--episodes", 10, "--baseline", "untrained", "--json", "-"
    )
    assert status == 0, err
    record = json.loads(out)
    assert record["models"][str(folder)]["trained"]
    status, _, err = run(capsys, "eval", folder, "--data", "glyphs", "--split", "train", "--episodes", 5)
    assert status == 2
    assert "were in the model's training" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("--stages.classify.epoch", "1"), "did you mean"),
        (("--stages.clasify.epochs", "1"), "classify"),
        (("--stages.classify.epochs", "many"), "epochs"),
        (("--backbone.name", "conv5"), "did you mean 'conv4'"),
        (("--data.name", "glyph"), "did you mean 'glyphs'"),
        (("--stages.classify.objective", "cross_entrpy"), "did you mean 'cross_entropy'"),
    ],
)
def test_wrong_overrides_are_one_line(recipe, tmp_path, capsys, override, message):
    status, _, err = run(capsys, "train", recipe, "--out", tmp_path / "runs", *override)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_leftover_key_in_a_recipe(recipe, tmp_path, capsys):
    recipe.write_text(RECIPE + "evaluation: []\n")
    status, _, err = run(capsys, "train", recipe, "--out", tmp_path / "runs")
    assert status == 2
    assert "did you mean 'evaluations'" in err


def test_unknown_recipe(tmp_path, capsys):
    status, _, err = run(capsys, "train", "baseline/glyph_conv4")
    assert status == 2
    assert "baseline/glyphs_conv4" in err


class _Training:
    """`fieldmark train` in a process of its own, with what it says on standard error in a file."""

    def __init__(self, recipe, out):
        self.folder, self.said = out / "small", out.with_suffix(".log")
        arguments = [sys.executable, "-m", "fieldmark", "train", str(recipe), "--out", str(out)]
        with self.said.open("a") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=log, env=environment)

    def finish(self):
        assert self.process.wait(timeout=300) == 0, self.said.read_text()

    def stop_after_an_epoch(self, how):
        metrics = self.folder / "metrics.csv"
        for _ in range(1200):
            if metrics.exists() and len(metrics.read_text().splitlines()) >= 2:
                self.process.send_signal(how)
                return self.process.wait(timeout=60)
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        return pytest.fail("no epoch in two minutes")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_training_goes_on_to_the_same_result(recipe, tmp_path, stop):
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 12"))
    straight = _Training(recipe, tmp_path / "straight")
    straight.finish()
    stopped = _Training(recipe, tmp_path / "stopped")
    status = stopped.stop_after_an_epoch(stop)
    if stop == signal.SIGINT:
        assert status == 130
        assert "Traceback" not in stopped.said.read_text()
        assert "the same command" in stopped.said.read_text()
    assert not (stopped.folder / "model.safetensors").exists()
    _Training(recipe, tmp_path / "stopped").finish()
    from safetensors.torch import load_file

    one, two = (load_file(one_run.folder / "model.safetensors") for one_run in (straight, stopped))
    assert all((one[key] == two[key]).all() for key in one)
    rows = []
    for one_run in (straight, stopped):
        with (one_run.folder / "metrics.csv").open() as file:
            rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
