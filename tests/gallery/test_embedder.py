"""Descriptors are those of the evaluation, do not depend on the images beside, and say what made them."""

import json

import numpy as np
import pytest
import torch

from fieldmark import backbones
from fieldmark.backbones import Encoder, save_model
from fieldmark.errors import FieldmarkError
from fieldmark.gallery import Embedder, Identity


def encoder(seed: int = 0, channels: int = 8) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(backbones.create("conv4", channels=channels), (0.5,) * 3, (0.3,) * 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), np.uint8)


@pytest.fixture
def embedder():
    return Embedder(encoder(), size=32)


def test_descriptors_are_the_map_of_the_backbone_and_its_mean(embedder, images):
    found = embedder.embed(images)
    pixels = torch.from_numpy(embedder.read(images).images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        maps = embedder.encoder.backbone((pixels - 0.5) / 0.3)
    torch.testing.assert_close(found["local"], maps.flatten(2).mT, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["pooled"], maps.mean((2, 3)).unsqueeze(1), atol=1e-5, rtol=1e-4)
    assert found["local"].dtype == torch.float32


@pytest.mark.parametrize("descriptors", ["dense", "feature_pyramid", "grid", "sampling"])
def test_an_image_alone_has_the_descriptors_that_it_has_among_others(images, descriptors):
    embedder = Embedder(encoder(), size=32, descriptors=descriptors)
    together = embedder.embed(images)
    for i in (0, 3):
        for kind, sets in embedder.embed([images[i]]).items():
            torch.testing.assert_close(sets[0], together[kind][i], atol=1e-5, rtol=1e-4)


def test_batches_make_no_difference(images, monkeypatch):
    from fieldmark.gallery import embedder as module

    embedder = Embedder(encoder(), size=32)
    expected = embedder.embed(images, ["local"])["local"]
    monkeypatch.setitem(module._PIXELS_AT_ONCE, "cpu", 2 * 32 * 32)
    torch.testing.assert_close(embedder.embed(images, ["local"])["local"], expected, atol=1e-5, rtol=1e-4)


def test_the_model_is_left_in_evaluation_mode(images):
    model = encoder().train()
    embedder = Embedder(model, size=32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    embedder.embed(images)
    assert not embedder.encoder.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_identity_goes_through_json(embedder):
    identity = embedder.identity
    back = Identity.from_dict(json.loads(json.dumps(identity.to_dict())))
    assert back == identity
    assert back.differences(identity) == []


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (lambda: Embedder(encoder(), size=64), "size 32 x 32 (here: 64 x 64)"),
        (lambda: Embedder(encoder(seed=1), size=32), "weights "),
        (lambda: Embedder(encoder(), size=32, fit="pad"), "fit crop (here: pad)"),
        (lambda: Embedder(encoder(), size=32, descriptors="grid"), "descriptors dense (here: grid)"),
        (lambda: Embedder(Encoder(encoder().backbone, (0.4,) * 3, (0.3,) * 3), size=32), "mean "),
    ],
)
def test_what_differs_is_said_in_words(embedder, other, word):
    words = embedder.identity.differences(other().identity)
    assert any(text.startswith(word) for text in words), words


def test_weights_of_the_same_values_are_the_same_whatever_they_were_read_from(embedder, tmp_path):
    path = save_model(
        tmp_path / "m.safetensors", encoder(), {"manifest": {"name": "x", "size": [32, 32], "fit": "pad"}}
    )
    read = Embedder(path)
    assert read.identity.weights == embedder.identity.weights
    assert read.size == (32, 32)
    assert read.fit == "pad"


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"weights": None}])
def test_an_identity_of_another_version_is_refused(embedder, change):
    facts = {**embedder.identity.to_dict(), **change}
    facts = {key: value for key, value in facts.items() if value is not None or key in ("encoded", "crop")}
    with pytest.raises(FieldmarkError, match="written by another version of fieldmark"):
        Identity.from_dict(facts)


BAD = [
    ({"backbone": "efficientnet_lite_0"}, "did you mean 'efficientnet_lite0'"),
    ({"backbone": "runs/none/model.safetensors"}, "no model at runs/none/model.safetensors"),
    ({"backbone": 3}, "backbone is of type int"),
    ({"backbone": encoder(), "size": 32, "fit": "stretch"}, "stretch"),
    ({"backbone": encoder(), "size": 32, "descriptors": "dens"}, "did you mean 'dense'"),
    ({"backbone": encoder(), "size": 32, "device": "tpu9"}, "tpu9"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[words for _, words in BAD])
def test_what_cannot_be_is_refused_in_one_line(options, words):
    with pytest.raises(FieldmarkError) as caught:
        Embedder(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_image_is_refused(embedder):
    with pytest.raises(FieldmarkError, match="no image to describe"):
        embedder.embed([])


def test_damaged_weights_are_noticed(images):
    broken = encoder()
    with torch.no_grad():
        next(broken.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(FieldmarkError, match="features of image 0 that are not finite"):
        Embedder(broken, size=32).embed(images)
