"""The small functions against plain loops and other libraries."""

import subprocess
import sys

import jaxtyping
import pytest
import torch
from scipy.spatial.distance import cdist

from fieldmark import functional
from fieldmark.errors import FieldmarkError


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(3)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_importing_functional_needs_torch_alone():
    code = (
        "import sys, fieldmark.functional;"
        "print([m for m in ('torchvision','timm','lightning','sklearn','scipy','matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("metric", "scipy_name", "shift"),
    [("squared_euclidean", "sqeuclidean", 0), ("euclidean", "euclidean", 0), ("cosine", "cosine", 1)],
)
def test_distances(draw, metric, scipy_name, shift):
    x, y = draw(2, 4, 6), draw(2, 3, 6)
    ours = functional.similarity(x, y, metric)
    for episode in range(2):
        expected = shift - torch.tensor(cdist(x[episode], y[episode], scipy_name))
        torch.testing.assert_close(ours[episode], expected)


def test_distance_gradients_are_finite_and_right(draw):
    x, y = draw(3, 4).requires_grad_(), draw(2, 4).requires_grad_()
    for function in (functional.squared_euclidean, functional.euclidean, functional.cosine):
        assert torch.autograd.gradcheck(function, (x, y))
    same = torch.ones(2, 4, requires_grad=True)
    functional.euclidean(same, torch.ones(1, 4)).sum().backward()
    assert torch.isfinite(same.grad).all()


def test_unknown_metric(draw, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match="did you mean 'cosine'"):
        functional.similarity(draw(1, 2), draw(1, 2), "cosin")


def test_prototypes_with_unequal_shots(draw):
    support = draw(2, 6, 3)
    labels = torch.tensor([[0, 1, 1, 2, 1, 0], [2, 2, 2, 2, 0, 1]])
    ours = functional.class_prototypes(support, labels, 3)
    for episode in range(2):
        for label in range(3):
            torch.testing.assert_close(ours[episode, label], support[episode, labels[episode] == label].mean(0))


def test_attention_against_a_loop(draw):
    logits, labels = 30 * draw(2, 4, 6), torch.tensor([[0, 1, 1, 2, 1, 0], [2, 2, 2, 2, 0, 1]])
    ours = functional.attention_log_probability(logits, labels, 3)
    torch.testing.assert_close(ours.exp().sum(-1), torch.ones(2, 4).double())
    attention = torch.softmax(logits, -1)
    for episode in range(2):
        for label in range(3):
            expected = attention[episode][:, labels[episode] == label].sum(-1)
            torch.testing.assert_close(ours[episode, :, label].exp(), expected)


def test_attention_on_a_far_class_stays_finite_with_its_gradient():
    logits = torch.tensor([[0.0, -1000.0]], requires_grad=True)
    score = functional.attention_log_probability(logits, torch.tensor([0, 1]), 2)
    assert score[0, 1] == -1000
    score[0, 1].backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_local_similarity_against_a_loop(draw, k):
    query, support = draw(2, 3, 4, 5), draw(2, 6, 2, 5)
    labels = torch.tensor([[0, 1, 1, 2, 1, 0], [2, 2, 2, 2, 0, 1]])
    ours = functional.local_similarity(query, support, labels, 3, k)
    for episode in range(2):
        pools = [support[episode, labels[episode] == label].reshape(-1, 5) for label in range(3)]
        taken = min(
            k, *(min(len(p) for p in (support[e, labels[e] == c].reshape(-1, 5) for c in range(3))) for e in range(2))
        )
        for image in range(3):
            for label, pool in enumerate(pools):
                cosines = functional.cosine(query[episode, image], pool)
                expected = cosines.sort(descending=True).values[:, :taken].sum()
                torch.testing.assert_close(ours[episode, image, label], expected)


def test_fusion_against_a_loop(draw):
    query, prototypes = draw(2, 3, 4, 5), draw(2, 6, 5)
    ours = functional.fused_log_probability(query, prototypes, scale=7.0)
    for episode in range(2):
        for image in range(3):
            votes = torch.softmax(7 * functional.cosine(query[episode, image], prototypes[episode]), -1)
            torch.testing.assert_close(torch.softmax(ours[episode, image], -1), votes.mean(0))


def test_centre_l2(draw):
    features, centre = draw(2, 4, 3), draw(3)
    ours = functional.centre_l2(features, centre)
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(2, 4).double())
    torch.testing.assert_close(ours * (features - centre).norm(dim=-1, keepdim=True), features - centre)


def test_cosine_linear_ignores_lengths(draw):
    features, weight = draw(4, 3), draw(2, 3)
    ours = functional.cosine_linear(features, weight, 4.0)
    torch.testing.assert_close(ours, functional.cosine_linear(3 * features, 5 * weight, 4.0))
    assert 0.1 < ours.abs().max() <= 4
