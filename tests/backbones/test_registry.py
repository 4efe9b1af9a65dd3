"""One contract for every registered backbone; a new entry is tested without being mentioned."""

import inspect

import pytest
import torch

from fieldmark import backbones
from fieldmark.errors import FieldmarkError

OPTIONS = {  # every option away from its default, where the entry takes it
    "channels": 32,
    "last_pool": False,
    "drop_rate": 0.1,
    "drop_block": 2,
    "drop_steps": 10,
    "stem": "small",
    "size": 16,
}


def make(name, **options):
    parameters = inspect.signature(backbones.BACKBONES.get(name).make).parameters
    if "pretrained" in parameters:
        options["pretrained"] = False
    return backbones.create(name, **options)


@pytest.fixture(params=backbones.names())
def name(request):
    return request.param


def test_map_is_as_described_and_independent_of_the_batch(name):
    backbone = make(name).eval()
    facts = backbones.describe(name)
    side = facts.default_size
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = backbone(images)
        alone = backbone(images[1:2])
    assert maps.shape == (3, *facts.output_shape)
    assert facts.output_shape[0] == backbone.channels
    assert maps.isfinite().all()
    assert maps.std() > 0
    torch.testing.assert_close(alone, maps[1:2], rtol=1e-4, atol=1e-5 * maps.abs().max().item())
    assert sum(p.numel() for p in backbone.parameters()) == facts.parameters
    assert facts.source
    assert facts.licence
    assert facts.pretraining


def test_gradient_reaches_every_parameter(name):
    backbone = make(name).train()
    if not list(backbone.parameters()):
        pytest.skip(f"{name} has no parameters")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # timm starts the last of a block at 0, which stops the gradient
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone(images).square().mean().backward()
    still = [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_options_rebuild_the_same_entries(name):
    taken = inspect.signature(backbones.BACKBONES.get(name).make).parameters
    for options in ({}, {key: value for key, value in OPTIONS.items() if key in taken}):
        with torch.device("meta"):
            first = make(name, **options)
            again = backbones.create(first.name, **first.options)
        assert first.name == name
        assert {k: v.shape for k, v in first.state_dict().items()} == {
            k: v.shape for k, v in again.state_dict().items()
        }
        assert again.options == first.options
        assert {k: v for k, v in first.options.items() if k != "pretrained"} == options


def test_unknown_option_names_the_nearest():
    with pytest.raises(FieldmarkError, match="did you mean 'last_pool'"):
        backbones.create("conv4", last_pol=True)
    with pytest.raises(FieldmarkError, match="did you mean 'image_size'"):
        backbones.create("timm:test_vit", image_sise=96)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("conv-4", "conv4"), ("restnet12", "resnet12"), ("vit_tny_patch16_224", "vit_tiny_patch16_224")],
)
def test_unknown_name_gives_the_nearest(given, meant):
    with pytest.raises(FieldmarkError, match=f"unknown backbone '{given}'; did you mean '{meant}'"):
        backbones.create(given)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv4", {"channels": 0}, "channels is 0; expected at least 1"),
        ("resnet12", {"drop_rate": 1.5}, "drop_rate is 1.5; expected at least 0 and below 1"),
        ("resnet12", {"drop_block": 5}, "drop_rate is 0"),
        ("resnet18", {"stem": "small", "pretrained": True}, "no pretrained weights"),
        ("test_vit", {"image_size": 0}, "image_size is 0"),
    ],
)
def test_option_out_of_range_is_refused_when_made(name, options, message):
    with pytest.raises(FieldmarkError, match=message):
        backbones.create(name, **options)
