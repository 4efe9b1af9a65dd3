"""Correspondence: the equation as a loop, rows, permutations, temperatures without bounds."""

import math

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import correspondence


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_equations_4_and_5(draw, temperature):
    query, support = draw(5, 3), draw(4, 3)
    found = correspondence(query, support, temperature)
    for i in range(5):
        scores = []
        for j in range(4):
            product = sum(a * b for a, b in zip(query[i].tolist(), support[j].tolist(), strict=True))
            lengths = math.hypot(*query[i].tolist()) * math.hypot(*support[j].tolist())
            scores.append(math.exp(product / lengths / temperature))
        assert found[i].tolist() == pytest.approx([one / sum(scores) for one in scores], abs=1e-12)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-4, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_sum_to_1_at_any_temperature(draw, temperature, dtype):
    query, support = draw(2, 6, 3).to(dtype).requires_grad_(), draw(2, 4, 3).to(dtype)
    found = correspondence(query, support, temperature)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 6, dtype=found.dtype))
    if temperature >= 1e-4:
        found[..., 0].sum().backward()
        assert torch.isfinite(query.grad).all()


def test_a_low_temperature_finds_a_permutation(draw):
    support = draw(3, 9, 6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    found = correspondence(5 * support[:, order], support, 1e-3)
    torch.testing.assert_close(found, torch.eye(9).double()[order].expand(3, -1, -1), atol=1e-9, rtol=0)
    torch.testing.assert_close(found @ support, support[:, order])


def test_no_vector_has_no_direction():
    found = correspondence(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), 0.01)
    assert found.tolist() == [[0.5, 0.5]]


def test_derivatives(draw):
    assert torch.autograd.gradcheck(
        lambda a, b: correspondence(a, b, 0.5), (draw(3, 2).requires_grad_(), draw(4, 2).requires_grad_())
    )


def test_autocast_is_left_outside(draw):
    query, support = draw(4, 3).float(), draw(4, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = correspondence(query, support, 0.01)
    assert torch.equal(inside, correspondence(query, support, 0.01))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_refused(temperature):
    with pytest.raises(FieldmarkError, match="expected a number above 0"):
        correspondence(torch.ones(1, 2), torch.ones(1, 2), temperature)
