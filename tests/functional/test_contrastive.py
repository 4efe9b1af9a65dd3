"""Contrastive loss: recorded official numbers, a plain loop from the equation, derivatives."""

import math

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import contrastive_loss, cosine


@pytest.fixture
def arrays(golden):
    return {key: torch.from_numpy(array) for key, array in golden("scl_global_a").items()}


def labels_of(arrays, mode):
    if mode == "full":
        return arrays["labels_full"]
    return arrays["labels"].repeat(2) if mode == "sup" else None


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
def test_global_losses_and_gradients_are_the_official_ones(arrays, mode):
    pooled = arrays["pooled"].requires_grad_()
    projected = (pooled @ arrays["w/net.0.weight"].mT).relu() @ arrays["w/net.2.weight"].mT
    torch.testing.assert_close(projected, arrays["projected"], rtol=1e-5, atol=1e-5)
    projected.retain_grad()
    loss = contrastive_loss(cosine(projected, projected), labels_of(arrays, mode), 1 / float(arrays["temperature"]))
    torch.testing.assert_close(loss, arrays[f"{mode}_loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    for key, one in {"projected": projected, "pooled": pooled}.items():
        torch.testing.assert_close(one.grad, arrays[f"{mode}_grad_{key}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["sup", "selfsup", "full"])
def test_global_losses_in_double_precision(arrays, mode):
    features = arrays["projected"].double()
    loss = contrastive_loss(cosine(features, features), labels_of(arrays, mode), 1 / float(arrays["temperature"]))
    assert float(loss) == pytest.approx(float(arrays[f"f64_{mode}_loss"]), rel=0, abs=1e-9)


def test_global_loss_of_two_sets_is_the_official_one(arrays):
    first, second = (half.clone().requires_grad_() for half in arrays["projected"].chunk(2))
    labels = arrays["labels"]
    loss = contrastive_loss(cosine(first, second), labels, 1 / float(arrays["temperature"]), other_labels=labels)
    torch.testing.assert_close(loss, arrays["ab_loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(first.grad, arrays["ab_grad_a"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.grad, arrays["ab_grad_b"], rtol=1e-4, atol=1e-5)


def by_loop(similarity, rows, columns, temperature, same):
    """Eq. 4, anchor by anchor, with the mean over the anchors in place of the sum."""
    table, total = similarity.tolist(), 0.0
    for i, row in enumerate(table):
        others = [j for j in range(len(row)) if not (same and j == i)]
        positives = [j for j in others if columns[j] == rows[i]]
        below = sum(math.exp(row[k] / temperature) for k in others)
        total += sum(-math.log(math.exp(row[j] / temperature) / below) for j in positives) / max(1, len(positives))
    return total / len(table)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2, 0], [5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5]])
def test_equals_the_equation(labels, temperature):
    similarity = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = contrastive_loss(similarity, torch.tensor(labels), temperature)
    assert float(found) == pytest.approx(by_loop(similarity, labels, labels, temperature, True), abs=1e-12)
    columns = [0, 1, 2, 9]
    found = contrastive_loss(similarity[:, :4], torch.tensor(labels), temperature, other_labels=torch.tensor(columns))
    assert float(found) == pytest.approx(by_loop(similarity[:, :4], labels, columns, temperature, False), abs=1e-12)


@pytest.mark.parametrize("views", [2, 3])
def test_without_labels_positives_are_the_other_views(views):
    similarity = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = [number % (6 // views) for number in range(6)]
    found = contrastive_loss(similarity, views=views)
    assert float(found) == pytest.approx(by_loop(similarity, labels, labels, 0.1, True), abs=1e-12)


def test_derivatives_by_finite_differences():
    similarity = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda one: contrastive_loss(one, labels, 0.5), similarity)
    assert torch.autograd.gradcheck(lambda one: contrastive_loss(one, None, 0.5), similarity)


@pytest.mark.parametrize("labels", [[3], [0, 1, 2]])
def test_no_positive_at_all_is_a_loss_of_zero(labels):
    similarity = torch.rand(len(labels), len(labels)).requires_grad_()
    loss = contrastive_loss(similarity, torch.tensor(labels))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not similarity.grad.any()


def test_a_very_low_temperature_is_finite():
    similarity = (4 * torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) - 2).requires_grad_()
    loss = contrastive_loss(similarity, temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(similarity.grad).all()


@pytest.mark.parametrize(
    ("shape", "options", "text"),
    [
        ((4, 4), {"temperature": 0.0}, "temperature is 0.0"),
        ((4, 3), {}, "expected a square one"),
        ((0, 0), {}, "one row an image"),
        ((3, 3), {}, "3 images in 2 views"),
        ((4, 4), {"views": 1}, "4 images in 1 views"),
        ((4, 4), {"labels": torch.arange(2)}, "repeat them for each view"),
        ((4, 3), {"labels": torch.arange(4), "other_labels": torch.arange(4)}, "3 columns"),
        ((4, 3), {"other_labels": torch.arange(3)}, "other_labels without labels"),
    ],
)
def test_wrong_input_is_one_line(shape, options, text):
    plain = getattr(contrastive_loss, "__wrapped__", contrastive_loss)
    with pytest.raises(FieldmarkError, match=text) as caught:
        plain(torch.zeros(*shape), **options)
    assert "\n" not in str(caught.value)
