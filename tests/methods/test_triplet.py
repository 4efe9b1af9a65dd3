"""The triplet baseline against loops over anchors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import ImageBatch

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def ready(**options):
    torch.manual_seed(0)
    objective = methods.create("triplet", **options)
    objective.setup(5, 3)
    return objective


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("intra", ["similar", "dissimilar"])
def test_the_loss_by_loops(normalise, intra):
    objective = ready(normalise=normalise, intra=intra, weight=0.5, margin=0.4)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    out = objective(lambda images: x[:, :, None, None], ImageBatch(torch.zeros(6, 3, 4, 4), LABELS))
    points = [row / row.norm() if normalise else row for row in x.detach()]
    terms = []
    for i, point in enumerate(points):
        own = [float((point - points[j]).norm()) for j in range(6) if j != i and LABELS[j] == LABELS[i]]
        other = [float((point - points[j]).norm()) for j in range(6) if LABELS[j] != LABELS[i]]
        if own:
            near = min(own) if intra == "similar" else max(own)
            terms.append(max(0.0, near - min(other) + 0.4))
    assert len(terms) == 5
    expected = sum(terms) / 5
    assert out["triplet"].item() == pytest.approx(expected, abs=1e-5)
    entropy = F.cross_entropy(objective.classifier.scores(x), LABELS)
    assert out["loss"].item() == pytest.approx(entropy.item() + 0.5 * expected, abs=1e-5)
    out["loss"].backward()
    assert torch.isfinite(x.grad).all()


def test_without_triplets_the_classifier_learns():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    out = ready()(lambda images: x[:, :, None, None], ImageBatch(torch.zeros(3, 3, 4, 4), torch.arange(3)))
    assert out["triplet"] == 0
    assert out["loss"] == out["cross_entropy"] > 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"intra": "none"}, "unknown intra of objective triplet 'none'"),
        ({"inter": "far"}, "unknown inter of objective triplet"),
        ({"margin": 0.0}, "margin of objective triplet is 0.0"),
        ({"weight": 0.0}, "weight of objective triplet is 0.0"),
        ({"dropout": 1.0}, "dropout of objective triplet"),
        ({"gradient_cache": -1}, "gradient_cache of objective triplet is -1"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(FieldmarkError, match=text):
        methods.create("triplet", **options)
