import copy
import math

import numpy as np
import pytest
import torch

from fieldmark import backbones
from fieldmark.backbones.dropblock import DropBlock, block_mask
from fieldmark.errors import FieldmarkError

FILES = ["scl_dropblock_a", "scl_dropblock_b2"]


def official_mask(seeds, size):
    """The official pairing, one pair at a time: seed p mod n with cell p mod size**2 (read from the recorded masks)."""
    places = np.argwhere(seeds > 0)
    cells = [(0, 0, i, j) for i in range(size) for j in range(size)]
    before, after = (size - 1) // 2, size // 2
    dropped = np.pad(seeds, ((0, 0), (0, 0), (before, after), (before, after)))
    for pair in range(len(places) * len(cells)):
        dropped[tuple(places[pair % len(places)] + cells[pair % len(cells)])] = 1
    return 1 - dropped


@pytest.mark.parametrize("name", FILES)
def test_mask_equals_official_where_its_squares_are_whole(name, golden):
    recorded = golden(name)
    seeds, size = recorded["seed_mask"], int(recorded["block"])
    np.testing.assert_array_equal(official_mask(seeds, size), recorded["block_mask"])
    mask = block_mask(torch.from_numpy(seeds), size).numpy()
    if math.gcd(int(seeds.sum()), size**2) == 1:
        np.testing.assert_array_equal(mask, recorded["block_mask"])
    assert (mask <= recorded["block_mask"]).all()
    empty = block_mask(torch.zeros(seeds[:1, :1].shape), size).numpy()
    np.testing.assert_array_equal(empty, recorded["empty_block_mask"])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_mask_equals_a_plain_loop(size):
    seeds = (torch.rand(2, 3, 9 - size, 10 - size, generator=torch.Generator().manual_seed(size)) < 0.1).float()
    expected = torch.ones(2, 3, 8, 9)
    for b, c, i, j in seeds.nonzero().tolist():
        expected[b, c, i : i + size, j : j + size] = 0
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(block_mask(seeds, size), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FILES)
def test_forward_equals_official_given_its_mask(name, golden, monkeypatch):
    recorded = golden(name)
    drop = DropBlock(0.1, int(recorded["block"]))
    mask = torch.from_numpy(recorded["block_mask"])
    monkeypatch.setattr("fieldmark.backbones.dropblock.block_mask", lambda seeds, size: mask)
    result = drop(torch.from_numpy(recorded["x"]))
    np.testing.assert_allclose(result.numpy(), recorded["out_given_mask"], rtol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_draw_equals_official(name, golden, monkeypatch):
    recorded = golden(name)
    drop = DropBlock(0.1, int(recorded["block"]))
    monkeypatch.setattr(drop, "seed_rate", lambda height, width: torch.tensor(float(recorded["gamma"])))
    torch.manual_seed({"scl_dropblock_a": 331, "scl_dropblock_b2": 332}[name])
    result = drop(torch.from_numpy(recorded["x"]))
    np.testing.assert_allclose(result.numpy(), recorded["full_forward_torch_seeded"], rtol=1e-6)


def test_schedule_equals_official(golden):
    rows = golden("scl_dropblock_a")["gamma_schedule_nb_drop_feat_block_gamma"]
    assert len(rows) > 10
    for passes, rate, side, size, gamma in rows:
        drop = DropBlock(float(rate), int(size))
        drop.passes.fill_(int(passes))
        np.testing.assert_allclose(drop.seed_rate(int(side), int(side)).item(), gamma, rtol=2e-5, atol=1e-9)


def test_passes_count_in_training_only_and_are_saved():
    drop = DropBlock(0.1, 2, steps=10)
    maps = torch.ones(1, 4, 4, 4)
    for _ in range(3):
        drop(maps)
    drop.eval()
    assert drop(maps) is maps
    again = DropBlock(0.1, 2, steps=10)
    again.load_state_dict(copy.deepcopy(drop.state_dict()))
    assert again.passes.item() == 3


def test_scheduled_share_is_dropped():
    drop = DropBlock(0.2, 3, steps=1)
    torch.manual_seed(0)
    dropped = (drop(torch.ones(64, 32, 12, 12)) == 0).float().mean().item()
    assert 0.15 < dropped <= 0.2  # below the rate, since squares overlap


@pytest.mark.parametrize("side", [32, 64])
def test_block_larger_than_the_map_is_refused(side):
    backbone = backbones.create("resnet12", drop_rate=0.1, drop_block=5)
    with pytest.raises(
        FieldmarkError, match=r"DropBlock of size 5 cannot work on a .x. map; give drop_block . or less"
    ):
        backbone.train()(torch.zeros(1, 3, side, side))
    assert backbone.eval()(torch.zeros(1, 3, side, side)).isfinite().all()


def test_resnet12_drops_by_stage():
    backbone = backbones.create("resnet12", drop_rate=0.1, drop_block=5)
    kinds = [type(getattr(backbone, f"layer{stage}")[0].drop).__name__ for stage in (1, 2, 3, 4)]
    assert kinds == ["Dropout", "Dropout", "DropBlock", "DropBlock"]
    assert not any("drop" in key for key in backbones.create("resnet12").state_dict())
