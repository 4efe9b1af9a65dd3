"""Every registered objective, and each against its equation written as a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import OBJECTIVES, EpisodeBatch, ImageBatch
from fieldmark.methods.cross_entropy import rotate_by_90

WAY, SHOT, QUERIES = 3, 2, 4


def images(*shape):
    return torch.rand(*shape, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batches():
    labels = torch.arange(WAY)
    return {
        "images": ImageBatch(images(6), torch.tensor([0, 1, 2, 0, 1, 2])),
        "episodes": EpisodeBatch(
            images(2, WAY * SHOT), labels.repeat_interleave(SHOT).repeat(2, 1),
            images(2, WAY * QUERIES), labels.repeat_interleave(QUERIES).repeat(2, 1), WAY,
        ),
    }  # fmt: skip


@pytest.fixture
def encode():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 5, 3, stride=2)


def made(name):
    """The objective, ready for maps of five channels and three classes, with a teacher where it needs one."""
    objective = methods.create(name)
    objective.setup(channels=5, classes=3)
    if objective.needs_teacher:
        torch.manual_seed(7)
        learned = {"classifier.weight": torch.randn(3, 5), "classifier.bias": torch.randn(3)}
        objective.set_teacher(torch.nn.Conv2d(3, 5, 3, stride=2), learned)
    return objective


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_gives_a_finite_loss_with_gradients_to_everything_it_trains(name, batches, encode):
    objective = made(name)
    out = objective(encode, batches[objective.sampling])
    assert out["loss"].ndim == 0
    assert torch.isfinite(out["loss"])
    assert all(value.ndim == 0 for value in out.values())
    assert 0 <= out["accuracy"] <= 1
    out["loss"].backward()
    trained = [*encode.parameters(), *objective.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert OBJECTIVES.get(name).source


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_learns(name, batches, encode):
    objective = made(name)
    optimizer = torch.optim.Adam([*encode.parameters(), *objective.parameters()], lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective(encode, batches[objective.sampling])["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_cross_entropy_is_its_equation(batches, encode):
    objective = methods.create("cross_entropy")
    objective.setup(5, 3)
    batch = batches["images"]
    total = 0.0
    for image, label in zip(batch.images, batch.labels, strict=True):
        feature = encode(image[None])[0].mean((1, 2))
        scores = objective.classifier.weight @ feature + objective.classifier.bias
        total -= math.log(scores.softmax(0)[label].item())
    assert objective(encode, batch)["loss"].item() == pytest.approx(total / 6, rel=1e-5)


def pooled(encode, episode):
    return [encode(image[None])[0].mean((1, 2)) for image in episode]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_protonet_is_equation_2(batches, encode, scale):
    batch, total = batches["episodes"], 0.0
    for e in range(2):
        support, query = pooled(encode, batch.support[e]), pooled(encode, batch.query[e])
        prototypes = [sum(support[c * SHOT : (c + 1) * SHOT]) / SHOT for c in range(WAY)]
        for vector, label in zip(query, batch.query_labels[e], strict=True):
            scores = torch.stack([-scale * ((vector - p) ** 2).sum() for p in prototypes])
            total -= torch.log_softmax(scores, 0)[label].item()
    loss = methods.create("protonet", scale=scale)(encode, batch)["loss"].item()
    assert loss == pytest.approx(total / (2 * WAY * QUERIES), rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_matching_net_is_equation_1(batches, encode, scale):
    batch, total = batches["episodes"], 0.0
    for e in range(2):
        support, query = pooled(encode, batch.support[e]), pooled(encode, batch.query[e])
        for vector, label in zip(query, batch.query_labels[e], strict=True):
            cosines = torch.stack([torch.cosine_similarity(vector, s, dim=0) for s in support])
            attention = (scale * cosines).softmax(0)
            probability = sum(attention[i] for i in range(WAY * SHOT) if i // SHOT == int(label))
            total -= math.log(float(probability.detach()))
    loss = methods.create("matching_net", scale=scale)(encode, batch)["loss"].item()
    assert loss == pytest.approx(total / (2 * WAY * QUERIES), rel=1e-4)


def test_every_image_is_turned_by_its_own_angle():
    pictures = images(8)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    for picture, turn, found in zip(pictures, turns, rotate_by_90(pictures, turns), strict=True):
        assert torch.equal(found, torch.rot90(picture, int(turn), (1, 2)))
    with pytest.raises(FieldmarkError, match="needs square ones"):
        rotate_by_90(torch.zeros(1, 3, 4, 5), torch.tensor([1]))


@pytest.mark.parametrize("angles", ["one", "all"])
def test_the_rotation_loss_is_added_with_its_weight(batches, encode, angles):
    objective = methods.create("cross_entropy", rotation="self_supervised", angles=angles, rotation_weight=0.25)
    objective.setup(5, 3)
    torch.manual_seed(1)
    out = objective(encode, batches["images"])
    plain = methods.create("cross_entropy", rotation="augment", angles=angles)
    plain.setup(5, 3)
    plain.classifier.load_state_dict(objective.classifier.state_dict())
    torch.manual_seed(1)
    alone = plain(encode, batches["images"])["loss"]
    assert out["loss"].item() == pytest.approx(alone.item() + 0.25 * out["rotation_loss"].item(), rel=1e-5)


def test_all_four_angles_of_every_image_are_used(batches):
    objective = methods.create("cross_entropy", rotation="augment", angles="all")
    objective.setup(3, 3)
    seen = []
    objective(lambda pictures: seen.append(pictures) or pictures, batches["images"])
    expected = torch.cat([torch.rot90(batches["images"].images, k, (2, 3)) for k in range(4)])
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": "selfsupervised"}, "did you mean 'self_supervised'"),
        ({"angles": "al"}, "unknown angles"),
        ({"rotation_weight": 0}, "rotation_weight of objective cross_entropy is 0"),
    ],
)
def test_wrong_options_are_refused_where_the_objective_is_made(options, message):
    with pytest.raises(FieldmarkError, match=message):
        methods.create("cross_entropy", **options)
