import pytest
import torch

from fieldmark import backbones, descriptors


def test_every_place_keeps_its_place():
    maps = torch.arange(2 * 2 * 3 * 4, dtype=torch.float32).view(2, 2, 3, 4)
    sets = descriptors.create("dense")(lambda images: maps, torch.zeros(2, 3, 8, 8))
    assert sets.shape == (2, 12, 2)
    for row in range(3):
        for column in range(4):
            assert torch.equal(sets[:, row * 4 + column], maps[:, :, row, column])


def test_tokens_of_a_vision_transformer_are_descriptors():
    """Against timm's own tokens, without those that stand for no place."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = backbones.create("test_vit").eval()
    images = torch.randn(2, 3, backbone.default_size, backbone.default_size)
    with torch.no_grad():
        sets = descriptors.create("dense")(backbone, images)
        tokens = backbone.model.forward_features(images)[:, backbone.model.num_prefix_tokens :]
    assert sets.shape[1] > 1
    torch.testing.assert_close(sets, tokens)
