"""What holds for every extractor, those registered later included."""

import json

import pytest
import torch

from fieldmark import descriptors
from fieldmark.descriptors import DESCRIPTORS, describe
from fieldmark.errors import FieldmarkError

EVERY = pytest.mark.parametrize("name", DESCRIPTORS.names())


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encode():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 5, 6, stride=6)
    return lambda images: layer(images if images.is_floating_point() else images.float() / 255)


def seeded():
    return torch.Generator().manual_seed(3)


@EVERY
def test_images_become_sets_and_carry_gradients_to_the_encoder(name, images, encode):
    extractor = descriptors.create(name).eval()
    sets = extractor(encode, images, seeded())
    assert sets.shape[::2] == (4, 5)
    sets.square().sum().backward()
    assert torch.isfinite(sets).all()
    # Bytes and numbers from 0 to 1 are the same images.
    torch.testing.assert_close(extractor(encode, images.float() / 255, seeded()), sets)


@EVERY
def test_from_maps_and_crops_say_how_often_it_encodes(name, images, encode):
    seen = []
    extractor = descriptors.create(name)
    extractor(lambda batch: seen.append(len(batch)) or encode(batch), images)
    assert sum(seen) == 4 * extractor.crops
    assert extractor.from_maps == (extractor.crops == 1)


@EVERY
def test_it_has_no_weights_and_its_options_make_it_again(name, images, encode):
    extractor = descriptors.create(name)
    assert extractor.state_dict() == {}
    assert extractor.name == name
    again = descriptors.create(name, **json.loads(json.dumps(extractor.options)))
    assert again.options == extractor.options
    assert torch.equal(again.eval()(encode, images, seeded()), extractor.eval()(encode, images, seeded()))
    assert DESCRIPTORS.get(name).source


@EVERY
def test_the_pooled_vector_is_that_of_the_whole_image(name, images, encode):
    found = describe(encode, images, ["local", "pooled"], descriptors.create(name).eval(), seeded())
    expected = torch.stack([encode(image[None])[0].mean((1, 2)) for image in images]).unsqueeze(1)
    torch.testing.assert_close(found["pooled"], expected)
    assert torch.equal(found["local"], descriptors.create(name).eval()(encode, images, seeded()))


@pytest.mark.parametrize("name", ["dense", "feature_pyramid", "grid"])
def test_permuting_the_batch_permutes_the_result(name, images, encode):
    extractor, order = descriptors.create(name).eval(), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(extractor(encode, images[order]), extractor(encode, images)[order])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gird", {}, "unknown extractor 'gird'; did you mean 'grid'"),
        ("grid", {"ratios": 2}, "did you mean 'ratio'"),
        ("grid", {"sizes": []}, r"sizes of extractor grid is \[\]"),
        ("grid", {"sizes": [3, 0]}, "expected whole numbers of at least 1"),
        ("grid", {"sizes": "5,3,2"}, "sizes of extractor grid is '5,3,2'"),
        ("grid", {"ratio": float("nan")}, "ratio of extractor grid is nan"),
        ("grid", {"ratio_range": [3, 1]}, "two numbers in rising order, at least 1"),
        ("grid", {"size": 0}, "size of extractor grid is 0"),
        ("feature_pyramid", {"levels": [True]}, "levels of extractor feature_pyramid"),
        ("sampling", {"patches": 0}, "patches of extractor sampling"),
        ("sampling", {"scale": [0, 1]}, "scale of extractor sampling is .* above 0 and at most 1"),
        ("sampling", {"aspect": 1}, "aspect of extractor sampling is 1"),
        ("sampling", {"flip": 1.5}, "expected a probability"),
        ("dense", {"levels": [1]}, "unknown option of extractor 'dense'"),
    ],
)
def test_wrong_options_are_refused_where_it_is_made(name, options, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        descriptors.create(name, **options)
    assert "\n" not in str(caught.value)


def test_options_beside_a_made_extractor_are_refused():
    with pytest.raises(FieldmarkError, match="made already"):
        descriptors.as_extractor(descriptors.create("grid"), {"sizes": [2]})
