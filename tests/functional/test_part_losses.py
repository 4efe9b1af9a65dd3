"""The losses of part proposals against plain loops and the paper's gradients."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from torch.nn.functional import cosine_similarity

from fieldmark.errors import FieldmarkError
from fieldmark.functional import mac_loss, ranking_loss
from fieldmark.functional.part_losses import mac_of_cosines


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ranking_loss_is_the_sum_over_pairs_of_an_image():
    scores, confidences = drawn(4, 6), drawn(4, 6, seed=1)
    total = 0.0
    for s, c in zip(scores.tolist(), confidences.tolist(), strict=True):
        total += sum(max(0, 1 - (s[i] - s[j])) for i in range(6) for j in range(6) if c[i] > c[j])
    assert float(ranking_loss(scores, confidences)) == pytest.approx(total / 4)


def test_nothing_flows_into_the_confidences():
    scores, confidences = drawn(2, 3).requires_grad_(), drawn(2, 3, seed=1).requires_grad_()
    ranking_loss(scores, confidences).backward()
    assert scores.grad is not None
    assert confidences.grad is None


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_mac_is_eq_2_and_both_reductions_are_eq_1(parts):
    features = drawn(3, parts, 7)
    total = 0.0
    for x in features:
        for t in features:
            s = [[float(cosine_similarity(a, b, dim=0)) for b in t] for a in x]
            rows = [
                math.log(1 + sum(math.exp(row[m] - row[j]) for m in range(parts) if m != j)) for j, row in enumerate(s)
            ]
            total += sum(rows) / parts
    assert float(mac_loss(features)) == pytest.approx(total / 9)
    assert float(mac_loss(features, "paper_sum")) == pytest.approx(3 * total)


def test_mac_gradient_is_that_of_the_paper_with_sign_and_one_over_the_parts():
    cosines = drawn(4, 4).tanh().requires_grad_()
    mac_of_cosines(cosines).backward()
    s = cosines.tolist()
    for j in range(4):
        others = [m for m in range(4) if m != j]
        positive = 1 / (1 / sum(math.exp(s[j][m] - s[j][j]) for m in others) + 1)  # eq. 4 with its only n = j
        assert float(cosines.grad[j, j]) == pytest.approx(-positive / 4)
        for z in others:  # eq. 5
            negative = 1 / (1 / math.exp(s[j][z] - s[j][j]) + sum(math.exp(s[j][m] - s[j][z]) for m in others))
            assert float(cosines.grad[j, z]) == pytest.approx(negative / 4)


def test_mac_pulls_parts_of_one_number_together_and_is_smooth():
    features = drawn(3, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(mac_loss, (features,))
    (slope,) = torch.autograd.grad(mac_loss(features), features)
    assert mac_loss(features - 0.1 * slope) < mac_loss(features)
    torch.testing.assert_close(mac_loss(3 * features), mac_loss(features))  # lengths do not matter


def test_bad_input_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match="paper_sum"):
        mac_loss(torch.rand(2, 2, 2), "paper")  # type: ignore[arg-type]
    with pytest.raises(FieldmarkError, match="one \\(B, M\\)"):
        ranking_loss(torch.rand(2, 3), torch.rand(2, 2))
