"""A run from data to results, and again: nothing is done twice, nothing of another recipe is mixed in."""

from __future__ import annotations

import csv
import json
import os
import signal

import pytest
import torch

from fieldmark.backbones import load_model
from fieldmark.errors import FieldmarkError
from fieldmark.training import TrainingInterrupted, train
from fieldmark.training.checkpoints import load_state
from fieldmark.training.job import Job


def test_a_run_leaves_a_model_its_measurements_and_its_results(tiny, stores, tmp_path):
    folder = train(tiny(), tmp_path, data=stores)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("classify", "1"), ("classify", "2"), ("episodes", "1"), ("episodes", "2"),
    ]  # fmt: skip
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    encoder, facts = load_model(folder)
    assert facts["training_classes"] == {"patterns": [f"train {i}" for i in range(6)]}
    assert facts["seed"] == 0
    assert [stage["best_epoch"] for stage in facts["stages"]][1] == 2  # no validation: the last one
    best = load_state(folder / "stages/episodes/last.ckpt")["model"]
    torch.testing.assert_close(
        encoder.backbone.state_dict()["layer1.0.weight"], best["encoder.backbone.layer1.0.weight"], rtol=0, atol=0
    )
    (record,) = (folder / "results").glob("*.json")
    assert json.loads(record.read_text())["rows"][0]["manifest"]["split"] == "test"


def test_the_best_epoch_is_kept_and_starts_the_next_stage(tiny, stores, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5])
    monkeypatch.setattr(Job, "_validate", lambda self, module: {"val_accuracy": next(scores), "val_ci95": 0.01})
    recipe = tiny("--stages.episodes.optimizer.lr", "1e-12", "--stages.episodes.freeze", "[encoder, backbone]",
                  "--stages.episodes.objective", "cross_entropy")  # fmt: skip
    folder = train(recipe, tmp_path, data=stores, evaluate=False)
    best = load_state(folder / "stages/classify/best.ckpt")
    assert best["progress"]["step"] == load_state(folder / "stages/classify/last.ckpt")["progress"]["step"] // 2
    encoder, facts = load_model(folder)
    assert facts["stages"][0]["best_epoch"] == 1
    for name, value in encoder.backbone.state_dict().items():
        torch.testing.assert_close(value, best["model"][f"encoder.backbone.{name}"], rtol=0, atol=0)


def test_the_same_recipe_gives_the_same_numbers_and_another_seed_others(tiny, stores, tmp_path):
    runs = [train(tiny("--name", name, "--seed", seed), tmp_path, data=stores, evaluate=False)
            for name, seed in (("a", "0"), ("b", "0"), ("c", "1"))]  # fmt: skip
    weights = [load_model(run)[0].backbone.layer4[0].weight for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_finished_run_is_not_trained_again(tiny, stores, tmp_path, monkeypatch):
    folder = train(tiny(), tmp_path, data=stores)
    before = (folder / "metrics.csv").read_text()
    monkeypatch.setattr(Job, "run", lambda self: pytest.fail("trained again"))
    assert train(tiny(), tmp_path, data=stores) == folder
    assert (folder / "metrics.csv").read_text() == before


def test_another_recipe_in_the_same_folder_is_refused_by_its_key(tiny, stores, tmp_path):
    train(tiny(), tmp_path, data=stores, evaluate=False)
    with pytest.raises(FieldmarkError, match=r"stages\.0\.optimizer\.lr was 0\.1 and now is 0\.2"):
        train(tiny("--stages.classify.optimizer.lr", "0.2"), tmp_path, data=stores)
    assert train(tiny("--stages.classify.epochs", "1"), tmp_path, resume=False, data=stores, evaluate=False)


def test_a_folder_that_is_not_a_run_is_left_alone(tiny, stores, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("precious")
    with pytest.raises(FieldmarkError, match="not a run"):
        train(tiny(), tmp_path, resume=False, data=stores)
    assert (tmp_path / "tiny" / "thesis.txt").read_text() == "precious"


def test_divergence_is_one_line_and_leaves_no_damaged_checkpoint(tiny, stores, tmp_path):
    with pytest.raises(FieldmarkError, match=r"diverged.*classify.*lower its learning rate") as caught:
        train(tiny("--stages.classify.optimizer.lr", "1e18"), tmp_path, data=stores)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tiny/stages/classify/last.ckpt").exists()


def test_a_damaged_checkpoint_is_named(tiny, stores, tmp_path):
    folder = train(tiny(), tmp_path, data=stores, evaluate=False)
    (folder / "stages/episodes/done.json").unlink()
    (folder / "stages/episodes/last.ckpt").write_bytes(b"half a file")
    with pytest.raises(FieldmarkError, match=r"last\.ckpt is not a readable checkpoint"):
        train(tiny(), tmp_path, data=stores)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_inside_an_epoch_and_the_next_run_goes_on_bit_exactly(
    tiny, stores, tmp_path, monkeypatch, number
):
    whole = train(tiny("--name", "whole"), tmp_path, data=stores, evaluate=False)
    from fieldmark.training.module import TrainingModule

    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):
        if batch["step"] == 5:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_index)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(TrainingInterrupted, match=r"step 6 of 8 \(epoch 1 of 2 complete\) is saved"):
            train(tiny(), tmp_path, data=stores, evaluate=False)
    assert signal.getsignal(number) == before
    resumed = train(tiny(), tmp_path, data=stores, evaluate=False)
    assert same_run(whole, resumed)


def same_run(first, second) -> bool:
    """Bit-identical weights and measurements."""
    one, two = load_model(first)[0].state_dict(), load_model(second)[0].state_dict()
    rows = [
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())
        ]
        for run in (first, second)
    ]
    return rows[0] == rows[1] and all(torch.equal(one[name], two[name]) for name in one)


def test_statistics_of_frozen_batch_norms_stay(tiny, stores, tmp_path):
    recipe = tiny("--stages.episodes.freeze", "[backbone.layer1*]")
    folder = train(recipe, tmp_path, data=stores, evaluate=False)
    first = load_state(folder / "stages/classify/best.ckpt")["model"]
    last = load_state(folder / "stages/episodes/last.ckpt")["model"]
    changed = {name for name in last if name.startswith("encoder") and not torch.equal(first[name], last[name])}
    assert not any("layer1" in name for name in changed)
    assert "encoder.backbone.layer2.1.running_mean" in changed


def test_a_freeze_pattern_that_fits_nothing_is_refused(tiny, stores, tmp_path):
    with pytest.raises(FieldmarkError, match=r"'backbone\.conv1' fits no module"):
        train(tiny("--stages.classify.freeze", "[backbone.conv1]"), tmp_path, data=stores)


def test_a_stage_can_start_from_a_model_file_and_inherits_what_that_has_seen(tiny, stores, tmp_path):
    first = train(tiny("--name", "first"), tmp_path, data=stores, evaluate=False)
    other = {**stores, "train": stores["train"].select_classes(["train 1", "train 2", "train 3", "train 4", "train 5"])}
    second = train(tiny("--stages.classify.start", str(first)), tmp_path, data=other, evaluate=False)
    assert load_model(second)[1]["training_classes"]["patterns"] == [f"train {i}" for i in range(6)]
    with pytest.raises(FieldmarkError, match="holds a 'conv4' backbone"):
        train(
            tiny("--name", "third", "--stages.classify.start", str(first), "--backbone.options.channels", "4"),
            tmp_path, data=stores,
        )  # fmt: skip


def test_evaluating_on_training_classes_is_refused(tiny, stores, tmp_path):
    with pytest.raises(FieldmarkError, match="classes were in the model's training"):
        train(tiny("--evaluations.0.split", "train"), tmp_path, data=stores)


@pytest.mark.parametrize("choice", ["allow", "leave_out"])
def test_test_classes_that_were_trained_on_are_named_or_left_out(tiny, stores, tmp_path, choice):
    from fieldmark.data import ImageStore

    names = ["train 2", *stores["test"].class_names[1:]]
    test = stores["test"]
    mixed = ImageStore.from_arrays(test.images, test.labels, names, test.manifest)
    words = ("--evaluations.0.seen_classes", choice, "--evaluations.0.way", "5")
    folder = train(tiny(*words), tmp_path, data={**stores, "test": mixed})
    (row,) = json.loads(next((folder / "results").glob("*.json")).read_text())["rows"]
    assert row["leaked_classes"] == (["train 2"] if choice == "allow" else [])
    assert row.get("left_out_classes", []) == (["train 2"] if choice == "leave_out" else [])
    assert set(row["class_accuracies"]) == set(names) - set(row.get("left_out_classes", []))


def test_the_embedding_is_analysed_while_it_is_trained(tiny, stores, tmp_path):
    """The columns of the last epoch are those of the finished model; they change nothing else."""
    from fieldmark.evaluation.analysis import measure_embedding

    key = "--stages.classify.validation"
    plain, analysed = (
        train(tiny("--name", name, f"{key}.analysis", value), tmp_path, data=stores, evaluate=False)
        for name, value in (("plain", "false"), ("analysed", "true"))
    )
    rows = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (plain, analysed)]
    assert "val_davies_bouldin" not in rows[0][0]
    for one, other in zip(*rows, strict=True):
        assert {key: other[key] for key in one if key != "seconds"} == {k: one[k] for k in one if k != "seconds"}
    encoder, _ = load_model(analysed)
    states = [load_state(analysed / "stages/classify" / name)["model"] for name in ("last.ckpt",)]
    own = {key.removeprefix("encoder."): value for key, value in states[0].items() if key.startswith("encoder.")}
    encoder.load_state_dict(own)
    found = measure_embedding(encoder, stores["val"])
    last = rows[1][1]
    assert float(last["val_davies_bouldin"]) == pytest.approx(found["davies_bouldin"], rel=1e-4)
    assert float(last["val_effective_rank"]) == pytest.approx(found["effective_rank"], rel=1e-4)
    assert any((analysed / "tensorboard").rglob("events*"))
