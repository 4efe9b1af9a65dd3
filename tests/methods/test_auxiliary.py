"""Auxiliary losses beside the loss on episodes: what they see, what they add, what they learn."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import EpisodeBatch
from fieldmark.methods.auxiliary import Jigsaw, Rotation, cut_tiles, tile_orders

WAY, SHOT, QUERIES, CHANNELS = 3, 2, 3, 5
NAMES = ["gc", "sc", "ss_gc", "ss_sc", "rotation", "jigsaw"]


def batch(second=True, episodes=2):
    generator = torch.Generator().manual_seed(0)
    support, query, other = (
        torch.rand(episodes, count, 3, 24, 24, generator=generator)
        for count in (WAY * SHOT, WAY * QUERIES, WAY * (SHOT + QUERIES))
    )
    labels = torch.arange(WAY)
    return EpisodeBatch(
        support, labels.repeat_interleave(SHOT).repeat(episodes, 1),
        query, labels.repeat(QUERIES).repeat(episodes, 1), WAY, other if second else None,
    )  # fmt: skip


@pytest.fixture
def encode():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, CHANNELS, 3, stride=2)


def made(*names, **options):
    torch.manual_seed(0)
    objective = methods.create("protonet", auxiliary=list(names), **options)
    objective.setup(CHANNELS, 10)
    return objective


@pytest.mark.parametrize("name", NAMES)
def test_an_auxiliary_loss_is_added_with_its_weight_and_leaves_the_episode_loss_alone(name, encode):
    plain = methods.create("protonet")(encode, batch())
    torch.manual_seed(3)
    out = made(name, auxiliary_weight=0.25)(encode, batch())
    assert out["episode_loss"].item() == pytest.approx(plain["loss"].item(), rel=1e-5)
    assert out["accuracy"] == plain["accuracy"]
    assert out["loss"].item() == pytest.approx(plain["loss"].item() + 0.25 * out[f"{name}_loss"].item(), rel=1e-5)
    assert out[f"{name}_loss"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_backbone_and_what_the_loss_learns(name, encode):
    objective = made(name)
    out = objective(encode, batch())
    (out["loss"] - methods.create("protonet")(encode, batch())["loss"]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert encode.weight.grad.abs().sum() > 1e-6


@pytest.mark.parametrize("name", ["gc", "sc", "ss_gc", "ss_sc"])
def test_contrast_is_scl_on_support_and_query_with_their_second_view_in_each_episode(name, encode):
    """The same heads under the objective `scl`, episode by episode."""
    objective = made(name, auxiliary_options={"inner": 4, "pool": 2})
    out = objective(encode, batch())
    given, losses = batch(), []
    spatial = name.endswith("sc")
    scl = methods.create(
        "scl", ce=0, sc=float(spatial), gc=float(not spatial), inner=4, pool=2,
        positives="self_supervised" if name.startswith("ss") else "supervised",
    )  # fmt: skip
    scl.setup(CHANNELS, WAY)
    (scl.spatial if spatial else scl.pooled).load_state_dict(objective.auxiliaries.losses[name].loss.state_dict())
    for episode in range(2):
        images = torch.cat([given.support[episode], given.query[episode], given.second[episode]])
        labels = torch.cat([given.support_labels[episode], given.query_labels[episode]]).repeat(2)
        losses.append(scl(encode, methods.ImageBatch(images, labels, 2))["loss"])
    assert out[f"{name}_loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_all_images_are_encoded_in_one_batch_for_contrast_and_pretext_images_in_their_own():
    seen = []
    encode = torch.nn.Conv2d(3, CHANNELS, 3, stride=2)
    objective = made("ss_gc", "sc", "rotation", "jigsaw")
    objective(lambda images: seen.append(tuple(images.shape)) or encode(images), batch())
    count = 2 * WAY * (SHOT + QUERIES)
    assert seen == [(2 * count, 3, 24, 24), (count, 3, 24, 24), (9 * count, 3, 12, 12)]


def test_a_second_view_is_not_encoded_where_nothing_compares():
    seen = []
    encode = torch.nn.Conv2d(3, CHANNELS, 3, stride=2)
    made("rotation")(lambda images: seen.append(len(images)) or encode(images), batch())
    assert seen == [30, 30]


def test_contrast_without_a_second_view_is_refused_with_what_to_do(encode):
    with pytest.raises(FieldmarkError, match="give the recipe a second_view"):
        made("ss_sc")(encode, batch(second=False))
    assert made("rotation")(encode, batch(second=False))["loss"] > 0


def test_without_auxiliary_losses_nothing_is_learned_beside_the_backbone(encode):
    objective = made()
    assert not objective.state_dict()
    assert set(objective(encode, batch())) == {"loss", "accuracy"}


def test_rotation_names_the_angle_of_every_image():
    """With features that betray the angle, and a classifier that reads them, every answer is right."""
    rotation = Rotation()
    rotation.setup(4)
    with torch.no_grad():
        rotation.classifier.weight.copy_(20 * torch.eye(4))
        rotation.classifier.bias.zero_()
    corner = torch.zeros(1, 12, 3, 8, 8)
    corner[..., 0, 0] = 1.0  # turned counter-clockwise: bottom left, bottom right, top right
    read = lambda images: images[:, 0][:, [0, -1, -1, 0], [0, 0, -1, -1]][..., None, None]  # noqa: E731
    torch.manual_seed(0)
    out = rotation(read, corner, torch.zeros(1, 1, 12, 4, 1, 1), torch.zeros(1, 12, dtype=torch.long))
    assert out["accuracy"] == 1


def test_jigsaw_lays_the_tiles_in_the_order_that_is_asked_for():
    """Tiles of one number each: what is encoded is that order, and the answer is its number."""
    image = torch.arange(9.0).view(3, 3).repeat_interleave(8, 0).repeat_interleave(8, 1).expand(1, 6, 3, 24, 24)
    jigsaw, seen = Jigsaw(), []
    jigsaw.setup(3)
    torch.manual_seed(0)
    scores = []
    jigsaw.classifier.register_forward_hook(lambda module, inputs, output: scores.append(output.detach()))
    out = jigsaw(lambda tiles: seen.append(tiles) or tiles, image, image[None], torch.zeros(1, 6, dtype=torch.long))
    laid = seen[0].mean((1, 2, 3)).round().long().view(6, 9)
    chosen = torch.tensor([tile_orders(35).tolist().index(row) for row in laid.tolist()])
    assert len(chosen.unique()) > 1
    assert out["loss"].item() == pytest.approx(F.cross_entropy(scores[0], chosen).item(), rel=1e-6)


def test_tiles_stay_in_their_cells_and_are_cut_at_random_places():
    cells = torch.arange(9.0).view(3, 3).repeat_interleave(8, 0).repeat_interleave(8, 1).expand(2, 3, 24, 24)
    tiles = cut_tiles(cells)
    assert torch.equal(tiles, torch.arange(9.0).view(1, 9, 1, 1, 1).expand_as(tiles))
    ramp = torch.arange(24.0).expand(1, 3, 24, 24)
    assert len({cut_tiles(ramp)[0, 0, 0, 0, 0].item() for _ in range(20)}) == 3
    with pytest.raises(FieldmarkError, match="needs at least 6 pixels"):
        cut_tiles(torch.zeros(1, 3, 5, 24))


def test_any_two_orders_agree_in_at_most_one_tile():
    orders = tile_orders(72)
    assert all(sorted(order) == list(range(9)) for order in orders.tolist())
    assert max((a == b).sum().item() for a, b in itertools.combinations(orders, 2)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary": ["ss_cs"]}, "unknown auxiliary loss 'ss_cs'; did you mean 'ss_sc'"),
        ({"auxiliary": ["gc", "gc"]}, "auxiliary loss 'gc' is named twice"),
        ({"auxiliary": ["gc"], "auxiliary_weight": 0}, "auxiliary_weight of objective protonet is 0"),
        ({"auxiliary": ["gc"], "auxiliary_options": {"iner": 3}}, "did you mean 'inner'"),
        ({"auxiliary": ["rotation"], "auxiliary_options": {"inner": 3}}, "unknown option of the auxiliary losses"),
        (
            {"auxiliary": ["jigsaw"], "auxiliary_options": {"permutations": 73}},
            "is 73; expected 2 to 72",
        ),
        ({"auxiliary": ["sc"], "auxiliary_options": {"temperature": 0}}, "temperature of auxiliary loss is 0"),
    ],
)
def test_wrong_options_are_refused_where_the_objective_is_made(options, message):
    with pytest.raises(FieldmarkError, match=message):
        methods.create("protonet", **options)
