"""Distillation against its equations, and a teacher that never moves."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import ImageBatch

CHANNELS, CLASSES = 5, 3


def batch():
    return ImageBatch(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]))


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2), nn.BatchNorm2d(CHANNELS))


def made(teacher, **options):
    torch.manual_seed(0)
    objective = methods.create("distillation", **options)
    objective.setup(CHANNELS, CLASSES)
    torch.manual_seed(9)
    classifier = nn.Linear(CHANNELS, CLASSES)
    learned = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    objective.set_teacher(teacher, {**learned, "spatial.heads": torch.zeros(1)})
    return objective, classifier


def distance(first, second):
    """Eq. 10 for two lists of vectors: the mean squared distance of the unit vectors."""
    total = 0.0
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        lengths = [math.sqrt(sum(x * x for x in one)) for one in (a, b)]
        total += sum((x / lengths[0] - y / lengths[1]) ** 2 for x, y in zip(a, b, strict=True))
    return total / len(first)


def divergence(scores, wanted, temperature):
    """Hinton et al. 2015: KL of the softened predictions from the teacher's, times the squared temperature."""
    total = 0.0
    for student, teacher in zip(scores.tolist(), wanted.tolist(), strict=True):
        p, q = ([math.exp(x / temperature) / sum(math.exp(y / temperature) for y in one) for x in one]
                for one in (teacher, student))  # fmt: skip
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(scores) * temperature**2


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)], ids=["global", "spatial", "both"])
def test_the_loss_is_its_equation(shares):
    teacher, student = network(1).eval(), network(2)
    alpha, beta = shares
    objective, classifier = made(teacher, cd=3.0, kl=2.0, alpha=alpha, beta=beta, temperature=2.5)
    out = objective(student, batch())
    with torch.no_grad():
        mine, target = copy.deepcopy(student).train()(batch().images), teacher(batch().images)
        pooled = [one.mean((2, 3)) for one in (mine, target)]
        places = [one.permute(0, 2, 3, 1).flatten(0, 2) for one in (mine, target)]
        expected = 3.0 * (alpha * distance(*pooled) + beta * distance(*places))
        apart = divergence(objective.classifier(pooled[0]), classifier(pooled[1]), 2.5)
    assert out["divergence"].item() == pytest.approx(apart, rel=1e-4)
    assert out["loss"].item() == pytest.approx(expected + 2.0 * apart, rel=1e-4)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn():
    encode = nn.Conv2d(3, CHANNELS, 3)
    objective, classifier = made(encode, beta=1.0)
    objective.classifier.load_state_dict(classifier.state_dict())
    out = objective(encode, batch())
    for name in ("loss", "global_distance", "spatial_distance", "divergence"):
        assert abs(out[name].item()) < 1e-6, name


def test_the_teacher_gets_no_gradient_and_its_statistics_do_not_move():
    teacher, student = network(1).train(), network(2)
    before = copy.deepcopy(teacher.state_dict())
    objective, _ = made(teacher)
    objective.train()
    objective(student, batch())["loss"].backward()
    held = objective.teacher
    assert not held.encoder.training
    assert not any(p.requires_grad for p in held.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in held.encoder.state_dict().items())
    assert teacher.training  # what was handed over is as it was
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad.abs().sum() > 0 for p in objective.parameters())
    assert student[0].weight.grad.abs().sum() > 0


def test_the_teacher_is_no_part_of_what_is_trained_or_saved():
    objective, _ = made(network(1))
    assert {name for name, _ in objective.named_parameters()} == {"classifier.weight", "classifier.bias"}
    assert set(objective.state_dict()) == {"classifier.weight", "classifier.bias"}


def test_the_teacher_stays_as_it_was_while_the_handed_model_goes_on_learning():
    model = network(1)
    objective, _ = made(model.eval())
    before = objective.teacher.encode(batch().images)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert torch.equal(objective.teacher.encode(batch().images), before)


def test_features_alone_need_no_classifier():
    objective = methods.create("distillation", kl=0)
    objective.setup(CHANNELS, CLASSES)
    objective.set_teacher(network(1), {})
    out = objective(network(2), batch())
    assert set(out) == {"loss", "accuracy", "global_distance"}
    assert not list(objective.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": -1}, "kl of objective distillation is -1; expected 0 or more"),
        ({"temperature": 0}, "temperature of objective distillation is 0"),
        ({"kl": 0, "cd": 0}, "has nothing to learn"),
        ({"kl": 0, "alpha": 0}, "has nothing to learn"),
    ],
)
def test_wrong_options_are_refused_where_the_objective_is_made(options, message):
    with pytest.raises(FieldmarkError, match=message):
        methods.create("distillation", **options)


def test_a_teacher_that_does_not_fit_is_refused_by_what_is_wrong():
    objective = methods.create("distillation")
    objective.setup(CHANNELS, CLASSES)
    with pytest.raises(FieldmarkError, match="has no teacher"):
        objective(network(1), batch())
    with pytest.raises(FieldmarkError, match="the teacher has no classifier"):
        objective.set_teacher(network(1), {})
    weights = {"classifier.weight": torch.zeros(7, CHANNELS), "classifier.bias": torch.zeros(7)}
    with pytest.raises(FieldmarkError, match="classifies 7 classes and the training split has 3"):
        objective.set_teacher(network(1), weights)
    objective, _ = made(nn.Conv2d(3, CHANNELS + 1, 3), cd=1.0, kl=0)
    with pytest.raises(FieldmarkError, match=r"the student's maps are \(5, 3, 3\) and the teacher's \(6, 6, 6\)"):
        objective(network(1), batch())
