"""Batches against plain loops, and properties that make resuming and several processes exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fieldmark import backbones, methods
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.training.loaders import EpisodeBatches, ImageBatches, Rank, balanced_order
from fieldmark.training.module import TrainingModule
from fieldmark.training.optim import learning_rate_factor, make_optimizer, make_schedule
from fieldmark.training.schema import EpisodeSpec, NamedSpec, OptimizerSpec, ScheduleSpec, Stage

KEY = (0, "stage")


@pytest.fixture
def store(stores):
    return stores["train"]


def test_an_epoch_is_a_permutation_and_the_next_is_another(store):
    batches = list(ImageBatches(store, 8, 2, KEY))
    assert [batch["step"] for batch in batches] == list(range(18))
    epochs = [torch.cat([b["images"] for b in batches[half]]) for half in (slice(0, 9), slice(9, 18))]
    everything = torch.from_numpy(np.ascontiguousarray(store.images)).permute(0, 3, 1, 2)
    sums = [sorted(one.sum((1, 2, 3), dtype=torch.int64).tolist()) for one in (*epochs, everything)]
    assert sums[0] == sums[1] == sums[2]
    assert not torch.equal(*epochs)


def test_labels_belong_to_their_images(store):
    for batch in ImageBatches(store, 8, 1, KEY):
        for image, label in zip(batch["images"], batch["labels"], strict=True):
            same = [i for i in range(len(store)) if torch.equal(store.gather([i])[0], image)]
            assert [int(store.labels[i]) for i in same] == [int(label)]


@pytest.mark.parametrize("start", [0, 1, 9, 13, 18])
def test_starting_later_gives_the_same_batches(store, start):
    whole = list(ImageBatches(store, 8, 2, KEY))[start:]
    later = ImageBatches(store, 8, 2, KEY, start=start)
    assert len(later) == len(whole)
    for one, two in zip(whole, later, strict=True):
        assert one["step"] == two["step"]
        assert torch.equal(one["images"], two["images"])
        assert torch.equal(one["labels"], two["labels"])


def test_balanced_batches_hold_so_many_images_of_so_many_classes(store):
    epochs = [list(ImageBatches(store, 8, 1, (seed, "stage"), images_per_class=4)) for seed in range(3)]
    assert [len(batches) for batches in epochs] == [9] * 3
    seen = set()
    for batch in (batch for batches in epochs for batch in batches):
        classes, counts = np.unique(batch["labels"], return_counts=True)
        assert counts.tolist() == [4, 4]
        assert len({image.numpy().tobytes() for image in batch["images"]}) == 8
        seen |= set(classes.tolist())
    assert seen == set(range(6))


def test_a_class_with_too_few_images_repeats_them_evenly():
    order = balanced_order(np.array([0, 0, 1, 1, 1, 1, 1]), 10, 5, 4, np.random.default_rng(0)).reshape(4, 10)
    for batch in order:
        counts = np.bincount(batch, minlength=7)
        assert sorted(counts[:2].tolist()) == [2, 3]
        assert counts[2:].tolist() == [1] * 5


@pytest.mark.parametrize("start", [1, 9, 13])
def test_balanced_batches_start_anywhere_and_are_shared(store, start):
    options = {"batch_size": 8, "epochs": 2, "key": KEY, "images_per_class": 4}
    whole = list(ImageBatches(store, **options))[start:]
    later = list(ImageBatches(store, **options, start=start))
    shares = [list(ImageBatches(store, **options, start=start, rank=Rank(index, 2))) for index in range(2)]
    for number, (one, two) in enumerate(zip(whole, later, strict=True)):
        assert torch.equal(one["images"], two["images"])
        parts = [share[number]["labels"] for share in shares]
        assert sorted(torch.cat(parts).tolist()) == sorted(one["labels"].tolist())
        assert [np.unique(part, return_counts=True)[1].tolist() for part in parts] == [[2, 2]] * 2


@pytest.mark.parametrize(
    ("batch_size", "per_class", "message"),
    [(8, 3, "choose a multiple of images_per_class"), (16, 2, "needs 8 classes")],
)
def test_batches_that_cannot_be_balanced_are_refused(store, batch_size, per_class, message):
    with pytest.raises(FieldmarkError, match=message):
        ImageBatches(store, batch_size, 1, KEY, images_per_class=per_class)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_see_what_one_sees(store, world):
    whole = list(ImageBatches(store, 8, 1, KEY))
    shares = [list(ImageBatches(store, 8, 1, KEY, Rank(index, world))) for index in range(world)]
    for step, batch in enumerate(whole):
        parts = torch.cat([share[step]["images"] for share in shares])
        assert sorted(parts.flatten(1).tolist()) == sorted(batch["images"].flatten(1).tolist())


def test_episodes_are_shared_by_index_and_start_anywhere(store):
    spec = EpisodeSpec(way=3, shot=2, queries=4, episodes_per_epoch=4, episodes_per_step=2)
    whole = list(EpisodeBatches(store, spec, 2, KEY))
    assert [batch["images"].shape[0] for batch in whole] == [2 * 3 * (2 + 4)] * 4
    assert whole[0]["support_labels"].tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    later = list(EpisodeBatches(store, spec, 2, KEY, start=3))
    assert torch.equal(later[0]["images"], whole[3]["images"])
    assert not torch.equal(whole[0]["images"], whole[2]["images"])
    shares = [list(EpisodeBatches(store, spec, 2, KEY, Rank(index, 2))) for index in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([share[step]["images"] for share in shares]), batch["images"])


def test_what_cannot_be_split_is_refused(store):
    with pytest.raises(FieldmarkError, match="batch_size 9 cannot be split over 2 processes"):
        ImageBatches(store, 9, 1, KEY, Rank(0, 2))
    with pytest.raises(FieldmarkError, match="episodes_per_step 1 cannot be split"):
        EpisodeBatches(store, EpisodeSpec(), 1, KEY, Rank(0, 2))
    with pytest.raises(FieldmarkError, match="shot"):
        EpisodeBatches(store, EpisodeSpec(shot=10), 1, KEY)


def test_a_batch_larger_than_the_data_is_the_data(store):
    assert [len(batch["labels"]) for batch in ImageBatches(store, 1000, 2, KEY)] == [72, 72]


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (ScheduleSpec("step", step_size=2, gamma=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)),
        (
            ScheduleSpec("multistep", milestones=[2, 5]),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5], 0.1),
        ),
        (ScheduleSpec("cosine"), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6)),
        (ScheduleSpec("constant"), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_schedules_agree_with_torch_at_the_epochs(spec, reference):
    weight = torch.nn.Parameter(torch.zeros(1))
    ours, theirs = (torch.optim.SGD([weight], lr=0.3) for _ in range(2))
    one, two = make_schedule(spec, ours, 6, steps_per_epoch=10), reference(theirs)
    for _ in range(6):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        ours.step(), theirs.step()
        for _ in range(10):
            one.step()
        two.step()


def test_warm_up_rises_to_the_schedule():
    spec = ScheduleSpec("cosine", warmup=2)
    factors = [learning_rate_factor(spec, epoch, 10) for epoch in (0, 1, 2, 6, 10)]
    assert factors == pytest.approx([0.01, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize(("loss", "rates"), [("arcface", {0.5, 0.125}), ("contrastive", {0.5})])
def test_what_the_objective_learns_can_have_its_own_rate(loss, rates):
    """With a constant gradient direction, one step of Adam moves every weight by its group's learning rate."""
    encoder = Encoder(backbones.create("conv4", channels=4, project=3), (0.5,) * 3, (0.25,) * 3)
    objective = methods.create("metric_learning", loss=loss)
    objective.setup(3, 2)
    stage = Stage("a", NamedSpec("metric_learning"), 1, optimizer=OptimizerSpec("adam", lr=0.5, objective_lr=0.125))
    stage.freeze = ["backbone.trunk*"]
    module = TrainingModule(encoder, objective, None, stage, KEY, 10)
    made = module.configure_optimizers()["optimizer"]
    assert {group["initial_lr"] for group in made.param_groups} == rates
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for group in made.param_groups:
        group["lr"], group["weight_decay"] = group["initial_lr"], 0  # without the schedule
    for p in module.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    made.step()
    for name, p in module.named_parameters():
        moved = 0.125 if name.startswith("objective") else 0 if "trunk" in name else 0.5
        torch.testing.assert_close(before[name] - p, torch.full_like(p, moved), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimisers(name, kind):
    made = make_optimizer(OptimizerSpec(name, lr=0.2, weight_decay=0.3), [torch.nn.Parameter(torch.zeros(1))])
    assert type(made).__name__ == kind
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (0.2, 0.3)
