"""Gradient caching against the plain step, and against what its second pass must not do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fieldmark import backbones, methods
from fieldmark.backbones import Encoder
from fieldmark.methods import ImageBatch
from fieldmark.methods.gradient_cache import pooled_features

LABELS = torch.arange(5).repeat_interleave(2)
METHODS = {"apinet": {"hidden": 6, "dropout": 0.0}, "triplet": {}}


def images():
    return torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def encoder(name="conv4", **options):
    torch.manual_seed(1)
    made = Encoder(backbones.create(name, **options), mean=(0.5,) * 3, std=(0.25,) * 3)
    made.train()(images())  # running statistics that are not those of a fresh model
    return made


def step(encode, cache, name="apinet", **options):
    """Loss and all gradients."""
    torch.manual_seed(2)
    objective = methods.create(name, **{**METHODS[name], "gradient_cache": cache, **options})
    objective.setup(encode.channels, 5)
    torch.manual_seed(3)
    encode.zero_grad()
    loss = objective(encode, ImageBatch(images(), LABELS))["loss"]
    loss.backward()
    return loss.detach(), [value.grad.clone() for value in (*encode.parameters(), *objective.parameters())]


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("cache", [1, 3, 4, 10, 50])
def test_gradients_are_those_of_the_plain_step(name, cache):
    encode = encoder().eval().double()
    plain, cached = (step(encode, size, name) for size in (None, cache))
    torch.testing.assert_close(cached[0], plain[0], rtol=1e-6, atol=1e-9)
    assert len(plain[1]) > 10
    assert max(float(one.abs().max()) for one in plain[1]) > 1e-3
    for mine, theirs in zip(cached[1], plain[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def test_in_float32_too():
    encode = encoder().eval()
    for mine, theirs in zip(step(encode, 3)[1], step(encode, None)[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def in_parts(encode, size):
    """A plain encoder, whole graph kept, whose batch norms see the micro-batches."""

    class Parts(nn.Module):
        channels = encode.channels

        def __init__(self):
            super().__init__()
            self.inner = encode

        def forward(self, batch):
            return torch.cat([self.inner(part) for part in batch.split(size)])

    return Parts()


@pytest.mark.parametrize(
    ("name", "options"), [("conv4", {}), ("resnet12", {"drop_block": 2, "drop_rate": 0.4, "drop_steps": 3})]
)
def test_with_batch_statistics_they_are_those_of_a_network_that_sees_micro_batches(name, options):
    """Dropout is drawn once more from the same state, counters and running statistics move once a micro-batch."""
    one = encoder(name, **options).double()
    other = copy.deepcopy(one)
    cached, plain = step(one, 4), step(in_parts(other, 4), None)
    torch.testing.assert_close(cached[0], plain[0])
    for mine, theirs in zip(cached[1], plain[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
    buffers = dict(one.named_buffers())
    assert any("running_mean" in key for key in buffers)
    for key, value in other.named_buffers():
        torch.testing.assert_close(buffers[key], value, msg=key)
    whole = step(copy.deepcopy(other), None)[1]
    assert any(not torch.allclose(a, b) for a, b in zip(whole, cached[1], strict=True))


def test_dropout_in_the_encoder_is_the_same_in_both_passes():
    """A linear loss with a given gradient: the gradient of a weight tells which values were dropped."""

    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(7))
            self.drop = nn.Dropout(0.5)

        def forward(self, batch):
            return self.drop(self.scale.expand(len(batch), 7))[:, :, None, None]

    encode = Dropping()
    torch.manual_seed(5)
    pooled = pooled_features(encode, torch.zeros(8, 3, 4, 4), 3)
    expected = pooled.detach().sum(0)
    torch.manual_seed(6)  # the second pass must not depend on what is drawn in between
    pooled.sum().backward()
    torch.testing.assert_close(encode.scale.grad, expected)
    assert expected.count_nonzero() > 0
    assert expected.unique().numel() > 1


def test_the_state_of_the_generator_goes_on_as_after_one_pass():
    encode = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5))
    after = []
    for backward in (False, True):
        torch.manual_seed(7)
        pooled = pooled_features(encode, images(), 4)
        if backward:
            pooled.sum().backward()
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_no_more_than_a_micro_batch_is_encoded_at_a_time():
    sizes = []

    def encode(batch):
        sizes.append(len(batch))
        return weight * batch

    weight = torch.ones(1, requires_grad=True)
    pooled_features(encode, images(), 4).sum().backward()
    assert sizes == [4, 4, 2, 2, 4, 4]
    sizes.clear()
    with torch.no_grad():
        pooled_features(encode, images(), 4)
    assert sizes == [10]


def test_the_graph_may_be_followed_twice():
    encode = encoder()
    pooled = pooled_features(encode, images(), 4).square().sum()
    given = list(encode.parameters())
    first = torch.autograd.grad(pooled, given, retain_graph=True)
    second = torch.autograd.grad(pooled, given)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_the_graph_kept_is_smaller():
    """Bytes that the graph holds between the passes."""

    def held(cache):
        kept = {}

        def pack(value):
            kept[value.data_ptr()] = value.numel() * value.element_size()
            return value

        encode = encoder().eval()
        given = images()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            pooled_features(encode, given, cache)
        kept.pop(given.data_ptr(), None)
        return sum(kept.values())

    assert held(2) < held(None) / 20
