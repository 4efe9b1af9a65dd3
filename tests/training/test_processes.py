"""Real processes: one that is killed, and two that train together."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from ast import literal_eval
from collections import Counter
from pathlib import Path

import pytest
import torch

from fieldmark.backbones import load_model

SCRIPT = Path(__file__).with_name("script.py")


def run_script(out, kill_at=-1, *overrides):
    out.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(out), str(kill_at), *overrides],
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows_of(out):
    rows = csv.DictReader((out / "tiny/metrics.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# Micro-batches, modules that thaw after the first epoch and a held-out slice.
FINE = (
    "--data.held_out", "0.1", "--stages.classify.validation", "{task: top1}",
    "--stages.episodes.episodes.episodes_per_epoch", "8", "--stages.episodes.episodes.episodes_per_step", "2",
    "--stages.episodes.accumulate", "2", "--stages.episodes.freeze", "[backbone.layer1*]",
    "--stages.episodes.freeze_epochs", "1", "--stages.episodes.optimizer.rates", "{backbone.layer4: 0.0005}",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), FINE], ids=["plain", "fine"])
def test_a_run_killed_in_the_middle_of_an_epoch_ends_bit_exactly_like_one_that_was_not(tmp_path, more):
    whole = run_script(tmp_path / "whole", -1, *more)
    assert whole.stdout.splitlines()[-1:] == ["done"], whole.stderr
    killed = run_script(tmp_path / "killed", 5, *more)
    assert killed.returncode == -9
    assert not (tmp_path / "killed/tiny/model.safetensors").exists()
    again = run_script(tmp_path / "killed", -1, *more)
    assert again.returncode == 0, again.stderr
    seen = (tmp_path / "killed/seen-0.txt").read_text().splitlines()
    assert seen == (tmp_path / "whole/seen-0.txt").read_text().splitlines()  # no step lost, none done twice
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "killed")
    one, two = (load_model(tmp_path / name / "tiny")[0].backbone.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("frozen_first", [False, True])
def test_two_processes_see_what_one_sees_and_end_where_one_ends(tmp_path, frozen_first):
    # Frozen batch norms and no random augmentation: then the mean over two half batches is that over the whole one,
    # and the two runs differ by rounding alone.
    same = ["--augmentation", "[]", "--stages.episodes.episodes.episodes_per_step", "2"]
    for stage in ("classify", "episodes"):
        same += [f"--stages.{stage}.freeze", "[backbone.layer*.1]"]
    same += ["--stages.classify.freeze", "[backbone.layer*.1, backbone.layer1]", "--stages.classify.accumulate", "2"]
    same += ["--stages.classify.freeze_epochs", "2"] if frozen_first else []
    one = run_script(tmp_path / "one", -1, *same)
    assert one.returncode == 0, one.stderr
    two = run_script(tmp_path / "two", -1, *same, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert two.returncode == 0, two.stderr
    assert "done" in two.stdout
    images = [
        Counter(
            image
            for path in sorted((tmp_path / name).glob("seen-*.txt"))
            for line in path.read_text().splitlines()
            for image in [(line.split()[0], line.split()[1], value) for value in literal_eval(line.split(" ", 2)[2])]
        )
        for name in ("one", "two")
    ]
    assert len(list((tmp_path / "two").glob("seen-*.txt"))) == 2
    assert images[0] == images[1]
    weights = [load_model(tmp_path / name / "tiny")[0].backbone.state_dict() for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)
    means = [
        json.loads(next((tmp_path / name / "tiny/results").glob("*.json")).read_text())["rows"][0]["mean"]
        for name in ("one", "two")
    ]
    assert means[0] == pytest.approx(means[1], abs=0.02)


@pytest.mark.slow
def test_a_trained_head_is_the_same_in_every_process_and_in_the_file(tmp_path):
    """Both processes hand the first phase's head on to the second, and end with one head."""
    stages = [
        {"name": name, "objective": {"name": "lssa", "options": {"manipulation": name == "ssm"}}, "epochs": 1,
         "episodes": {"way": 3, "queries": 3, "episodes_per_epoch": 4, "episodes_per_step": 2},
         "optimizer": {"name": "adam", "lr": 0.001},
         "validation": {"way": 3, "queries": 3, "episodes": 5, "head": "spatial_alignment"}}
        for name in ("lsc", "ssm")
    ]  # fmt: skip
    evaluations = [{"way": 3, "queries": 3, "episodes": 10, "heads": ["spatial_alignment"]}]
    words = ["--stages", json.dumps(stages), "--evaluations", json.dumps(evaluations)]
    words += ["--backbone.options.last_pool", "false", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = run_script(tmp_path / "two", -1, *words)
    assert done.returncode == 0, done.stderr
    encoder, facts = load_model(tmp_path / "two/tiny")
    best = torch.load(tmp_path / "two/tiny/stages/ssm/best.ckpt", weights_only=True)["model"]
    learned = {key.removeprefix("objective.head."): v for key, v in best.items() if key.startswith("objective.head.")}
    assert set(learned) == set(encoder.head.weights)
    assert all(torch.equal(value, encoder.head.weights[key]) for key, value in learned.items())
    assert facts["head"]["options"]["manipulation"] is True
    assert list((tmp_path / "two/tiny/results").glob("*.json"))
