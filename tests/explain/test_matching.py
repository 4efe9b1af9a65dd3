"""Flows, cosines and contributions of two images, against POT, planted answers and sums."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, descriptors, explain
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError

_spec = importlib.util.spec_from_file_location("explain_scenes", Path(__file__).with_name("scenes.py"))
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


@pytest.fixture(scope="module")
def conv4():
    torch.manual_seed(0)
    return backbones.create("conv4", last_pool=False).eval()


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("weights", ["cross_reference", "equal"])
@pytest.mark.parametrize("extractor", ["dense", "feature_pyramid", "grid", "sampling"])
def test_contributions_add_up_to_the_similarity(conv4, extractor, weights, variant):
    found = explain.match(
        conv4, scenes.noise(0), scenes.noise(1), size=32, descriptors=extractor, weights=weights, variant=variant
    )
    assert found.contributions.sum() == pytest.approx(found.similarity, abs=1e-9)
    assert np.allclose(found.contributions, 12.5 / len(found.flow) * found.cosine * found.flow, atol=1e-9)
    assert np.allclose(found.flow.sum(1), found.query_weights, atol=1e-9)
    assert np.allclose(found.flow.sum(0), found.support_weights, atol=1e-9)
    assert found.flow.sum() == pytest.approx(len(found.flow))
    assert len(found.query_boxes) == len(found.support_boxes) == len(found.flow)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_similarity_and_cosines_are_those_of_pixels_and_pot(variant):
    ot = pytest.importorskip("ot", reason="POT is not installed")
    images = scenes.noise(2), scenes.noise(3)
    found = explain.match(scenes.patches(), *images, size=32, weights="equal", variant=variant)
    sets = []
    for image in images:
        cells = image.reshape(4, 8, 4, 8, 3).transpose(0, 2, 4, 1, 3).reshape(16, -1) / 255.0
        cells = (cells - 0.5) / 0.25
        sets.append(cells - cells.mean(1, keepdims=True) if variant == "code" else cells)
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in sets]
    cosine = units[0] @ units[1].T
    assert np.allclose(found.cosine, cosine, atol=1e-5)  # the backbone works in float32
    lowest = ot.emd2(np.ones(16), np.ones(16), 1 - cosine)
    assert found.similarity == pytest.approx(12.5 / 16 * (16 - lowest), abs=1e-5)


def test_an_image_matches_itself_cell_by_cell(conv4):
    image = scenes.noise()
    found = explain.match(conv4, image, image, size=32)
    assert np.allclose(found.flow, np.diag(found.query_weights), atol=1e-9)
    assert found.similarity == pytest.approx(12.5)
    assert found.query_grid == found.support_grid == (4, 4)


def test_pixels_are_one_node():
    image = scenes.noise()
    found = explain.match(backbones.create("pixels"), image, image)
    assert found.flow.tolist() == [[pytest.approx(1.0)]]
    assert found.query_boxes.tolist() == [[0, 0, 32, 32]]


@pytest.mark.parametrize("weights", ["cross_reference", "equal"])
def test_swapped_halves_are_found_where_they_went(weights):
    image = scenes.noise()
    swapped = np.concatenate([image[:, 16:], image[:, :16]], axis=1)
    found = explain.match(scenes.patches(), image, swapped, size=32, weights=weights, variant="paper")
    cells = np.arange(16).reshape(4, 4)
    moved = np.concatenate([cells[:, 2:], cells[:, :2]], axis=1)  # the support's cell at the place of each query cell
    expected = np.zeros((16, 16))
    expected[moved.ravel(), cells.ravel()] = found.query_weights[moved.ravel()]
    assert np.allclose(found.flow, expected, atol=1e-6)
    assert np.allclose(found.cosine[found.flow > 1e-3], 1, atol=1e-6)
    if weights == "equal":
        assert (explain.reconstruct(found) == image).all()


def test_files_of_any_kind_and_what_the_model_sees(tmp_path, conv4):
    image = scenes.noise(4, 60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be upright
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(image).save(upright)
    Image.fromarray(image).rotate(90, expand=True).save(turned, exif=exif)
    found = explain.match(conv4, upright, turned, size=(64, 32), fit="squash")
    assert found.query_image.shape == (64, 32, 3)
    assert (found.query_image == found.support_image).all()
    assert (found.query_name, found.support_name) == ("upright.png", "turned.png")
    assert found.query_grid == (8, 4)


def test_everything_is_json_and_sorted(conv4):
    found = explain.match(conv4, scenes.noise(0), scenes.noise(1), size=32)
    record = json.loads(json.dumps(found.to_dict()))
    added = [one["contribution"] for one in record["matches"]]
    assert added == sorted(added, reverse=True)
    assert sum(added) == pytest.approx(record["similarity"], abs=1e-9)
    assert sum(one["share"] for one in record["matches"]) == pytest.approx(1)
    first = record["matches"][0]
    assert first["query_box"] == record["query"]["boxes"][first["query"]]
    assert first["support_box"] == record["support"]["boxes"][first["support"]]
    assert record["backbone"] == "conv4"
    assert record["weights"] == "cross_reference"
    assert record["query"]["grid"] == [4, 4]


def test_modes_of_model_and_extractor_are_left_as_they_were():
    encoder = Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3).train()
    extractor = descriptors.create("grid").train()
    explain.match(encoder, scenes.noise(0), scenes.noise(1), size=32, descriptors=extractor)
    assert encoder.training
    assert encoder.backbone.training
    assert extractor.training


def test_crops_are_seeded(conv4):
    sets = [
        explain.match(conv4, scenes.noise(0), scenes.noise(1), size=32, descriptors="sampling", seed=seed)
        for seed in (0, 0, 1)
    ]
    assert sets[0].to_dict() == sets[1].to_dict()
    assert (sets[0].query_boxes != sets[2].query_boxes).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "equals"}, "did you mean 'equal'"),
        ({"variant": "papr"}, "did you mean 'paper'"),
        ({"fit": "cropped"}, "did you mean 'crop'"),
        ({"descriptors": "dens"}, "did you mean 'dense'"),
        ({"solver": "simplx"}, "did you mean 'simplex'"),
        ({"size": 0}, "from 1 to 4096"),
    ],
)
def test_bad_options_are_refused_in_one_line(conv4, change, said):
    with pytest.raises(FieldmarkError, match=said) as caught:
        explain.match(conv4, scenes.noise(0), scenes.noise(1), **{"size": 32, **change})
    assert "\n" not in str(caught.value)


def test_more_descriptors_than_can_be_matched_are_refused():
    with pytest.raises(FieldmarkError, match=r"1,089 and 1,089 descriptors; .* smaller size"):
        explain.match(scenes.patches(), scenes.noise(0), scenes.noise(1), size=33 * 8)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), Image.new("L", (4, 4)), Image.new("RGBA", (4, 4))]
)
def test_images_of_another_kind_are_refused(conv4, image):
    with pytest.raises(FieldmarkError, match=r"expected (uint8|RGB)"):
        explain.match(conv4, image, scenes.noise(), size=32)


def test_a_model_with_a_size_of_its_own_refuses_another():
    encoder = Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3, size=64).eval()
    with pytest.raises(FieldmarkError, match="always runs at 64 pixels"):
        explain.match(encoder, scenes.noise(0), scenes.noise(1), size=32)
    assert explain.match(encoder, scenes.noise(0), scenes.noise(1)).query_image.shape == (64, 64, 3)


def test_features_that_are_not_finite_are_refused(conv4):
    broken = backbones.create("conv4")
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(FieldmarkError, match="not finite"):
        explain.match(broken, scenes.noise(0), scenes.noise(1), size=32)
