"""The six losses of Table 8, each against its equation written as a plain loop over numbers."""

import math
import subprocess
import sys

import pytest
import torch

from fieldmark import methods
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.methods import ImageBatch
from fieldmark.methods.metric_learning import precision_in_batch

LABELS = [0, 1, 2, 0, 1, 2, 0]
CHANNELS, CLASSES = 5, 3


def batch():
    return ImageBatch(torch.zeros(len(LABELS), 3, 8, 8), torch.tensor(LABELS))


def embeddings(**options):
    return torch.randn(len(LABELS), CHANNELS, generator=torch.Generator().manual_seed(3), **options)


def maps(vectors):
    """Maps of four places whose mean is the vector."""
    noise = torch.randn(*vectors.shape, 4, generator=torch.Generator().manual_seed(4))
    return (vectors.unsqueeze(-1) + noise - noise.mean(-1, keepdim=True)).unflatten(-1, (2, 2))


def made(loss, miner="none", **options):
    torch.manual_seed(0)
    objective = methods.create("metric_learning", loss=loss, options=options, miner=miner)
    objective.setup(CHANNELS, CLASSES)
    return objective


def unit(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax_loss(logits, label):
    return -logits[label] + math.log(sum(math.exp(x) for x in logits))


def variance(values):
    mean = sum(values) / len(values)
    return sum((x - mean) ** 2 for x in values) / (len(values) - 1)


def pairs():
    count = len(LABELS)
    every = [(i, j) for i in range(count) for j in range(count) if i != j]
    return [p for p in every if LABELS[p[0]] == LABELS[p[1]]], [p for p in every if LABELS[p[0]] != LABELS[p[1]]]


def mean_of_positive(values):
    some = [x for x in values if x > 0]
    return sum(some) / len(some) if some else 0.0


def by_normalised_softmax(x, objective):
    """Zhai and Wu 2019: softmax over cosines to one vector a class, divided by a temperature."""
    proxies = unit(objective.criterion.W.T.tolist())
    losses = [softmax_loss([dot(v, w) / 0.05 for w in proxies], y) for v, y in zip(unit(x), LABELS, strict=True)]
    return sum(losses) / len(losses)


def by_contrastive(x, objective):
    """Hadsell et al. 2006, with margins on the distance of unit vectors; the mean of those that are not zero."""
    v = unit(x)
    positive, negative = pairs()
    near = [max(0, math.dist(v[i], v[j]) - 0.1) for i, j in positive]
    far = [max(0, 0.9 - math.dist(v[i], v[j])) for i, j in negative]
    return mean_of_positive(near) + mean_of_positive(far)


def by_soft_triple(x, objective):
    """Qian et al. 2019, eq. 7 and 8."""
    centres = [unit(rows) for rows in objective.criterion.fc.T.reshape(CLASSES, 4, CHANNELS).tolist()]
    total = 0.0
    for v, y in zip(unit(x), LABELS, strict=True):
        similarities = []
        for centre in centres:
            cosines = [dot(v, w) for w in centre]
            weights = [math.exp(c / 0.1) for c in cosines]
            similarities.append(sum(a * b for a, b in zip(weights, cosines, strict=True)) / sum(weights))
        total += softmax_loss([20 * (s - (0.01 if c == y else 0)) for c, s in enumerate(similarities)], y)
    return total / len(LABELS)


def by_snr(x, objective):
    """Yuan et al. 2019: the distance is the variance of the difference over that of the anchor."""
    v = unit(x)
    positive, negative = pairs()
    ratio = {
        (i, j): variance([a - b for a, b in zip(v[i], v[j], strict=True)]) / variance(v[i])
        for i, j in positive + negative
    }
    near = [max(0, ratio[p] - 0.2) for p in positive]
    far = [max(0, 1.5 - ratio[p]) for p in negative]
    return mean_of_positive(near) + mean_of_positive(far)


def by_arcface(x, objective):
    """Deng et al. 2019, eq. 3: a margin of so many degrees on the angle to the own class."""
    proxies = unit(objective.criterion.W.T.tolist())
    total = 0.0
    for v, y in zip(unit(x), LABELS, strict=True):
        angles = [math.acos(max(-1, min(1, dot(v, w)))) for w in proxies]
        cosines = [math.cos(a + math.radians(20) * (c == y)) for c, a in enumerate(angles)]
        total += softmax_loss([16 * c for c in cosines], y)
    return total / len(LABELS)


def by_multi_similarity(x, objective):
    """Wang et al. 2019, eq. 15."""
    v = unit(x)
    total = 0.0
    for i, label in enumerate(LABELS):
        near = [dot(v[i], v[j]) for j, other in enumerate(LABELS) if other == label and j != i]
        far = [dot(v[i], v[j]) for j, other in enumerate(LABELS) if other != label]
        total += math.log(1 + sum(math.exp(-2 * (s - 0.4)) for s in near)) / 2
        total += math.log(1 + sum(math.exp(10 * (s - 0.4)) for s in far)) / 10
    return total / len(LABELS)


EQUATIONS = {
    "normalised_softmax": ({}, by_normalised_softmax),
    "contrastive": ({"pos_margin": 0.1, "neg_margin": 0.9}, by_contrastive),
    "soft_triple": ({"centers_per_class": 4}, by_soft_triple),
    "snr": ({"pos_margin": 0.2, "neg_margin": 1.5}, by_snr),
    "arcface": ({"margin": 20, "scale": 16}, by_arcface),
    "multi_similarity": ({"beta": 10, "base": 0.4}, by_multi_similarity),
}


@pytest.mark.parametrize("loss", EQUATIONS)
def test_a_loss_is_its_equation_on_pooled_embeddings(loss):
    options, equation = EQUATIONS[loss]
    objective, vectors = made(loss, **options), embeddings()
    found = objective(lambda images: maps(vectors), batch())["loss"].item()
    assert found == pytest.approx(equation(vectors.tolist(), objective), rel=1e-4)
    assert found > 0


@pytest.mark.parametrize("loss", EQUATIONS)
def test_gradients_reach_the_embeddings_and_what_the_loss_itself_learns(loss):
    objective, vectors = made(loss), embeddings(requires_grad=True)
    objective(lambda images: maps(vectors), batch())["loss"].backward()
    assert vectors.grad.abs().sum() > 0
    proxies = list(objective.parameters())
    assert len(proxies) == (loss in ("normalised_softmax", "soft_triple", "arcface"))
    assert all(p.grad.abs().sum() > 0 for p in proxies)
    again = made(loss)
    again.load_state_dict(objective.state_dict())  # what a checkpoint holds


def test_the_miner_keeps_hard_pairs_only():
    """Wang et al. 2019, eq. 8 and 9: a negative nearer than the farthest positive (less 0.1), and the reverse."""
    vectors = torch.eye(CHANNELS)[torch.tensor(LABELS)] + 0.3 * embeddings()  # classes that are partly apart
    v = unit(vectors.tolist())
    positive, negative = pairs()
    cos = {p: dot(v[p[0]], v[p[1]]) for p in positive + negative}
    total = 0.0
    for i in range(len(LABELS)):
        near, far = [cos[p] for p in positive if p[0] == i], [cos[p] for p in negative if p[0] == i]
        hard_near = [s for s in near if s - 0.1 < max(far)]
        hard_far = [s for s in far if s + 0.1 > min(near)]
        total += math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in hard_near)) / 2
        total += math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in hard_far)) / 50
    mined = made("multi_similarity", miner="multi_similarity")(lambda images: maps(vectors), batch())["loss"].item()
    assert mined == pytest.approx(total / len(LABELS), rel=1e-4)
    assert mined != pytest.approx(made("multi_similarity")(lambda i: maps(vectors), batch())["loss"].item(), rel=1e-3)


@pytest.mark.parametrize("loss", EQUATIONS)
def test_a_batch_without_pairs_trains_nothing_and_stays_finite(loss):
    lonely = ImageBatch(torch.zeros(3, 3, 8, 8), torch.tensor([0, 1, 2]))
    vectors = embeddings()[:3].requires_grad_()
    out = made(loss)(lambda images: maps(vectors), lonely)
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    assert torch.isfinite(vectors.grad).all()
    assert out["accuracy"] == 0


def test_weights_of_the_loss_keep_their_precision_under_autocast():
    objective, vectors = made("arcface"), embeddings()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(lambda images: maps(vectors).bfloat16(), batch())["loss"]
    assert objective.criterion.W.dtype == torch.float32
    assert loss.dtype == torch.float32


def test_precision_in_the_batch_is_a_plain_loop():
    vectors = embeddings()
    labels = torch.tensor([0, 1, 2, 0, 1, 3, 0])  # 2 and 3 stand alone
    v = unit(vectors.tolist())
    hits = []
    for i, label in enumerate(labels.tolist()):
        if labels.tolist().count(label) > 1:
            others = [j for j in range(len(v)) if j != i]
            hits.append(labels[max(others, key=lambda j: dot(v[i], v[j]))].item() == label)
    assert precision_in_batch(vectors, labels).item() == pytest.approx(sum(hits) / len(hits))
    assert precision_in_batch(vectors[:1], labels[:1]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "arc_face"}, "did you mean 'arcface'"),
        ({"loss": "arcface", "options": {"scal": 3}}, "did you mean 'scale'"),
        ({"loss": "arcface", "options": {"num_classes": 3}}, "unknown option of loss 'arcface'"),
        ({"loss": "snr", "options": {"neg_margn": 3}}, "did you mean 'neg_margin'"),
        ({"miner": "multisimilarity"}, "did you mean 'multi_similarity'"),
        ({"loss": "soft_triple", "miner": "multi_similarity"}, "chooses pairs, and loss 'soft_triple' has none"),
    ],
)
def test_wrong_options_are_refused_where_the_objective_is_made(options, message):
    with pytest.raises(FieldmarkError, match=message):
        methods.create("metric_learning", **options)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fieldmark\[metric\]'"):
        methods.create("metric_learning")


def test_the_package_is_not_imported_before_it_is_needed():
    code = "import sys, fieldmark.methods; print('pytorch_metric_learning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def test_training_keeps_the_vectors_of_the_classes_with_the_stage_and_the_projection_with_the_model(tmp_path):
    from fieldmark.backbones import load_model
    from fieldmark.training import make_recipe, train

    recipe = {
        "name": "embed",
        "data": {"name": "glyphs", "size": 16},
        "backbone": {"name": "conv4", "options": {"channels": 8, "project": 4}},
        "stages": [
            {
                "name": "embed", "objective": {"name": "metric_learning", "options": {"loss": "arcface"}}, "epochs": 1,
                "steps_per_epoch": 3, "batch_size": 16, "images_per_class": 4,
                "optimizer": {"name": "adam", "lr": 0.001, "objective_lr": 0.1},
            }
        ],
        "trainer": {"accelerator": "cpu"},
    }  # fmt: skip
    weights = []
    for name in ("first", "second"):
        folder = train(make_recipe(recipe), tmp_path / name)
        state = torch.load(folder / "stages" / "embed" / "last.ckpt", weights_only=True)
        weights.append(state["model"]["objective.criterion.W"])
        model, facts = load_model(folder)
        assert model.channels == 4
        assert weights[0].shape == (4, len(facts["training_classes"]["glyphs"]))
    assert torch.equal(*weights)  # the same seed, the same numbers
    assert len(state["optimizer"]["param_groups"]) == 2
