"""RoI align as two matrix products, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from fieldmark.functional import region_maps


def drawn(shape, image, count=5):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    ends = torch.rand(shape[0], count, 2, 2, generator=generator, dtype=torch.float64).sort(2).values
    boxes = (ends * torch.tensor([image[1], image[0]])).flatten(2)
    boxes[:, 0] = torch.tensor([0, 0, image[1], image[0]])  # the whole image, and a box of no size
    boxes[:, 1, 2:] = boxes[:, 1, :2]
    return maps, boxes


@pytest.mark.parametrize(("image", "grid"), [((224, 224), (7, 7)), ((448, 448), (14, 14)), ((60, 90), (3, 5))])
@pytest.mark.parametrize(("size", "samples"), [(7, 2), (3, 1), (1, 4)])
def test_values_and_gradients_are_torchvisions(image, grid, size, samples):
    maps, boxes = drawn((2, 4, *grid), image)
    found = region_maps(maps, boxes, image, size, samples)
    scale = torch.tensor([grid[1] / image[1], grid[0] / image[0]] * 2, dtype=torch.float64)
    numbers = torch.arange(2).repeat_interleave(5).unsqueeze(1)
    listed = torch.cat([numbers, (boxes * scale).flatten(0, 1)], dim=1)
    wanted = roi_align(maps, listed, size, sampling_ratio=samples, aligned=True).unflatten(0, (2, 5))
    torch.testing.assert_close(found, wanted)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((one * upstream).sum(), maps)[0] for one in (found, wanted))
    torch.testing.assert_close(mine, theirs)


def test_gradcheck():
    maps, boxes = drawn((1, 2, 4, 3), (64, 48), 2)
    assert torch.autograd.gradcheck(lambda given: region_maps(given, boxes, (64, 48), 3), (maps,))
