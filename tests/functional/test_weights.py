"""Node weights against the official code's, a plain loop, and what must hold."""

import numpy as np
import pytest
import torch

from fieldmark import functional
from fieldmark.functional.weights import mean_descriptor


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["deepemd_opencv_a", "deepemd_opencv_signed", "deepemd_opencv_pyramid21"])
def test_official_weights(golden, name):
    arrays = golden(name)
    query, support = (torch.tensor(arrays[key]).flatten(2).mT for key in ("query", "proto"))
    ours = functional.cross_reference_weights(query, support)
    np.testing.assert_allclose(ours.query, arrays["weight_query"], atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(ours.support.transpose(0, 1), arrays["weight_proto"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("variant", "offset"), [("code", 1e-3), ("paper", 0.0)])
def test_against_a_loop(draw, variant, offset):
    query, support = draw(2, 3, 4, 6), draw(2, 5, 7, 6)
    ours = functional.cross_reference_weights(query, support, variant)
    assert ours.query.shape == (2, 3, 5, 4)
    assert ours.support.shape == (2, 3, 5, 7)
    for e, q, s in np.ndindex(2, 3, 5):
        u, v = query[e, q].numpy(), support[e, s].numpy()
        np.testing.assert_allclose(ours.query[e, q, s], np.maximum(u @ v.mean(0), 0) + offset)
        np.testing.assert_allclose(ours.support[e, q, s], np.maximum(v @ u.mean(0), 0) + offset)


def test_padding_counts_for_nothing(draw):
    query, support = draw(3, 4, 6), draw(2, 5, 6)
    padded = torch.cat([support, 100 * draw(2, 2, 6)], 1)
    real = torch.arange(7).expand(2, -1) < 5
    torch.testing.assert_close(mean_descriptor(padded, real), support.mean(1))
    for weights in (functional.cross_reference_weights, functional.equal_weights):
        ours, expected = weights(query, padded, real=real), weights(query, support)
        torch.testing.assert_close(ours.query, expected.query)
        torch.testing.assert_close(ours.support[..., :5], expected.support)
        assert (ours.support[..., 5:] == 0).all()


def test_normalised_to_a_total(draw):
    weights = draw(3, 2, 5).abs()
    ours = functional.normalise_weights(weights, 7)
    torch.testing.assert_close(ours.sum(-1), torch.full((3, 2), 7.0).double())
    torch.testing.assert_close(ours / ours[..., :1], weights / weights[..., :1])
    assert torch.autograd.gradcheck(lambda w: functional.normalise_weights(w, 7), weights.requires_grad_())


def test_no_weight_at_all_becomes_equal_weights():
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    real = torch.tensor([[True, True, False], [True, True, True]])
    ours = functional.normalise_weights(weights, 3, real=real)
    torch.testing.assert_close(ours, torch.tensor([[1.5, 1.5, 0.0], [3.0, 0.0, 0.0]]))
    ours.square().sum().backward()
    assert torch.isfinite(weights.grad).all()
