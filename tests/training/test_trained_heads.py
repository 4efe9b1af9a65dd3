"""A head with learned parts, from its first stage to the model's file and the results."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from fieldmark.backbones import load_model
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import evaluate_few_shot
from fieldmark.training import TrainingInterrupted, make_recipe, train
from fieldmark.training.checkpoints import load_state
from fieldmark.training.job import Job
from fieldmark.training.module import TrainingModule

HEAD = "spatial_alignment"
EPISODES = {"way": 3, "queries": 3, "episodes_per_epoch": 3}
ADAM = {"name": "adam", "lr": 0.01, "weight_decay": 0}


@pytest.fixture
def phases(values):
    """Pre-training, the alignment without and with its last part, as LSSA is trained; validated by the same head."""
    stage = {"epochs": 2, "episodes": EPISODES, "optimizer": ADAM,
             "validation": {"way": 3, "queries": 3, "episodes": 5, "head": HEAD}}  # fmt: skip
    values["backbone"] = {"name": "conv4", "options": {"channels": 8, "last_pool": False}}
    values["stages"] = [
        {"name": "pretrain", "objective": "cross_entropy", "epochs": 1, "steps_per_epoch": 2, "batch_size": 8,
         "optimizer": {"lr": 0.02}},
        {"name": "long", "objective": {"name": "lssa", "options": {"manipulation": False}}, **stage},
        {"name": "short", "objective": {"name": "lssa", "options": {"temperature": 0.5}}, **stage},
    ]  # fmt: skip
    values["evaluations"] = [
        {"way": 3, "queries": 3, "episodes": 10, "heads": [HEAD]},
        {"way": 3, "queries": 3, "episodes": 10, "heads": [HEAD], "stage": "long"},
    ]
    return values


def weights_of(folder, stage, file="best.ckpt"):
    state = load_state(folder / "stages" / stage / file)["model"]
    return {key.removeprefix("objective.head."): value for key, value in state.items() if "objective.head." in key}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def test_the_head_goes_from_phase_to_phase_into_the_file_and_the_results(phases, stores, tmp_path, monkeypatch):
    started, step = {}, TrainingModule.training_step

    def watched(self, batch, batch_index):
        head = getattr(self.objective, "head", None)
        if batch["step"] == 0 and head is not None:
            started[self.stage.name] = {key: value.clone() for key, value in head.state_dict().items()}
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    folder = train(make_recipe(phases), tmp_path, data=stores)
    long, short = weights_of(folder, "long"), weights_of(folder, "short")
    assert {key.split(".")[0] for key in set(short) - set(long)} == {"manipulate"}
    assert long
    for key, value in long.items():  # the second phase begins where the first one's best epoch was
        assert torch.equal(started["short"][key], value), key
    assert not same(started["short"], short)
    encoder, facts = load_model(folder)
    assert same(encoder.head.weights, short)
    assert encoder.head.options["temperature"] == 0.5
    assert encoder.head.options["manipulation"] is True
    assert facts["head"] == {"name": HEAD, "options": encoder.head.options}
    records = {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}
    assert len(records) == 2
    for name, record in records.items():
        options = record["rows"][0]["head_options"]
        assert options["manipulation"] is not name.endswith("_long")
        assert record["models"]["tiny"]["head"]["options"] == options
    # From the file, by name: the same episodes, the same hits.
    again = evaluate_few_shot(encoder, stores["test"], 3, 1, 3, 10, head=HEAD, facts=facts, progress=False)
    row = next(record for name, record in records.items() if not name.endswith("_long"))["rows"][0]
    assert again.to_dict()["hits_per_episode"] == row["hits_per_episode"]
    assert again.head_options == row["head_options"]


def test_validation_scores_with_the_head_as_it_is_at_that_moment(phases, stores, tmp_path, monkeypatch):
    del phases["stages"][2], phases["evaluations"]
    seen = []

    def watched(self, module):
        found = validate(self, module)
        seen.append((module.encoder.head, {k: v.clone() for k, v in module.objective.head.state_dict().items()}))
        return found

    validate = Job._validate
    monkeypatch.setattr(Job, "_validate", watched)
    folder = train(make_recipe(phases), tmp_path, data=stores, evaluate=False)
    assert len(seen) == 2
    for kept, now in seen:
        assert kept.name == HEAD
        assert same(kept.weights, now)
    assert not same(seen[0][0].weights, seen[1][0].weights)
    # Measured once more, from the last epoch's checkpoint.
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    encoder, _ = load_model(folder)
    state = load_state(folder / "stages/long/last.ckpt")["model"]
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")})
    encoder.head = seen[1][0]
    again = evaluate_few_shot(encoder, stores["val"], 3, 1, 3, 5, head=HEAD, progress=False)
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(again.accuracy)


def test_the_file_holds_the_head_of_the_best_epoch(phases, stores, tmp_path, monkeypatch):
    del phases["stages"][2], phases["evaluations"]
    scores = iter([0.9, 0.5])
    monkeypatch.setattr(Job, "_validate", lambda self, module: {"val_accuracy": next(scores), "val_ci95": 0.01})
    folder = train(make_recipe(phases), tmp_path, data=stores, evaluate=False)
    encoder, facts = load_model(folder)
    assert facts["stages"][1]["best_epoch"] == 1
    assert same(encoder.head.weights, weights_of(folder, "long", "best.ckpt"))
    assert not same(encoder.head.weights, weights_of(folder, "long", "last.ckpt"))


def test_an_interrupted_run_ends_with_the_same_head(phases, stores, tmp_path, monkeypatch):
    phases["evaluations"] = []
    whole = train(make_recipe(phases, ["--name", "whole"]), tmp_path, data=stores)
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):
        if self.stage.name == "short" and batch["step"] == 4:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(make_recipe(phases), tmp_path, data=stores)
    resumed = train(make_recipe(phases), tmp_path, data=stores)
    one, two = (load_model(folder)[0] for folder in (whole, resumed))
    assert same(one.head.weights, two.head.weights)
    assert same(one.state_dict(), two.state_dict())


def test_a_phase_goes_on_from_the_head_in_a_model_file(phases, stores, tmp_path, monkeypatch):
    phases["evaluations"] = []
    first = train(make_recipe({**phases, "stages": phases["stages"][:2], "name": "first"}), tmp_path, data=stores)
    begun, step = {}, TrainingModule.training_step

    def watched(self, batch, batch_index):
        if batch["step"] == 0:
            begun.update({key: value.clone() for key, value in self.objective.head.state_dict().items()})
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    second = {**phases, "stages": [{**phases["stages"][2], "start": str(first / "model.safetensors")}]}
    train(make_recipe(second), tmp_path, data=stores)
    for key, value in load_model(first)[0].head.weights.items():
        assert torch.equal(begun[key], value), key


def test_a_stage_that_trains_no_head_leaves_none(phases, stores, tmp_path):
    phases["stages"] = [phases["stages"][1], {**phases["stages"][0], "name": "after"}]
    phases["evaluations"] = []
    encoder, facts = load_model(train(make_recipe(phases), tmp_path, data=stores))
    assert encoder.head is None
    assert "head" not in facts


@pytest.mark.parametrize("key", ["validation", "evaluation", "stage"])
def test_a_learned_head_that_no_objective_trains_is_refused_with_the_recipe(phases, key):
    spec = {"name": HEAD, "options": {"reduce": True}}
    pretrain = phases["stages"][0]
    if key == "validation":
        pretrain["validation"] = {"head": spec}
    elif key == "evaluation":
        phases["stages"] = [pretrain]
        phases["evaluations"] = [{"heads": [spec]}]
    else:
        phases["evaluations"] = [{"heads": [spec], "stage": "pretrain"}]
    place = r"stages\.pretrain\.validation\.head" if key == "validation" else r"evaluations\.0\.heads"
    with pytest.raises(FieldmarkError, match=f"{place}: head '{HEAD}' .* the objective of stage 'pretrain'") as caught:
        make_recipe(phases)
    assert "\n" not in str(caught.value)


def test_a_part_that_the_objective_leaves_out_is_refused_and_one_that_needs_no_training_is_not(phases):
    phases["stages"] = phases["stages"][:2]
    phases["evaluations"] = [{"heads": [{"name": HEAD, "options": {"manipulation": True}}]}]
    with pytest.raises(
        FieldmarkError, match=r"evaluations\.0\.heads: .*with manipulation True has a part 'manipulate'"
    ):
        make_recipe(phases)
    phases["evaluations"][0]["heads"] = [{"name": HEAD, "options": {"foreground": "mask", "temperature": 0.1}}]
    phases["stages"][0]["validation"] = {"head": {"name": HEAD, "options": {"temperature": 0.05}}}
    make_recipe(phases)


def test_checking_a_recipe_draws_nothing(phases):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    make_recipe(phases)
    assert torch.equal(torch.rand(1), expected)


def test_parts_can_be_frozen_phase_by_phase(phases, stores, tmp_path):
    phases["evaluations"] = []
    phases["stages"][2]["freeze"] = ["backbone", "objective.head.enhance", "objective.head.correspond"]
    folder = train(make_recipe(phases), tmp_path, data=stores)
    before, after = weights_of(folder, "long"), weights_of(folder, "short")
    assert all(torch.equal(before[key], after[key]) for key in before)
    first = load_state(folder / "stages/short/last.ckpt")["model"]["objective.head.manipulate.last.weight"]
    assert first.abs().max() > 0  # it begins at 0, and is trained
    encoder = load_state(folder / "stages/long/best.ckpt")["model"]
    final = load_state(folder / "stages/short/best.ckpt")["model"]
    assert all(torch.equal(encoder[key], final[key]) for key in encoder if key.startswith("encoder."))
