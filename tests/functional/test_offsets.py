"""Sampling beside the places: equation 8 as a loop, the identity, what lies outside, derivatives."""

import jaxtyping
import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import sample_at_offsets


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shape", [(4, 5), (1, 5), (3, 1), (1, 1)])
def test_no_offset_is_the_identity(draw, padding, shape):
    maps = draw(2, 3, *shape)
    torch.testing.assert_close(sample_at_offsets(maps, torch.zeros(2, 2, *shape).double(), padding), maps)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_equals_equation_8(draw, padding):
    height, width = 3, 4
    maps, offsets = draw(1, 2, height, width), draw(1, 2, height, width)
    found = sample_at_offsets(maps, offsets, padding)
    for y in range(height):
        for x in range(width):
            at_x = x + float(offsets[0, 0, y, x]) * (width - 1) / 2
            at_y = y + float(offsets[0, 1, y, x]) * (height - 1) / 2
            if padding == "border":
                at_x, at_y = min(max(at_x, 0), width - 1), min(max(at_y, 0), height - 1)
            for channel in range(2):
                value = sum(
                    float(maps[0, channel, n, m]) * max(0, 1 - abs(at_x - m)) * max(0, 1 - abs(at_y - n))
                    for n in range(height)
                    for m in range(width)
                )
                assert float(found[0, channel, y, x]) == pytest.approx(value, abs=1e-12)


def test_derivatives(draw):
    maps, offsets = draw(1, 2, 3, 3).requires_grad_(), (0.3 * draw(1, 2, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(sample_at_offsets, (maps, offsets))


def test_half_precision_is_computed_in_float32(draw):
    maps, offsets = draw(1, 2, 3, 3), draw(1, 2, 3, 3)
    assert sample_at_offsets(maps.bfloat16(), offsets.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert sample_at_offsets(maps, offsets).dtype == torch.float64


def test_refused(draw, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=r"expected \(B, 2, h, w\)"):
        sample_at_offsets(draw(1, 2, 3, 3), draw(1, 2, 3, 4))
    with pytest.raises(FieldmarkError, match="padding"):
        sample_at_offsets(draw(1, 2, 3, 3), draw(1, 2, 3, 3), "zero")
