"""A linear layer on any backbone: what it computes, and that a model with it is saved, loaded and rebuilt."""

import pytest
import torch

from fieldmark import backbones
from fieldmark.backbones import Encoder, load_model, save_model
from fieldmark.errors import FieldmarkError


@pytest.fixture(params=["conv4", "resnet18", "test_vit", "timm:test_resnet"])
def projected(request):
    torch.manual_seed(0)
    return backbones.create(request.param, project=12).eval()


def test_every_place_is_projected_and_the_mean_of_the_places_is_the_projected_mean(projected):
    images = torch.rand(2, 3, projected.default_size, projected.default_size)
    with torch.no_grad():
        below, maps = projected.trunk(images), projected(images)
    weight, bias = projected.projection.weight.detach()[:, :, 0, 0], projected.projection.bias.detach()
    assert maps.shape == (2, 12, *below.shape[2:])
    torch.testing.assert_close(maps[1, :, 0, -1], weight @ below[1, :, 0, -1] + bias, rtol=1e-4, atol=1e-4)
    pooled = below.mean((-2, -1)) @ weight.T + bias
    torch.testing.assert_close(maps.mean((-2, -1)), pooled, rtol=1e-4, atol=1e-4)


def test_options_rebuild_it(projected):
    again = backbones.create(projected.name, **projected.options)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in projected.state_dict().items()
    }
    assert again.options == projected.options
    assert (again.channels, again.mean, again.facts) == (12, projected.trunk.mean, projected.trunk.facts)


def test_a_saved_model_comes_back_exactly(projected, tmp_path):
    encoder = Encoder(projected, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)).eval()
    save_model(tmp_path / "model.safetensors", encoder)
    back, _ = load_model(tmp_path)
    side = projected.default_size
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert torch.equal(back(images), encoder(images))
    assert back.channels == 12


def test_the_trunk_keeps_the_weights_it_was_asked_for(tmp_path):
    """The layer comes on top of the weights of a file; the model's own file then never asks for that file."""
    from safetensors.torch import save_file

    trunk = backbones.create("test_resnet")
    path = tmp_path / "weights.safetensors"
    save_file(trunk.model.state_dict(), path)
    projected = backbones.create("test_resnet", project=4, pretrained=str(path))
    for key, value in trunk.state_dict().items():
        assert torch.equal(projected.trunk.state_dict()[key], value)
    assert projected.options["pretrained"] is False
    assert projected.facts["pretrained"] is True


def test_description_counts_the_layer():
    plain, facts = backbones.describe("conv4"), backbones.describe("conv4", project=32)
    assert facts.output_shape == (32, *plain.output_shape[1:])
    assert facts.parameters == plain.parameters + 64 * 32 + 32


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv4", {"project": 0}, "project is 0; expected at least 1"),
        ("conv4", {"projekt": 8}, "unknown option of backbone 'conv4' 'projekt'"),
        ("test_resnet", {"projct": 8}, "did you mean 'project'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(FieldmarkError, match=message):
        backbones.create(name, **options)
