"""The soft mask: the equation as a loop, its range, derivatives."""

import math

import pytest
import torch

from fieldmark.functional import foreground_mask


def test_equals_equation_2():
    maps = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = foreground_mask(maps)
    for image, masks in zip(maps.tolist(), found.tolist(), strict=True):
        mean = [sum(column) / 6 for column in zip(*image, strict=True)]
        for place, mask in zip(image, masks, strict=True):
            product = sum(a * b for a, b in zip(mean, place, strict=True))
            assert mask == pytest.approx((product / math.hypot(*mean) / math.hypot(*place) + 1) / 2, abs=1e-12)


def test_runs_from_0_to_1_and_from_a_half_where_nothing_is_negative():
    maps = torch.randn(50, 9, 2, generator=torch.Generator().manual_seed(0))
    assert 0 <= foreground_mask(maps).min() < 0.2
    assert 0.8 < foreground_mask(maps).max() <= 1
    assert foreground_mask(maps.relu()).min() >= 0.5
    assert foreground_mask(torch.zeros(3, 2)).tolist() == [0.5] * 3


def test_derivatives():
    maps = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(foreground_mask, (maps,))
