"""The supervised line: freezing for a while, micro-batches, rates by module, held-out images, best test epoch."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.backbones import load_model
from fieldmark.classifiers import classifier_of
from fieldmark.data import hold_out
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import evaluate_top1
from fieldmark.training import TrainingInterrupted, callbacks, make_recipe, train
from fieldmark.training.checkpoints import load_state
from fieldmark.training.job import Job
from fieldmark.training.loaders import EpisodeBatches, ImageBatches
from fieldmark.training.module import TrainingModule
from fieldmark.training.schema import EpisodeSpec

NORMS = ["backbone.layer?.1"]


@pytest.fixture
def fine(values):
    """One supervised stage with all that the line has."""
    values["data"]["held_out"] = 0.25
    values["stages"] = [
        {"name": "finetune", "objective": "cross_entropy", "epochs": 3, "batch_size": 16, "accumulate": 2,
         "optimizer": {"lr": 0.05, "rates": {"backbone.layer4": 0.01}}, "schedule": {"name": "cosine"},
         "freeze": ["backbone.layer1", "backbone.layer2"], "freeze_epochs": 1, "validation": {"task": "top1"}}
    ]  # fmt: skip
    values["evaluations"] = []
    return values


@pytest.fixture
def same_classes(make_data):
    """Images of a split named otherwise, of the training classes."""
    from fieldmark.data import ImageStore

    def make(**options):
        stores = make_data(**options)
        names, whole = stores["train"].class_names, stores["train"]
        part = [whole.subset(np.arange(len(whole)) % 2 == half, split) for half, split in enumerate(("train", "test"))]
        noisy = (part[1].images.astype(int) * 0.8 + 20).astype(np.uint8)
        test = ImageStore.from_arrays(noisy, part[1].labels, names, part[1].manifest)
        return {"train": part[0], "val": stores["val"], "test": test}

    return make


def weights_after_each_step(monkeypatch):
    """Copies of the weights before every step, by name."""
    seen, step = [], TrainingModule.training_step

    def watched(self, batch, batch_index):
        if not batch["micro"]:
            seen.append({name: value.clone() for name, value in self.state_dict().items()})
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    return seen


@pytest.mark.parametrize("statistics", [True, False])
def test_patterns_are_frozen_for_the_first_epochs_only(fine, stores, tmp_path, monkeypatch, statistics):
    seen = weights_after_each_step(monkeypatch)
    stage = fine["stages"][0]
    stage["freeze_statistics"] = statistics
    folder = train(make_recipe(fine), tmp_path, data=stores)
    steps = load_model(folder)[1]["stages"][0]["steps"] // 3
    end = load_state(folder / "stages/finetune/last.ckpt")["model"]
    held = [name for name in seen[0] if "layer1" in name or "layer2" in name]
    learned = [name for name in held if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in learned:
        assert torch.equal(seen[0][name], seen[steps][name]), name
    assert all(not torch.equal(seen[steps][name], end[name]) for name in learned if name.endswith("weight"))
    assert not torch.equal(seen[0]["encoder.backbone.layer3.0.weight"], seen[steps]["encoder.backbone.layer3.0.weight"])
    mean = "encoder.backbone.layer1.1.running_mean"
    assert torch.equal(seen[0][mean], seen[steps][mean]) is statistics
    assert not torch.equal(seen[steps][mean], end[mean])


def test_accumulated_gradients_are_those_of_the_whole_batch(fine, stores, tmp_path, monkeypatch):
    """By hand: one step of plain gradient descent on a whole batch, with batch norms that keep their statistics."""
    stage = fine["stages"][0]
    fine["augmentation"] = []
    stage |= {"freeze": NORMS, "freeze_epochs": None, "epochs": 1, "steps_per_epoch": 1, "validation": None,
              "batch_size": 24, "accumulate": 4, "schedule": {"name": "constant"},
              "optimizer": {"lr": 0.5, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}}  # fmt: skip
    sizes, start = [], []
    step = TrainingModule.training_step

    def watched(self, batch, batch_index):
        if not start:
            start.append({name: value.clone() for name, value in self.state_dict().items()})
        sizes.append(len(batch["images"]))
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    folder = train(make_recipe(fine), tmp_path, data=stores)
    assert sizes == [6] * 4
    end = load_state(folder / "stages/finetune/last.ckpt")["model"]
    kept, _ = hold_out(stores["train"], 0.25)
    (batch,) = ImageBatches(kept, 24, 1, (0, "finetune"), limit=1)
    encoder, _ = load_model(folder)
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in start[0].items() if k.startswith("encoder.")})
    encoder.eval()
    linear = nn.Linear(8, 6)
    linear.load_state_dict({key: start[0][f"objective.classifier.{key}"] for key in ("weight", "bias")})
    loss = F.cross_entropy(linear(encoder(batch["images"]).mean((-2, -1))), batch["labels"])
    loss.backward()
    parameters = {f"encoder.{name}": p for name, p in encoder.named_parameters()}
    parameters |= {f"objective.classifier.{name}": p for name, p in linear.named_parameters()}
    checked = 0
    for name, parameter in parameters.items():
        if ".1." in name:  # batch norms are frozen
            continue
        torch.testing.assert_close(end[name], parameter.detach() - 0.5 * parameter.grad, rtol=1e-4, atol=1e-6)
        checked += bool(parameter.grad.abs().max() > 1e-4)
    assert checked >= 6
    (row,) = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert float(row["train_loss"]) == pytest.approx(loss.item(), rel=1e-4)


def test_micro_batches_hold_the_same_images_and_whole_classes(stores):
    store = stores["train"]
    whole = list(ImageBatches(store, 24, 2, (0, "a"), images_per_class=4))
    parts = list(ImageBatches(store, 24, 2, (0, "a"), images_per_class=4, accumulate=3))
    assert len(parts) == 3 * len(whole)
    for number, batch in enumerate(whole):
        mine = parts[3 * number : 3 * number + 3]
        assert torch.equal(torch.cat([one["images"] for one in mine]), batch["images"])
        assert [(one["step"], one["micro"]) for one in mine] == [(number, micro) for micro in range(3)]
        assert all(np.unique(one["labels"], return_counts=True)[1].tolist() == [4, 4] for one in mine)
    spec = EpisodeSpec(way=3, queries=2, episodes_per_epoch=4, episodes_per_step=4)
    (episodes,) = EpisodeBatches(store, spec, 1, (0,))
    split = list(EpisodeBatches(store, spec, 1, (0,), accumulate=2))
    assert torch.equal(torch.cat([one["query_labels"] for one in split]), episodes["query_labels"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16, "accumulate": 3}, "batch_size 16 cannot be split into 3 micro-batches; choose a multiple"),
        ({"batch_size": 16, "images_per_class": 4, "accumulate": 8}, "micro-batches of a multiple of 4"),
    ],
)
def test_a_step_that_does_not_fall_into_micro_batches_is_refused(stores, options, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        ImageBatches(stores["train"], epochs=1, key=(0,), **options)
    assert "\n" not in str(caught.value)


def groups_of(values, stores, tmp_path, monkeypatch):
    """Learning rate of each parameter by name, as the optimiser has it."""
    found = {}
    step = TrainingModule.training_step

    def watched(self, batch, batch_index):
        names = {id(p): name for name, p in self.named_parameters()}
        for group in self.trainer.optimizers[0].param_groups:
            found.update({names[id(p)]: group["initial_lr"] for p in group["params"]})
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    train(make_recipe(values), tmp_path, data=stores, evaluate=False)
    return found


def test_rates_by_pattern_the_last_that_fits_holds(fine, stores, tmp_path, monkeypatch):
    stage = fine["stages"][0]
    rates = {"backbone": 0.02, "backbone.layer4*": 0.03, "backbone.layer4.1": 0.04, "objective.classifier": 0.5}
    stage |= {"epochs": 2, "steps_per_epoch": 1, "optimizer": {"lr": 0.1, "objective_lr": 0.2, "rates": rates}}
    found = groups_of(fine, stores, tmp_path, monkeypatch)
    assert found["encoder.backbone.layer1.0.weight"] == 0.02  # frozen in the first epoch, and there from the start
    assert found["encoder.backbone.layer4.0.weight"] == 0.03
    assert found["encoder.backbone.layer4.1.weight"] == 0.04
    assert found["objective.classifier.weight"] == 0.5
    module = len([name for name in found if name.startswith("encoder.")])
    assert module == len(list(load_model(tmp_path / "tiny")[0].backbone.parameters()))


def test_the_rate_of_the_objective_still_works_alone(fine, stores, tmp_path, monkeypatch):
    stage = fine["stages"][0]
    stage |= {"epochs": 1, "steps_per_epoch": 1, "freeze_epochs": None, "optimizer": {"lr": 0.1, "objective_lr": 0.2}}
    found = groups_of(fine, stores, tmp_path, monkeypatch)
    assert {name.split(".")[0]: rate for name, rate in found.items()} == {"encoder": 0.1, "objective": 0.2}
    assert not any("layer1" in name for name in found)


def test_held_out_images_decide_and_are_not_trained_on(fine, stores, tmp_path, monkeypatch):
    used, step = set(), TrainingModule.training_step
    kept, held = hold_out(stores["train"], 0.25)
    number = {row.tobytes(): i for i, row in enumerate(stores["train"].images)}

    def watched(self, batch, batch_index):
        used.update(number[image.permute(1, 2, 0).numpy().tobytes()] for image in batch["images"].cpu())
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    folder = train(make_recipe(fine), tmp_path, data=stores)
    assert {str(i) for i in used} <= set(kept.names)
    assert not {str(i) for i in used} & set(held.names)
    encoder, facts = load_model(folder)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert evaluate_top1(encoder, held, progress=False).accuracy == pytest.approx(float(best["val_accuracy"]))
    assert int(best["epoch"]) == facts["stages"][0]["best_epoch"]
    assert (facts["stages"][0]["selected_by"], facts["held_out"]) == ("held-out", {"share": 0.25, "images": len(held)})
    assert facts["manifest"]["images"] == len(kept)
    assert "model_selection" not in facts
    assert facts["classifier"] == {"name": "linear", "options": {"dropout": 0.0}}
    assert encoder.classifier.class_names == tuple(kept.class_names)


def test_the_best_epoch_brings_its_own_classifier(fine, stores, tmp_path, monkeypatch):
    scores = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(Job, "_validate", lambda self, module: {"val_accuracy": next(scores), "val_ci95": 0.01})
    folder = train(make_recipe(fine), tmp_path, data=stores)
    encoder, facts = load_model(folder)
    assert facts["stages"][0]["best_epoch"] == 2
    best, last = (load_state(folder / f"stages/finetune/{name}.ckpt")["model"] for name in ("best", "last"))
    weight = classifier_of(encoder).layer.weight
    assert torch.equal(weight, best["objective.classifier.weight"])
    assert not torch.equal(weight, last["objective.classifier.weight"])


def test_the_best_test_epoch_is_chosen_by_name_only_and_every_result_says_so(fine, same_classes, tmp_path, capsys):
    from fieldmark.cli import main as cli
    from fieldmark.evaluation.table import results_page

    stores = same_classes()
    fine["data"].pop("held_out")
    fine["stages"][0]["validation"] = {"task": "top1", "select": "best-test-epoch"}
    fine["evaluations"] = [{"task": "top1"}, {"task": "robustness"},
                           {"task": "top1", "head": "prototype", "name": "fitted"}]  # fmt: skip
    folder = train(make_recipe(fine), tmp_path, data=stores)
    _, facts = load_model(folder)
    assert facts["model_selection"] == "best-test-epoch"
    assert facts["stages"][0]["selected_by"] == "best-test-epoch"
    records = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    assert len(records) == 3
    for record in records:
        assert record["rows"][0]["model_selection"] == "best-test-epoch"
        assert any("too good" in note for note in record["rows"][0]["notes"])
    best = max(row["val_accuracy"] for row in json.loads((folder / "stages/finetune/done.json").read_text())["rows"])
    top1 = next(record for record in records if record["name"].endswith("top1"))
    assert top1["rows"][0]["mean"] == pytest.approx(best)
    page = results_page(folder / "results")
    assert page.count("tiny (best-test-epoch)") == 3
    # The same model elsewhere, by another command.
    words = ["eval", str(folder), "--data", "glyphs", "--split", "test", "--size", "16", "--episodes", "5"]
    assert cli.main(words) == 0
    assert "(best-test-epoch)" in " ".join(capsys.readouterr().out.split())
    # One that goes on from it inherits the label.
    later = {**fine, "name": "later", "evaluations": []}
    later["stages"] = [{**fine["stages"][0], "start": str(folder), "validation": None}]
    assert load_model(train(make_recipe(later), tmp_path, data=stores))[1]["model_selection"] == "best-test-epoch"


def test_a_stage_goes_on_with_the_classifier_of_a_file_of_the_same_classes(fine, stores, tmp_path, monkeypatch):
    fine["stages"][0]["validation"] = None
    first = train(make_recipe({**fine, "name": "first"}), tmp_path, data=stores)
    seen = weights_after_each_step(monkeypatch)
    again = {**fine, "stages": [{**fine["stages"][0], "start": str(first), "epochs": 1, "freeze_epochs": None}]}
    train(make_recipe(again), tmp_path, data=stores)
    kept = load_model(first)[0].classifier.weights["layer.weight"]
    assert torch.equal(seen[0]["objective.classifier.weight"], kept)


@pytest.mark.parametrize("at", [3, 4, 5])
def test_an_interrupted_run_ends_like_one_that_was_not(fine, stores, tmp_path, monkeypatch, at):
    """Stopped before, in and after the step that thaws, in the middle of its micro-batches."""
    whole = train(make_recipe(fine, ["--name", "whole"]), tmp_path, data=stores)
    assert load_model(whole)[1]["stages"][0]["steps"] == 9
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):
        if (batch["step"], batch["micro"]) == (at, 1):
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Interruptions.__init__, "__defaults__", (0.0,))  # saved after every step
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted, match=f"step {at} of 9"):
            train(make_recipe(fine), tmp_path, data=stores)
    resumed = train(make_recipe(fine), tmp_path, data=stores)
    states = [load_state(run / "stages/finetune/last.ckpt") for run in (whole, resumed)]
    assert states[0]["model"].keys() == states[1]["model"].keys()
    assert all(torch.equal(value, states[1]["model"][name]) for name, value in states[0]["model"].items())
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in
             csv.DictReader((run / "metrics.csv").read_text().splitlines())] for run in (whole, resumed)]  # fmt: skip
    assert rows[0] == rows[1]


def test_mixed_precision_trains_and_validates(fine, stores, tmp_path):
    folder = train(make_recipe(fine, ["--trainer.precision", "bf16-mixed"]), tmp_path, data=stores)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert all(np.isfinite(float(row["train_loss"])) for row in rows)
    assert load_model(folder)[0].classifier.weights["layer.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze_epochs": 0}, r"stages\.finetune\.freeze_epochs is 0; expected at least 1"),
        ({"freeze": []}, "freeze_epochs needs patterns of what is frozen"),
        ({"accumulate": 0}, r"accumulate is 0; expected at least 1"),
        ({"optimizer": {"rates": {"backbone": 0}}}, r"optimizer\.rates\.backbone is 0.*above 0"),
        ({"objective": "protonet"}, r"validation\.task needs the classifier of stage 'finetune', whose objective tra"),
        ({"validation": {"select": "best-test-epoch"}}, r"validation\.select is of task top1"),
        ({"validation": {"task": "top1", "select": "best-epoch"}}, "did you mean 'best-test-epoch'"),
        ({"validation": {"task": "top1", "analysis": True}}, "analysis is of task few-shot"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_in_one_line(fine, change, message):
    fine["stages"][0] |= change
    with pytest.raises(FieldmarkError, match=message) as caught:
        make_recipe(fine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.held_out", 1.0, "held_out is 1.0; expected a share between 0 and 1"),
        ("data.held_out", None, "none are held out; set data.held_out"),
        ("evaluations", [{"head": "logistic"}], r"evaluations\.0\.head is of tasks top1 and robustness"),
        ("evaluations", [{"task": "top1", "runs": 3}], r"evaluations\.0\.runs is of task few-shot"),
        ("evaluations", [{"task": "top1", "head": {"name": "logistc"}}], "did you mean 'logistic'"),
    ],
)
def test_other_keys_likewise(fine, key, value, message):
    with pytest.raises(FieldmarkError, match=message):
        make_recipe(fine, {key: value})


def test_a_rate_for_a_module_that_is_not_there_is_refused(fine, stores, tmp_path):
    fine["stages"][0]["optimizer"]["rates"] = {"backbone.layer9": 0.1}
    with pytest.raises(FieldmarkError, match=r"optimizer\.rates: 'backbone\.layer9' fits no module"):
        train(make_recipe(fine), tmp_path, data=stores)


def test_an_evaluation_on_other_classes_is_refused(fine, stores, tmp_path):
    fine["evaluations"] = [{"task": "top1"}]
    with pytest.raises(FieldmarkError, match="only the model has 'train 0', 'train 1'"):
        train(make_recipe(fine), tmp_path, data=stores)
