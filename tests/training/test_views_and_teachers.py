"""Two views of every image, teachers handed from stage to stage, and both across interruptions."""

from __future__ import annotations

import csv
import json
import os
import signal

import pytest
import torch

from fieldmark import methods
from fieldmark.backbones import load_model
from fieldmark.data.augment import create_pipeline
from fieldmark.errors import FieldmarkError
from fieldmark.training import TrainingInterrupted, train
from fieldmark.training.checkpoints import load_state
from fieldmark.training.module import TrainingModule
from fieldmark.training.schema import NamedSpec, Stage

VIEWS = {"augmentation": ["flip"], "second_view": ["random_resized_crop", "grayscale"]}
SCL = {
    "name": "pretrain", "objective": {"name": "scl", "options": {"inner": 4}}, "epochs": 2, "batch_size": 16,
    "optimizer": {"lr": 0.02},
}  # fmt: skip


def student(name, **changes):
    return {
        "name": name, "objective": "distillation", "start": "scratch", "second_view": [], "epochs": 2,
        "batch_size": 16, "optimizer": {"lr": 0.01}, **changes,
    }  # fmt: skip


def interrupt(monkeypatch, stage, at):
    """Ctrl-C in a step of a stage; takes effect after that step."""
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_index):
        if self.stage.name == stage and batch["step"] == at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)


def rows(folder):
    found = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def prepared(tiny, *steps, **views):
    """What an objective is given in these steps, as (images, labels, views)."""
    seen = []

    class Watch(methods.Objective):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, encode, batch):
            seen.append(batch)
            return {"loss": self.weight}

    from fieldmark import backbones
    from fieldmark.backbones import Encoder

    made = {name: create_pipeline(specs, 16) if specs else None for name, specs in views.items()}
    encoder = Encoder(backbones.create("conv4", channels=4), (0.5,) * 3, (0.5,) * 3)
    module = TrainingModule(encoder, Watch(), made.get("first"), Stage("a", NamedSpec("scl"), 1), (0, "a"), 9,
                            made.get("second"))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)
    for step in steps:
        module.training_step({"step": step, "images": images, "labels": torch.tensor([4, 1, 0, 2, 2])}, 0)
    return images, seen


def test_the_second_half_of_a_batch_is_the_second_view_of_the_same_images_in_the_same_order(tiny):
    images, (batch,) = prepared(tiny, 0, first=[], second=[{"name": "grayscale", "p": 1.0}])
    assert batch.views == 2
    assert batch.labels.tolist() == [4, 1, 0, 2, 2] * 2
    plain = images.float() / 255
    assert torch.equal(batch.images[:5], plain)
    grey = 0.2989 * plain[:, 0] + 0.587 * plain[:, 1] + 0.114 * plain[:, 2]
    torch.testing.assert_close(batch.images[5:], grey[:, None].expand(5, 3, 16, 16))


def test_every_view_is_drawn_from_the_step_alone_and_the_first_is_what_it_is_without_a_second(tiny):
    crops = ["random_resized_crop"]
    _, (one, two) = prepared(tiny, 3, 4, first=crops, second=crops)
    _, (again,) = prepared(tiny, 4, first=crops, second=crops)
    _, (alone,) = prepared(tiny, 4, first=crops)
    assert torch.equal(two.images, again.images)
    assert not torch.equal(one.images, two.images)
    assert not torch.equal(two.images[:5], two.images[5:])
    assert torch.equal(two.images[:5], alone.images)
    assert alone.views == 1


def test_views_of_two_sizes_are_refused(tiny):
    with pytest.raises(FieldmarkError, match=r"the first view has \(16, 16\) pixels and the second \(8, 8\)"):
        prepared(tiny, 0, first=["flip"], second=[{"name": "random_resized_crop", "size": 8}])


def test_a_stage_has_its_own_second_view_or_the_recipes(tiny, stores, tmp_path, monkeypatch):
    seen = []
    forward = methods.CrossEntropy.forward
    monkeypatch.setattr(
        methods.CrossEntropy, "forward", lambda self, encode, batch: seen.append(batch) or forward(self, encode, batch)
    )
    stages = [
        {"name": "both", "objective": "cross_entropy", "epochs": 1, "steps_per_epoch": 1, "batch_size": 8},
        {"name": "one", "objective": "cross_entropy", "epochs": 1, "steps_per_epoch": 1, "batch_size": 8,
         "second_view": []},
    ]  # fmt: skip
    train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    assert [(batch.views, len(batch.images), len(batch.labels)) for batch in seen] == [(2, 16, 16), (1, 8, 8)]


def test_episodes_have_a_second_view_of_support_and_query(tiny, make_data, tmp_path):
    stores = make_data(size=32)  # a jigsaw's tiles are half as large
    stages = [{
        "name": "episodes", "epochs": 1, "episodes": {"shot": 2, "queries": 2, "episodes_per_epoch": 2},
        "objective": {"name": "protonet", "options": {"auxiliary": ["ss_sc", "gc", "rotation", "jigsaw"]}},
        "optimizer": {"lr": 0.01},
    }]  # fmt: skip
    folder = train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    (row,) = rows(folder)
    parts = [float(row[f"train_{name}_loss"]) for name in ("ss_sc", "gc", "rotation", "jigsaw")]
    assert float(row["train_loss"]) == pytest.approx(float(row["train_episode_loss"]) + 0.5 * sum(parts), rel=1e-5)
    with pytest.raises(FieldmarkError, match="give the recipe a second_view"):
        train(tiny(stages=stages, name="single"), tmp_path, data=stores, evaluate=False)


def test_an_interrupted_stage_with_two_views_goes_on_bit_exactly(tiny, stores, tmp_path, monkeypatch):
    stages = [{**SCL, "objective": {"name": "scl", "options": {"inner": 4, "gc": 1.0}}}]
    whole = train(tiny(stages=stages, name="whole", **VIEWS), tmp_path, data=stores, evaluate=False)
    with monkeypatch.context() as patch:
        interrupt(patch, "pretrain", 5)
        with pytest.raises(TrainingInterrupted, match="step 6 of 8"):
            train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    resumed = train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    assert rows(whole) == rows(resumed)
    assert {"train_cross_entropy", "train_spatial_contrast", "train_global_contrast"} <= set(rows(whole)[0])
    one, two = (load_state(run / "stages/pretrain/last.ckpt")["model"] for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_every_generation_learns_from_the_one_before(tiny, stores, tmp_path, monkeypatch):
    """The teacher is the best model of the stage before, with its classifier; the student starts afresh."""
    taught, begun = {}, {}
    original = methods.Distillation.set_teacher
    training_step = TrainingModule.training_step

    def set_teacher(self, encoder, learned):
        original(self, encoder, learned)
        taught[len(taught)] = {"encoder": encoder.state_dict(), "learned": learned}
        taught[len(taught) - 1]["encoder"] = {k: v.clone() for k, v in encoder.state_dict().items()}

    def step(self, batch, index):
        if batch["step"] == 0:
            begun[self.stage.name] = self.encoder.backbone.state_dict()["layer1.0.weight"].clone()
        return training_step(self, batch, index)

    monkeypatch.setattr(methods.Distillation, "set_teacher", set_teacher)
    monkeypatch.setattr(TrainingModule, "training_step", step)
    stages = [SCL, student("first", validation={"queries": 4, "episodes": 10}), student("second")]
    folder = train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    for number, (stage, checkpoint) in enumerate((("pretrain", "last"), ("first", "best"))):
        left = load_state(folder / f"stages/{stage}/{checkpoint}.ckpt")["model"]
        held = taught[number]
        assert all(torch.equal(value, left[f"encoder.{name}"]) for name, value in held["encoder"].items())
        assert torch.equal(held["learned"]["classifier.weight"], left["objective.classifier.weight"])
    assert len({tuple(value.flatten().tolist()) for value in begun.values()}) == 3
    last = load_state(folder / "stages/second/last.ckpt")["model"]
    assert not any("teacher" in name for name in last)
    found = rows(folder)
    assert float(found[3]["train_divergence"]) < float(found[2]["train_divergence"])


def test_interrupted_generations_go_on_bit_exactly(tiny, stores, tmp_path, monkeypatch):
    stages = [SCL, student("first"), student("second")]
    whole = train(tiny(stages=stages, name="whole", **VIEWS), tmp_path, data=stores, evaluate=False)
    for stage in ("first", "second"):
        with monkeypatch.context() as patch:
            interrupt(patch, stage, 4)
            with pytest.raises(TrainingInterrupted, match=f"stopped in stage '{stage}'; step 5 of 8"):
                train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    resumed = train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    assert rows(whole) == rows(resumed)
    one, two = (load_model(run)[0].state_dict() for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_student_may_go_on_from_its_teacher(tiny, stores, tmp_path):
    stages = [SCL, student("first", start="previous", objective={"name": "distillation", "options": {"kl": 0}})]
    folder = train(tiny(stages=stages, **VIEWS), tmp_path, data=stores, evaluate=False)
    # Its first difference is that between training and evaluation mode: small beside a fresh student's.
    assert float(rows(folder)[2]["train_global_distance"]) < 1


def test_a_run_teaches_another_run_and_what_it_has_seen_counts(tiny, stores, tmp_path):
    teacher = train(tiny(stages=[SCL], name="teacher", **VIEWS), tmp_path, data=stores, evaluate=False)
    classes = ["train 1", "train 2", "train 3", "train 4", "train 5"]
    fewer = {**stores, "train": stores["train"].select_classes(classes)}
    told = student("first", teacher=str(teacher), objective={"name": "distillation", "options": {"kl": 0}})
    folder = train(tiny(stages=[told], **VIEWS), tmp_path, data=fewer, evaluate=False)
    assert load_model(folder)[1]["training_classes"]["patterns"] == [f"train {i}" for i in range(6)]
    assert "train_divergence" not in rows(folder)[0]
    same = train(tiny(stages=[student("a", teacher=str(teacher))], name="same"), tmp_path, data=stores, evaluate=False)
    assert float(rows(same)[0]["train_divergence"]) > 0
    with pytest.raises(FieldmarkError, match="classifies 6 classes and the training split has 5"):
        train(tiny(stages=[student("a", teacher=str(teacher))], name="other"), tmp_path, data=fewer)
    alone = tiny(stages=[student("a", teacher=str(teacher / "model.safetensors"))], name="file")  # the backbone alone
    with pytest.raises(FieldmarkError, match="the teacher has no classifier"):
        train(alone, tmp_path, data=stores)


def test_a_first_stage_without_a_teacher_is_refused_before_anything_is_read(tiny):
    with pytest.raises(FieldmarkError, match=r"stages\.a\.teacher is 'previous', and no stage is before it"):
        tiny(stages=[student("a")])


def test_evaluations_of_earlier_stages_use_their_models(tiny, stores, tmp_path, monkeypatch):
    import fieldmark.evaluation as evaluation

    seen = []
    original = evaluation.evaluate_runs

    def watched(encoder, *args, **options):
        seen.append((encoder.backbone.state_dict()["layer1.0.weight"].clone(), options))
        return original(encoder, *args, **options)

    monkeypatch.setattr(evaluation, "evaluate_runs", watched)
    evaluations = [
        {"queries": 4, "episodes": 5, "stage": "pretrain", "runs": 3, "support_copies": 2},
        {"queries": 4, "episodes": 5},
    ]
    stages = [SCL, student("first")]
    folder = train(tiny(stages=stages, evaluations=evaluations, **VIEWS), tmp_path, data=stores)
    kept = [load_state(folder / f"stages/{name}/last.ckpt")["model"] for name in ("pretrain", "first")]
    assert all(torch.equal(given, one["encoder.backbone.layer1.0.weight"])
               for (given, _), one in zip(seen, kept, strict=True))  # fmt: skip
    assert [options["support_copies"] for _, options in seen] == [2, 0]
    records = {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}
    assert set(records) == {"glyphs_test_5way_1shot_pretrain", "glyphs_test_5way_1shot"}
    assert len(records["glyphs_test_5way_1shot_pretrain"]["rows"][0]["runs"]) == 3
    with pytest.raises(FieldmarkError, match=r"'pretrian'; did you mean 'pretrain'"):
        tiny(stages=stages, evaluations=[{"stage": "pretrian"}])
