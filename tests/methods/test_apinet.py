"""API-Net against the official code's numbers, and against its equations written as loops over numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.functional import mine_pairs
from fieldmark.methods import APINet, ImageBatch
from fieldmark.methods.pairwise_interaction import Mutual, PairwiseInteraction

MUTUAL = ("mlp", "individual", "compact_bilinear", "subtract_square", "sum", "product", "weight_attention")
FILES = ("small", "singleton", "full2048")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
OURS = {"map1": "interaction.layers.0", "map2": "interaction.layers.2", "fc": "classifier.layer"}


def official_weights(data):
    """By our names; those of full2048 are not stored but drawn by rule A of the golden files."""
    stored = {key[2:]: torch.from_numpy(value) for key, value in data.items() if key.startswith("w/")}
    if not stored:
        shapes = {"fc": (200, 2048), "map1": (512, 4096), "map2": (2048, 512)}
        rng = np.random.default_rng(404)
        for name in sorted(f"{layer}.{part}" for layer in shapes for part in ("bias", "weight")):
            shape = shapes[name.split(".")[0]][: 2 if name.endswith("weight") else 1]
            stored[name] = torch.from_numpy((0.05 * rng.standard_normal(shape)).astype(np.float32))
    return {f"{OURS[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in stored.items()}


def made(data, **options):
    weights = official_weights(data)
    classes, channels = weights["classifier.layer.weight"].shape
    objective = APINet(hidden=len(weights["interaction.layers.0.weight"]), **options)
    objective.setup(channels, classes)
    objective.load_state_dict(weights)
    return objective


class Masked(nn.Module):
    """A dropout whose mask is given."""

    def __init__(self, mask):
        super().__init__()
        self.mask = torch.from_numpy(mask)

    def forward(self, values):
        return values * self.mask


def run(objective, data):
    """The objective on official features: a leaf of maps, and what came out."""
    pooled = torch.from_numpy(data["pooled"]).clone().requires_grad_(True)
    batch = ImageBatch(torch.zeros(len(pooled), 3, 4, 4), torch.from_numpy(data["labels"]))
    return pooled, objective(lambda images: pooled[:, :, None, None].expand(-1, -1, 2, 2), batch)


@pytest.mark.parametrize("name", FILES)
def test_official_mutual_vectors_gates_and_scores(golden, name):
    data = golden(f"apinet_{name}")
    objective = made(data).eval()
    pooled, labels = torch.from_numpy(data["pooled"]), torch.from_numpy(data["labels"])
    first, second = mine_pairs(pooled, labels, variant="code")
    found = objective.interaction(pooled[first], pooled[second])
    torch.testing.assert_close(found.mutual, torch.from_numpy(data["mutual"]), **CLOSE)
    for number in (0, 1):
        torch.testing.assert_close(found.gates[number], torch.from_numpy(data[f"gate{number + 1}"]), **CLOSE)
        for kind, features in (("self", found.own), ("other", found.crossed)):
            wanted = torch.from_numpy(data[f"nodrop_logit{number + 1}_{kind}"])
            torch.testing.assert_close(objective.classifier.scores(features[number]), wanted, **CLOSE)
    scores = objective.classifier(lambda images: pooled[:, :, None, None], torch.zeros(len(pooled), 3, 4, 4))
    torch.testing.assert_close(scores, torch.from_numpy(data["val_logits"]), **CLOSE)


@pytest.mark.parametrize("mode", ["nodrop", "drop"])
@pytest.mark.parametrize("name", FILES)
def test_official_losses_and_gradients(golden, name, mode):
    data = golden(f"apinet_{name}")
    if f"{mode}_loss" not in data:
        pytest.skip("these numbers were not stored")
    objective = made(data).train(mode == "drop")
    if mode == "drop":
        objective.interaction.layers[1] = Masked(data["drop_mask0"])
        objective.classifier.dropout = Masked(np.stack([data[f"drop_mask{number}"] for number in (1, 2, 3, 4)]))
    pooled, out = run(objective, data)
    out["loss"].backward()
    for ours, theirs in (("loss", "loss"), ("cross_entropy", "softmax_loss"), ("ranking", "rank_loss")):
        torch.testing.assert_close(out[ours].detach(), torch.as_tensor(data[f"{mode}_{theirs}"]), **CLOSE)
    torch.testing.assert_close(pooled.grad, torch.from_numpy(data[f"{mode}_grad_pooled"]), **CLOSE)
    gradients = {key: value.grad for key, value in objective.named_parameters()}
    for key in [key for key in data if key.startswith(f"{mode}_gradw/")]:
        layer, part = key.split("/")[1].split(".")
        # These went on adding up in the backward passes of the two losses alone, and so are those of twice the loss.
        times = 2 if mode == "nodrop" else 1
        torch.testing.assert_close(times * gradients[f"{OURS[layer]}.{part}"], torch.from_numpy(data[key]), **CLOSE)
    assert out["accuracy"] == (data["val_logits"].argmax(1) == data["labels"]).mean()


@pytest.mark.parametrize("name", FILES)
def test_official_gradients_of_each_loss(golden, name):
    data = golden(f"apinet_{name}")
    pooled, out = run(made(data, rank_weight=0.0).eval(), data)
    out["loss"].backward()
    entropy = pooled.grad
    torch.testing.assert_close(entropy, torch.from_numpy(data["nodrop_softmax_loss_grad_pooled"]), **CLOSE)
    pooled, out = run(made(data).eval(), data)
    out["loss"].backward()
    ranking = torch.from_numpy(data["nodrop_rank_loss_grad_pooled"])
    torch.testing.assert_close(pooled.grad - entropy, ranking, **CLOSE)


@pytest.mark.parametrize("name", ["small", "full2048"])
def test_four_times_the_code_is_the_paper_with_lambda_two(golden, name):
    data = golden(f"apinet_{name}")
    paper = run(made(data, variant="paper", rank_weight=2.0), data)[1]["loss"]
    torch.testing.assert_close(paper.detach(), torch.as_tensor(4 * data["nodrop_loss"]), **CLOSE)


def softmax(values):
    top = max(values)
    parts = [math.exp(value - top) for value in values]
    return [part / sum(parts) for part in parts]


def test_the_paper_s_loss_by_loops():
    """Eq. 2 to 10 as printed, for one number after the other."""
    torch.manual_seed(0)
    objective = APINet(variant="paper", mutual="sum", margin=0.1, rank_weight=0.7)
    objective.setup(3, 4)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 0, 3, 3, 1])
    pairs = list(zip(*(part.tolist() for part in mine_pairs(x, labels)), strict=True))
    weight, bias = (value.tolist() for value in objective.classifier.state_dict().values())

    def probabilities(features):
        return softmax(
            [sum(w * f for w, f in zip(row, features, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        )

    total = 0.0
    for pair in pairs:
        images = [x[i].tolist() for i in pair]
        mutual = [a + b for a, b in zip(*images, strict=True)]
        gates = [[1 / (1 + math.exp(-m * v)) for m, v in zip(mutual, image, strict=True)] for image in images]
        for i in (0, 1):
            wanted = int(labels[pair[i]])
            own, other = (
                probabilities([v + v * g for v, g in zip(images[i], gates[k], strict=True)])[wanted] for k in (i, 1 - i)
            )
            total += -math.log(own) - math.log(other) + 0.7 * max(0.0, other - own + 0.1)
    out = objective(lambda images: x[:, :, None, None], ImageBatch(torch.zeros(5, 3, 4, 4), labels))
    assert out["loss"].item() == pytest.approx(total / len(pairs), rel=1e-5)
    assert out["pairs"] == len(pairs) == 9  # the image alone in its class forms no intra pair


@pytest.mark.parametrize("mutual", MUTUAL)
def test_every_mutual_vector_and_its_gates(mutual):
    torch.manual_seed(0)
    interaction = PairwiseInteraction(4, mutual, hidden=3).double()
    first, second = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    state = interaction.state_dict()
    if "layers.0.weight" in state:

        def through(values):
            hidden = F.linear(values, state["layers.0.weight"], state["layers.0.bias"])
            return F.linear(hidden, state["layers.2.weight"], state["layers.2.bias"])

    both = torch.cat([first, second], 1)
    if mutual == "compact_bilinear":
        expected = torch.zeros(6, 4, dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                place = int(state["places"][0, i] + state["places"][1, j]) % 4
                expected[:, place] += state["signs"][0, i] * state["signs"][1, j] * first[:, i] * second[:, j]
    elif mutual == "weight_attention":
        a, b = through(both).exp().unbind(1)
        expected = (a / (a + b))[:, None] * first + (b / (a + b))[:, None] * second
    elif mutual in ("mlp", "individual"):
        expected = through(both) if mutual == "mlp" else None
    else:
        expected = {"subtract_square": (first - second) ** 2, "sum": first + second, "product": first * second}[mutual]
    found = interaction(first, second)
    for number, image in enumerate((first, second)):
        logits = through(image) if mutual == "individual" else expected * image
        gate = 1 / (1 + (-logits).exp())
        torch.testing.assert_close(found.gates[number], gate)
        torch.testing.assert_close(found.own[number], image * (1 + gate))
        torch.testing.assert_close(found.crossed[1 - number], (second, first)[number] * (1 + gate))
    if mutual == "individual":
        assert found.mutual is None
    else:
        torch.testing.assert_close(found.mutual, expected)


def test_a_single_gate_is_the_mutual_vector_s():
    torch.manual_seed(0)
    interaction = PairwiseInteraction(4, "product", "single")
    first, second = torch.randn(2, 6, 4)
    found = interaction(first, second)
    gate = torch.sigmoid(first * second)
    torch.testing.assert_close(found.own, (first + first * gate, second + second * gate))
    assert found.crossed is None


def ready(channels=6, classes=5, **options):
    torch.manual_seed(0)
    objective = methods.create("apinet", **{"hidden": 4, **options})
    objective.setup(channels, classes)
    return objective


def batch(labels=(0, 0, 1, 1, 4, 4)):
    return ImageBatch(
        torch.rand(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor(labels)
    )


def encoder(channels=6):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, channels, 3, 2), nn.ReLU())


@pytest.mark.parametrize("gate", ["pair", "single"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("mutual", MUTUAL)
def test_every_setting_learns(mutual, gate, variant):
    if (mutual, gate) == ("individual", "single"):
        pytest.skip("refused, see below")
    objective, encode = ready(mutual=mutual, gate=gate, variant=variant, dropout=0.0), encoder()
    learned = [*objective.parameters(), *encode.parameters()]
    optimizer = torch.optim.Adam(learned, 0.03)
    colours = torch.rand(5, 3, 1, 1, generator=torch.Generator().manual_seed(4))
    given = batch()
    given = ImageBatch(colours[given.labels] + 0.1 * given.images, given.labels)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(encode, given)["loss"]
        loss.backward()
        assert all(value.grad is not None for value in learned)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_single_gate_counts_two_features_a_pair():
    data, images = ready(gate="single", variant="paper"), batch()
    code = ready(gate="single", variant="code", dropout=0.0)
    encode = encoder()
    assert data(encode, images)["loss"].item() == pytest.approx(2 * code(encode, images)["loss"].item())
    assert data(encode, images)["ranking"] == 0


def test_dropout_is_the_variant_s():
    assert (ready().dropout, ready(variant="paper").dropout, ready(dropout=0.2).dropout) == (0.5, 0.0, 0.2)
    assert ready().classifier.made_as == ("linear", {"dropout": 0.5})


def test_random_pairs_and_one_kind_of_pair():
    for intra, inter, pairs in (("none", "none", 12), ("similar", "none", 6), ("none", "dissimilar", 12)):
        assert ready(intra=intra, inter=inter)(encoder(), batch())["pairs"] == pairs


def test_half_precision():
    objective, encode = ready(dropout=0.0), encoder()
    whole = objective(encode, batch())["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = objective(encode, batch())["loss"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mutual": "mpl"}, "unknown mutual of objective apinet 'mpl'; did you mean 'mlp'"),
        ({"gate": "both"}, "unknown gate of objective apinet"),
        ({"gate": "single", "mutual": "individual"}, "mutual 'individual' has none; use gate pair"),
        ({"gate": "single", "rank_weight": 1.0}, "no crossed features to rank"),
        ({"rank_weight": -1.0}, "expected 0 or more"),
        ({"margin": -0.1}, "margin of objective apinet is -0.1"),
        ({"intra": "near"}, "unknown intra of objective apinet"),
        ({"variant": "official"}, "unknown variant of objective apinet"),
        ({"hidden": 0}, "hidden of objective apinet is 0"),
        ({"dropout": 1.0}, "expected 0 to below 1"),
        ({"gradient_cache": 0}, "gradient_cache of objective apinet is 0"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(FieldmarkError, match=text) as caught:
        methods.create("apinet", **options)
    assert "\n" not in str(caught.value)


def test_a_batch_without_pairs_says_what_to_do():
    with pytest.raises(FieldmarkError, match="set the stage's images_per_class to 2"):
        ready(inter="none", variant="paper")(encoder(), batch((0, 1, 2)))


def test_the_seven_ways_are_those_of_the_table():
    assert Mutual.__args__ == MUTUAL


def test_the_ranking_loss_acts_against_crossed_features_alone():
    """Its gradient on the scores raises the own gate's probability and lowers the other one's."""
    torch.manual_seed(0)
    objective = ready(variant="paper", margin=10.0)
    x = torch.randn(4, 6)
    first, second = torch.tensor([0, 2]), torch.tensor([1, 3])
    labels = torch.tensor([0, 0, 1, 1])
    found = objective.losses(x, labels, first, second)
    pair = objective.interaction(x[first], x[second])
    gaps = []
    for own, crossed, images in zip(pair.own, pair.crossed, (first, second), strict=True):
        wanted = labels[images].unsqueeze(1)
        gaps.append([objective.classifier.scores(one).softmax(1).gather(1, wanted) for one in (crossed, own)])
    expected = torch.cat([crossed - own + 10.0 for crossed, own in gaps]).mean()
    torch.testing.assert_close(found.ranking, expected)
