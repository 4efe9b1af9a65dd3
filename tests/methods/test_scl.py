"""SCL's objective against its equations written as plain loops over numbers."""

from __future__ import annotations

import math

import pytest
import torch

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import ImageBatch
from fieldmark.methods.attention_heads import AttentionHeads, ProjectionHead
from fieldmark.methods.contrast import GlobalContrast, SpatialContrast

CHANNELS, CLASSES, INNER = 5, 3, 4
LABELS = [0, 1, 0, 2]  # one class with two images, so that supervised and self-supervised positives differ


def batch(views=2):
    count = len(LABELS) * views
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return ImageBatch(images, torch.tensor(LABELS * views), views)


def made(**options):
    torch.manual_seed(0)
    objective = methods.create("scl", **{"inner": INNER, **options})
    objective.setup(CHANNELS, CLASSES)
    return objective.double()


def maps(count=8, **options):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, CHANNELS, 2, 2, generator=generator, dtype=torch.float64, **options)


def matrix(weight, vector):
    return [sum(w * x for w, x in zip(row, vector, strict=True)) for row in weight.tolist()]


def head(module, vector):
    first, _, second = module.net
    return matrix(second.weight, [max(0.0, x) for x in matrix(first.weight, vector)])


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def unit(a):
    return [x / math.sqrt(dot(a, a)) for x in a]


def places(one):
    return one.flatten(1).T.tolist()


def align(queries, keys, values):
    """Eq. 5: for every place of the queries, the mean of the values, weighted by a softmax over the keys."""
    out = []
    for query in queries:
        weights = [math.exp(dot(query, key) / math.sqrt(len(query))) for key in keys]
        out.append([sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights)
                    for c in range(len(values[0]))])  # fmt: skip
    return out


def spatial_similarity(heads, first, second, aggregation, variant):
    """Eq. 6 for two maps."""
    (q1, k1, v1), (q2, k2, v2) = (
        [[head(one, place) for place in places(m)] for one in (heads.query, heads.key, heads.value)]
        for m in (first, second)
    )
    if variant == "paper":
        v1, v2 = [unit(v) for v in v1], [unit(v) for v in v2]
        compare = dot
    else:
        compare = cosine
    there, back = align(q1, k2, v2), align(q2, k1, v1)
    at = [compare(v1[r], there[r]) + compare(v2[r], back[r]) for r in range(len(v1))]
    return {
        "mean": sum(at) / len(at), "sum": sum(at), "max": max(at),
        "logsumexp": math.log(sum(math.exp(6 * s) for s in at)) / 6,
    }[aggregation]  # fmt: skip


def contrast(similarity, groups, temperature=0.1):
    """Eq. 4 and 7, as the mean over the anchors; one without a positive counts 0."""
    total = 0.0
    for i, group in enumerate(groups):
        others = [j for j in range(len(groups)) if j != i]
        below = sum(math.exp(similarity[i][k] / temperature) for k in others)
        losses = [-math.log(math.exp(similarity[i][j] / temperature) / below) for j in others if groups[j] == group]
        total += sum(losses) / len(losses) if losses else 0.0
    return total / len(groups)


def cross_entropy(objective, features):
    total = 0.0
    for feature, label in zip(features.mean((2, 3)), LABELS * 2, strict=True):
        biases = objective.classifier.bias.tolist()
        scores = [s + b for s, b in zip(matrix(objective.classifier.weight, feature.tolist()), biases, strict=True)]
        total += math.log(sum(math.exp(s) for s in scores)) - scores[label]
    return total / len(features)


GROUPS = {"supervised": LABELS * 2, "self_supervised": [0, 1, 2, 3] * 2}


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "logsumexp"])
@pytest.mark.parametrize("positives", GROUPS)
def test_the_spatial_loss_is_its_equation(positives, aggregation, variant):
    objective, features = made(ce=0, positives=positives, aggregation=aggregation, variant=variant), maps()
    out = objective(lambda images: features, batch())
    heads = objective.spatial.heads
    table = [[spatial_similarity(heads, a, b, aggregation, variant) for b in features] for a in features]
    expected = contrast(table, GROUPS[positives])
    assert out["spatial_contrast"].item() == pytest.approx(expected, rel=1e-9)
    assert out["loss"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("positives", GROUPS)
def test_the_global_loss_is_its_equation(positives):
    objective, features = made(ce=0, sc=0, gc=1, positives=positives), maps()
    projected = [head(objective.pooled.head, one) for one in features.mean((2, 3)).tolist()]
    table = [[cosine(a, b) for b in projected] for a in projected]
    found = objective(lambda images: features, batch())["loss"].item()
    assert found == pytest.approx(contrast(table, GROUPS[positives]), rel=1e-9)


def test_the_loss_is_the_weighted_sum_of_its_parts_and_each_is_given():
    objective, features = made(ce=0.5, sc=0.25, gc=2.0), maps()
    out = objective(lambda images: features, batch())
    assert set(out) == {"loss", "accuracy", "cross_entropy", "spatial_contrast", "global_contrast"}
    assert out["cross_entropy"].item() == pytest.approx(cross_entropy(objective, features), rel=1e-9)
    parts = [out[name].item() for name in ("cross_entropy", "spatial_contrast", "global_contrast")]
    assert out["loss"].item() == pytest.approx(0.5 * parts[0] + 0.25 * parts[1] + 2.0 * parts[2], rel=1e-9)


def test_parts_without_weight_are_not_built():
    assert [name for name, _ in made(sc=0).named_parameters()] == ["classifier.weight", "classifier.bias"]
    assert {name.split(".")[0] for name, _ in made(ce=0).named_parameters()} == {"spatial"}
    assert {name.split(".")[0] for name, _ in made(ce=0, sc=0, gc=1).named_parameters()} == {"pooled"}


def test_gradients_reach_the_maps_and_every_head():
    objective, features = made(gc=1.0), maps(requires_grad=True)
    objective(lambda images: features, batch())["loss"].backward()
    assert features.grad.abs().sum() > 0
    weights = dict(objective.named_parameters())
    assert len(weights) == 2 + 3 * 2 + 2
    assert all(weight.grad.abs().sum() > 0 for weight in weights.values())


def test_the_gradient_of_the_whole_loss_is_the_difference_quotient():
    objective, features = made(gc=1.0), maps(requires_grad=True)
    objective(lambda images: features, batch())["loss"].backward()
    direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        up, down = (objective(lambda images, s=s: features + s * step * direction, batch())["loss"] for s in (1, -1))
    slope = (features.grad * direction).sum().item()
    assert slope == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-6)


def test_maps_are_pooled_before_the_alignment_when_asked():
    objective = made(ce=0, pool=1)
    features = maps()
    pooled = features.mean((2, 3), keepdim=True)
    expected = made(ce=0)(lambda images: pooled, batch())["loss"]
    torch.testing.assert_close(objective(lambda images: features, batch())["loss"], expected)


def test_without_a_second_view_classes_are_compared_and_single_images_have_no_positive():
    features = maps(4)
    supervised = made(ce=0)(lambda images: features, batch(views=1))["loss"]
    assert supervised > 0
    alone = made(ce=0, positives="self_supervised")(lambda images: features, batch(views=1))["loss"]
    assert alone == 0


def test_halves_precision_stays_out_of_the_similarities():
    objective = methods.create("scl", inner=INNER, gc=1.0)
    objective.setup(CHANNELS, CLASSES)
    features = maps().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = objective(lambda images: features.bfloat16(), batch())
    assert out["spatial_contrast"].dtype == torch.float32
    exact = objective(lambda images: features, batch())
    assert out["spatial_contrast"].item() == pytest.approx(exact["spatial_contrast"].item(), rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "logsum"}, "did you mean 'logsumexp'"),
        ({"positives": "selfsupervised"}, "did you mean 'self_supervised'"),
        ({"variant": "papr"}, "did you mean 'paper'"),
        ({"temperature": 0}, "temperature of objective scl is 0; expected a number above 0"),
        ({"sc": -1}, "sc of objective scl is -1; expected 0 or more"),
        ({"ce": 0, "sc": 0}, "ce, sc and gc of objective scl are all 0"),
        ({"pool": 0}, "pool of objective scl is 0; expected at least 1"),
        ({"inner": 0}, "inner of objective scl is 0; expected at least 1"),
    ],
)
def test_wrong_options_are_refused_where_the_objective_is_made(options, message):
    with pytest.raises(FieldmarkError, match=message):
        methods.create("scl", **options)


def test_heads_have_the_official_sizes_and_no_biases():
    """Fig. D.1: d to d to 80; the golden files hold the same weights."""
    assert [tuple(p.shape) for p in ProjectionHead(640).parameters()] == [(640, 640), (80, 640)]
    assert len(list(AttentionHeads(8).parameters())) == 6
    with pytest.raises(FieldmarkError, match="inner of a projection head is 0"):
        ProjectionHead(8, 0)


AGGREGATIONS = {"mean": "mean", "sum": "sum", "max": "max", "logsum": "logsumexp"}  # theirs and ours


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", ["a", "lowT"])
def test_the_recorded_official_spatial_losses_are_met(golden, name, aggregation, mode):
    recorded = golden(f"scl_spatial_{name}")
    features = torch.from_numpy(recorded["features"]).requires_grad_()
    part = SpatialContrast(
        features.shape[1], "self_supervised" if mode == "selfsup" else "supervised", len(recorded["w/query.2.weight"]),
        1 / float(recorded["temperature"]), AGGREGATIONS[aggregation],
    )  # fmt: skip
    part.heads.load_state_dict(
        {f"{kind}.net.{layer}.weight": torch.from_numpy(recorded[f"w/{kind}.{layer}.weight"])
         for kind in ("query", "key", "value") for layer in (0, 2)}
    )  # fmt: skip
    labels = torch.from_numpy(recorded["labels_full"] if mode == "full" else recorded["labels"]).long()
    labels = labels if mode == "full" else labels.repeat(2)
    loss = part(features, labels, 2)
    assert loss.item() == pytest.approx(float(recorded[f"{aggregation}_{mode}_loss"]), rel=1e-5)
    if (key := f"{aggregation}_{mode}_grad_features") not in recorded:  # of "full" there is the mean's alone
        return
    loss.backward()
    expected = torch.from_numpy(recorded[key])
    torch.testing.assert_close(features.grad, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
def test_the_recorded_official_global_losses_are_met(golden, mode):
    recorded = golden("scl_global_a")
    pooled = torch.from_numpy(recorded["pooled"])
    positives = "self_supervised" if mode == "selfsup" else "supervised"
    temperature = 1 / float(recorded["temperature"])
    part = GlobalContrast(pooled.shape[1], positives, len(recorded["w/net.2.weight"]), temperature)
    part.head.load_state_dict({key[2:]: torch.from_numpy(value) for key, value in recorded.items() if key[:2] == "w/"})
    labels = torch.from_numpy(recorded["labels_full"] if mode == "full" else recorded["labels"]).long()
    labels = labels if mode == "full" else labels.repeat(2)
    loss = part(pooled[:, :, None, None], labels, 2).item()
    assert loss == pytest.approx(float(recorded[f"{mode}_loss"]), rel=1e-5)
