"""A recipe's descriptors reach training, validation and evaluation."""

from __future__ import annotations

import json
import os
import signal
from typing import ClassVar

import pytest
import torch
import yaml

from fieldmark import heads
from fieldmark.backbones import load_model
from fieldmark.errors import FieldmarkError
from fieldmark.methods import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective
from fieldmark.registry import Entry
from fieldmark.training import TrainingInterrupted, make_recipe, train
from fieldmark.training.module import TrainingModule


class TrainLocal(EpisodicObjective):
    made: ClassVar[list[EpisodicObjective]] = []

    def __init__(self) -> None:
        super().__init__(heads.create("local_knn"))
        self.made.append(self)


@pytest.fixture
def local(values, monkeypatch):
    """The tiny recipe with one stage of episodes, scored on local descriptors from a grid."""
    monkeypatch.setitem(OBJECTIVES._entries, "train_local", Entry("train_local", TrainLocal, "for this test"))
    monkeypatch.setattr(TrainLocal, "made", [])
    stage = {**values["stages"][1], "objective": "train_local"}
    stage["validation"] = {"queries": 4, "episodes": 5, "head": "local_knn"}
    evaluation = {"queries": 4, "episodes": 5, "heads": ["prototype", "local_knn"]}
    values |= {
        "stages": [stage],
        "descriptors": {"name": "grid", "options": {"sizes": [2]}},
        "evaluations": [evaluation, {**evaluation, "name": "dense", "descriptors": "dense"}],
    }
    return lambda *overrides: make_recipe(values, overrides)


def weights(folder):
    return load_model(folder)[0].state_dict()


def test_training_validation_and_evaluation_use_them(local, stores, tmp_path, monkeypatch):
    from fieldmark import evaluation

    validated = []
    plain = evaluation.evaluate_heads
    monkeypatch.setattr(
        evaluation, "evaluate_heads", lambda *a, **k: validated.append(k["descriptors"]) or plain(*a, **k)
    )
    folder = train(local("--stages.episodes.epochs", "1"), tmp_path, data=stores)
    (trained,) = (one.extractor for one in TrainLocal.made if one.extractor.name != "dense")
    assert (trained.name, trained.sizes) == ("grid", (2,))
    assert validated == ["grid"]
    rows = {p.stem: json.loads(p.read_text())["rows"] for p in (folder / "results").iterdir()}
    assert [row["descriptors"]["name"] for row in rows.pop("dense")] == ["pooled", "dense"]
    (own,) = rows.values()
    assert [row["descriptors"]["name"] for row in own] == ["pooled", "grid"]
    assert own[1]["descriptors"]["options"]["sizes"] == [2]


def test_a_validation_may_have_its_own(local, stores, tmp_path, monkeypatch):
    from fieldmark import evaluation

    validated = []
    plain = evaluation.evaluate_heads
    monkeypatch.setattr(
        evaluation, "evaluate_heads", lambda *a, **k: validated.append(k["descriptors"]) or plain(*a, **k)
    )
    recipe = local("--stages.episodes.validation.descriptors", "dense", "--stages.episodes.epochs", "1")
    train(recipe, tmp_path, data=stores, evaluate=False)
    assert validated == ["dense"]


def test_the_descriptors_decide_what_is_learned(local, stores, tmp_path):
    grid, dense = (
        weights(train(local("--name", name, "--descriptors", name), tmp_path, data=stores, evaluate=False))
        for name in ("grid", "dense")
    )
    assert any(not torch.equal(grid[key], dense[key]) for key in grid)


@pytest.mark.parametrize("name", ["grid", "sampling"])
def test_an_interrupted_run_draws_the_same_windows_when_it_goes_on(local, stores, tmp_path, monkeypatch, name):
    words = ("--descriptors", f"{{name: {name}}}")
    whole = train(local("--name", "whole", *words), tmp_path, data=stores, evaluate=False)
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):
        if batch["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(local(*words), tmp_path, data=stores, evaluate=False)
    resumed = train(local(*words), tmp_path, data=stores, evaluate=False)
    one, two = weights(whole), weights(resumed)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_from_before_there_were_descriptors_goes_on(tiny, stores, tmp_path):
    folder = train(tiny(), tmp_path, data=stores, evaluate=False)
    old = yaml.safe_load((folder / "recipe.yaml").read_text())
    del old["descriptors"]
    for part in (*old["evaluations"], *(s["validation"] for s in old["stages"] if s["validation"])):
        del part["descriptors"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(old))
    before = (folder / "metrics.csv").read_text()
    assert train(tiny(), tmp_path, data=stores, evaluate=False) == folder
    assert (folder / "metrics.csv").read_text() == before
    with pytest.raises(FieldmarkError, match=r"descriptors\.name was 'dense' and now is 'sampling'"):
        train(tiny("--descriptors", "sampling"), tmp_path, data=stores, evaluate=False)


@pytest.mark.parametrize("key", ["descriptors", "evaluations.0.descriptors", "stages.classify.validation.descriptors"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gird", "unknown extractor 'gird'; did you mean 'grid'"),
        ("{name: grid, options: {ratios: 2}}", "did you mean 'ratio'"),
        ("{name: grid, options: {sizes: [0]}}", "sizes of extractor grid"),
    ],
)
def test_a_mistake_is_named_on_one_line(tiny, key, value, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        tiny(f"--{key}", value)
    assert "\n" not in str(caught.value)
