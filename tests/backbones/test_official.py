"""conv4 and the ResNet-12s against recorded outputs of the official SCL and DeepEMD code."""

import numpy as np
import pytest
import torch

from fieldmark import backbones

CASES = {
    "deepemd_resnet12": ("resnet12", {}, "feat"),
    "scl_convnet4": ("conv4", {"last_pool": False}, "spatial"),
    "scl_resnet12": ("resnet12", {"drop_rate": 0.1, "drop_block": 5}, "spatial"),
    "scl_resnet12_cifar": ("resnet12", {"drop_rate": 0.1, "drop_block": 2}, "spatial"),
    "scl_seresnet12": ("seresnet12", {}, "spatial"),
}


@pytest.mark.parametrize("rule", ["A", "B"])
@pytest.mark.parametrize("case", CASES)
def test_output_equals_official(case, rule, golden, official):
    name, options, array = CASES[case]
    recorded = golden(f"{case}_rule{rule}")
    weights = official(case, rule, int(recorded["weight_seed"]))
    total = sum(w.double().abs().sum().item() for w in weights.values() if w.ndim >= 2)
    np.testing.assert_allclose(total, recorded["weight_abs_sum"], rtol=1e-9)
    backbone = backbones.create(name, **options).eval()
    result = backbone.load_state_dict(weights, strict=False)
    assert all(key.endswith("drop.passes") for key in result.missing_keys)
    assert all(key.startswith("classifier.") for key in result.unexpected_keys)
    inputs = [key for key in recorded if key.startswith("in") and key[2:].isdigit()]
    assert inputs
    for key in inputs:
        expected = recorded[f"out{key[2:]}_{array}"]
        with torch.no_grad():
            maps = backbone(torch.from_numpy(recorded[key])).numpy()
        assert np.abs(maps - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_key_names_equal_official(case, official):
    name, options, _ = CASES[case]
    options = {key: value for key, value in options.items() if not key.startswith("drop")}
    ours = backbones.create(name, **options).state_dict()
    theirs = {key: value for key, value in official(case).items() if not key.startswith("classifier.")}
    assert {k: tuple(v.shape) for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}


def test_sizes_of_maps():
    """The sizes that METHODS.md and the papers state."""
    for name, options, size, shape in [
        ("conv4", {}, 84, (64, 5, 5)),
        ("conv4", {"last_pool": False}, 32, (64, 4, 4)),
        ("resnet12", {}, 32, (640, 2, 2)),
        ("resnet12-512", {"last_pool": False}, 84, (512, 10, 10)),
        ("resnet18", {"stem": "small"}, 84, (512, 11, 11)),
        ("wrn-28-10", {}, 32, (640, 8, 8)),
    ]:
        with torch.device("meta"), torch.no_grad():
            assert backbones.create(name, **options).eval()(torch.empty(1, 3, size, size)).shape[1:] == shape
