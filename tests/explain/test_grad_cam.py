"""Grad-CAM against its formula by hand, on a tiny network."""

import pytest
import torch
from torch import nn

from fieldmark.backbones import Backbone, Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.explain import grad_cam


class Tiny(Backbone):
    def __init__(self):
        super().__init__(5, 8)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.flat = nn.Flatten()

    def forward(self, images):
        maps = self.second(self.act(self.first(images)))
        self.flat(maps)
        return maps


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(Tiny(), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def score(maps):
    """Different for each image, and not linear."""
    return (maps.mean((2, 3)) * torch.arange(5.0)).sum(1).sin() + maps.square().amax((1, 2, 3))


def by_hand(activations, top):
    """Image after image, channel after channel."""
    cams = []
    for n in range(len(activations)):
        part = activations[n : n + 1].detach().requires_grad_()
        score(top(part)).backward()
        cam = torch.zeros(part.shape[2:])
        for channel in range(part.shape[1]):
            cam = cam + part.grad[0, channel].mean() * part[0, channel].detach()
        cams.append(cam.relu())
    return torch.stack(cams)


def test_last_maps(encoder, images):
    expected = by_hand(encoder(images), lambda maps: maps)
    torch.testing.assert_close(grad_cam(encoder, images, score), expected)
    assert expected.max() > 0
    assert (expected == 0).any()


@pytest.mark.parametrize("layer", ["act", "second"])
def test_a_layer_before(encoder, images, layer):
    backbone = encoder.backbone
    activations = backbone.act(backbone.first(encoder.prepare(images)))
    expected = by_hand(activations, backbone.second) if layer == "act" else by_hand(encoder(images), lambda maps: maps)
    torch.testing.assert_close(grad_cam(encoder, images, score, layer), expected)


def test_it_works_inside_inference_mode_and_on_bytes(encoder, images):
    pixels = (images * 255).to(torch.uint8)
    expected = grad_cam(encoder, pixels.float() / 255, score, "act")
    with torch.inference_mode():
        torch.testing.assert_close(grad_cam(encoder, pixels, score, "act"), expected)
        torch.testing.assert_close(grad_cam(encoder, pixels, score), grad_cam(encoder, pixels, score, "second"))


def test_the_model_is_left_as_it_was(encoder, images):
    encoder.train()
    encoder.backbone.first.weight.requires_grad_(False)
    grad_cam(encoder, images, score, "act")
    assert encoder.training
    assert [p.requires_grad for p in encoder.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in encoder.parameters())
    assert not encoder.backbone.act._forward_hooks


@pytest.mark.parametrize(
    ("layer", "message"), [("secnod", "unknown layer of backbone 'tiny' 'secnod'; did you mean 'second'"),
                           ("flat", "layer 'flat' gives no map")]
)  # fmt: skip
def test_refused(encoder, images, layer, message):
    with pytest.raises(FieldmarkError, match=message):
        grad_cam(encoder, images, score, layer)
    assert not encoder.backbone.flat._forward_hooks
