"""Spatial manipulation: the identity at first, its limit, and what it learns from planted shifts."""

import pytest
import torch
from torch.nn import functional as F

from fieldmark.alignment import SpatialManipulation
from fieldmark.errors import FieldmarkError
from fieldmark.functional import sample_at_offsets


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_begins_as_the_identity(padding):
    torch.manual_seed(0)
    aligned, query = torch.randn(2, 3, 6, 5, 5, dtype=torch.float64)
    module = SpatialManipulation(6, padding=padding).double()
    assert module.offsets(aligned, query).abs().max() == 0
    torch.testing.assert_close(module(aligned, query), aligned)


def test_at_first_only_the_last_convolution_has_a_gradient_and_after_a_step_all_have():
    torch.manual_seed(0)
    aligned, query = torch.randn(2, 3, 6, 5, 5)
    module = SpatialManipulation(6)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def slopes():
        optimizer.zero_grad()
        (module(aligned, query) - query).square().mean().backward()
        return {name: float(one.grad.abs().max()) for name, one in module.named_parameters()}

    first = slopes()
    assert {name for name, slope in first.items() if slope > 0} == {"last.weight", "last.bias"}
    optimizer.step()
    assert all(slope > 0 for slope in slopes().values())


def test_offsets_keep_their_limit_and_move_the_map():
    torch.manual_seed(0)
    aligned, query = torch.randn(2, 3, 6, 5, 5)
    module = SpatialManipulation(6, max_offset=0.25, hidden=8)
    torch.nn.init.normal_(module.last.weight)
    offsets = module.eval().offsets(aligned, query)
    assert 0.2 < offsets.abs().max() <= 0.25
    torch.testing.assert_close(module(aligned, query), sample_at_offsets(aligned, offsets))
    assert module.first.out_channels == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "at least 1"),
        ({"channels": 4, "hidden": 0}, "hidden"),
        ({"channels": 4, "max_offset": 0.0}, "above 0"),
        ({"channels": 4, "padding": "borders"}, "did you mean 'border'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(FieldmarkError, match=message):
        SpatialManipulation(**options)
    with pytest.raises(FieldmarkError, match="for both"):
        SpatialManipulation(4)(torch.ones(1, 4, 2, 2), torch.ones(1, 4, 2, 3))


SIDE, CHANNELS = 10, 8


def shifted(images, generator):
    """Smooth random maps seen through a window, and through the same window shifted by up to two places."""
    coarse = torch.randn(images, CHANNELS, 6, 6, generator=generator)
    scene = F.interpolate(coarse, (SIDE + 8, SIDE + 8), mode="bicubic", align_corners=True)
    angle, length = (
        6.2832 * torch.rand(images, generator=generator),
        0.5 + 1.5 * torch.rand(images, generator=generator),
    )
    shift = torch.stack([angle.cos(), angle.sin()], dim=1) * length.unsqueeze(1)  # in places, x and y
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), dim=-1) + 4.0

    def window(by):
        return F.grid_sample(scene, (grid + by.view(-1, 1, 1, 2)) * 2 / (SIDE + 7) - 1, align_corners=True)

    return window(torch.zeros_like(shift)), window(shift), shift


def test_trained_on_shifted_parts_it_finds_the_offsets_of_new_ones():
    """Learned from the distance alone; offsets below half a place, four fifths of the distance gone."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    module = SpatialManipulation(CHANNELS, padding="border", hidden=32)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    steps = 250
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        support, query, _ = shifted(32, generator)
        loss = (module(support, query) - query).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    support, query, shift = shifted(64, generator)
    module.eval()
    inner = slice(2, -2)  # what has left the map cannot be found
    with torch.no_grad():
        offsets, moved = module.offsets(support, query), module(support, query)
    error = (offsets * (SIDE - 1) / 2 - shift[..., None, None]).norm(dim=1)[:, inner, inner].mean()
    before, after = ((one - query).square()[..., inner, inner].mean() for one in (support, moved))
    print(f"mean offset error {error:.3f} places, distance {before:.4f} -> {after:.4f}")
    assert error < 0.5
    assert after < 0.2 * before
