"""Glyphs: new classes in every split, the same bytes for a seed, no look-alikes, neither trivial nor impossible."""

import time

import numpy as np
import pytest

from fieldmark.data import glyphs
from fieldmark.errors import FieldmarkError


@pytest.fixture(scope="module")
def test_split():
    return glyphs.load_glyphs("test")


def test_splits_share_neither_class_nor_script():
    parts = {split: glyphs.class_names(split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in parts.items()} == {"train": 149, "val": 28, "test": 60}
    scripts = {split: {name.split("/")[0] for name in names} for split, names in parts.items()}
    assert not scripts["train"] & scripts["val"] | scripts["train"] & scripts["test"] | scripts["val"] & scripts["test"]
    everything = glyphs.class_names("all")
    assert everything == parts["train"] + parts["val"] + parts["test"] == glyphs.class_names(None)
    assert len(set(everything)) == 237
    assert glyphs.class_names("trainval") == parts["train"] + parts["val"]


def test_no_two_characters_look_alike():
    characters = "".join(char for _, char in glyphs._characters("all"))
    masks, first = glyphs._masks(characters)
    flat = masks[first[:-1]].flatten(1).numpy()
    shared = np.stack([np.minimum(flat, row).sum(1) / np.maximum(flat, row).sum(1) for row in flat])
    np.fill_diagonal(shared, 0)
    a, b = np.unravel_index(shared.argmax(), shared.shape)
    assert shared.max() < 0.72, f"{characters[a]} and {characters[b]} overlap by {shared.max():.2f}"


def test_every_character_comes_in_several_fonts():
    characters = "".join(char for _, char in glyphs._characters("all"))
    assert np.diff(glyphs._masks(characters)[1]).min() >= 2


def test_the_seed_decides_every_byte(test_split):
    again = glyphs.load_glyphs("test")
    assert np.array_equal(test_split.images, again.images)
    assert test_split.manifest == again.manifest
    other = glyphs.load_glyphs("test", seed=1)
    assert other.manifest.checksum != test_split.manifest.checksum
    assert not np.array_equal(other.images, again.images)


def test_a_class_does_not_depend_on_split_or_count(test_split):
    everything, _ = glyphs.render_glyphs("all", instances=7)
    by_class = test_split.images.reshape(60, 40, 32, 32, 3)
    assert np.array_equal(everything.reshape(237, 7, 32, 32, 3)[-60:], by_class[:, :7])


def test_store_and_manifest(test_split):
    assert len(test_split) == 2400
    assert test_split.images.shape == (2400, 32, 32, 3)
    assert test_split.class_counts().tolist() == [40] * 60
    manifest = test_split.manifest
    assert (manifest.name, manifest.split, tuple(manifest.size)) == ("glyphs", "test", (32, 32))
    assert len(np.unique(test_split.images.reshape(2400, -1), axis=0)) == 2400


def test_stated_mean_and_deviation_are_those_of_the_training_split():
    images = glyphs.render_glyphs("train")[0] / 255
    np.testing.assert_allclose(images.mean((0, 1, 2)), glyphs.MEAN, atol=0.0006)
    np.testing.assert_allclose(images.std((0, 1, 2)), glyphs.STD, atol=0.0006)


@pytest.mark.parametrize("size", [16, 84])
def test_other_sizes_show_the_same_pictures(size):
    small, _ = glyphs.render_glyphs("val", size=16, instances=2)
    images, labels = glyphs.render_glyphs("val", size=size, instances=2)
    assert images.shape == (56, size, size, 3)
    assert labels.tolist() == np.repeat(np.arange(28), 2).tolist()
    # Fine noise differs between sizes, the drawing does not.
    assert abs(images.mean((1, 2)) - small.mean((1, 2))).max() < 12


def test_pixels_alone_are_a_middling_baseline(test_split):
    """5-way 1-shot, nearest neighbour of pixels: above chance with room above it."""
    pixels = test_split.images.reshape(60, 40, -1).astype(np.float32) / 255
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        classes = rng.choice(60, 5, replace=False)
        drawn = pixels[classes[:, None], rng.choice(40, 11, replace=False)]
        support, query = drawn[:, 0], drawn[:, 1:].reshape(50, -1)
        distances = (support**2).sum(1) - 2 * query @ support.T
        hits.append((distances.argmin(1) == np.repeat(np.arange(5), 10)).mean())
    assert 0.30 < np.mean(hits) < 0.70


def test_made_in_seconds():
    start = time.process_time()
    glyphs.render_glyphs("all")
    assert time.process_time() - start < 20  # about 2 s on an idle core


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tests"}, "did you mean 'test'"),
        ({"size": 8}, "size is 8; expected a whole number from 16 to 128"),
        ({"size": 32.5}, "size is 32.5"),
        ({"instances": 0}, "instances is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(FieldmarkError, match=message):
        glyphs.load_glyphs(**options)
