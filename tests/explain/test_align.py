"""Spatial alignment of two images: sums against plain loops and the head itself, planted shifts, bad input."""

import importlib.util
import json
import math
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, explain, heads
from fieldmark.backbones import Encoder, TrainedHead
from fieldmark.errors import FieldmarkError

_spec = importlib.util.spec_from_file_location("explain_scenes_of_align", Path(__file__).with_name("scenes.py"))
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)

EVERYTHING = {"foreground": "full", "reduce": True, "manipulation": True, "temperature": 0.5}
DISTANCES = ["squared_euclidean", "euclidean", "sum", "pooled"]


@pytest.fixture(scope="module")
def conv4():
    torch.manual_seed(0)
    return backbones.create("conv4", last_pool=False).eval()


@pytest.fixture(scope="module")
def trained(conv4):
    """A model that carries a head with all parts, none of them at its start."""
    head = heads.create("spatial_alignment", **EVERYTHING)
    head.setup(64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in head.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator) * 0.1
                value.add_(noise.abs() if "running_var" in name else noise)
    kept = TrainedHead("spatial_alignment", head.made_as[1], head.state_dict())
    return Encoder(conv4, (0.5,) * 3, (0.25,) * 3, head=kept).eval()


def maps_of(encoder, *images):
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return encoder(batch).double()


def plain_score(query, support, temperature, distance):
    """Correspondence without g and the distance, place by place; query and support are (C, h, w)."""
    query = query.flatten(1).T.tolist()
    support = support.flatten(1).T.tolist()

    def cosine(one, other):
        product = sum(a * b for a, b in zip(one, other, strict=True))
        return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))

    differences = []
    for place in query:
        weights = [math.exp(cosine(place, other) / temperature) for other in support]
        aligned = [
            sum(w * o[c] for w, o in zip(weights, support, strict=True)) / sum(weights) for c in range(len(place))
        ]
        differences.append([a - b for a, b in zip(place, aligned, strict=True)])
    lengths = [sum(d * d for d in one) for one in differences]
    if distance == "sum":
        return -sum(lengths)
    if distance == "euclidean":
        return -sum(math.sqrt(one) for one in lengths) / len(lengths)
    if distance == "pooled":
        mean = [sum(one[c] for one in differences) / len(differences) for c in range(len(differences[0]))]
        return -sum(d * d for d in mean)
    return -sum(lengths) / len(lengths)


@pytest.mark.parametrize("distance", DISTANCES)
def test_contributions_add_up_to_the_score_of_a_plain_loop(distance):
    images = scenes.noise(0, 24, 16), scenes.noise(1, 24, 16)
    found = explain.align(scenes.patches(), *images, size=(24, 16), distance=distance, temperature=0.2)
    expected = plain_score(*maps_of(scenes.patches(), *images), 0.2, distance)
    assert found.score == pytest.approx(expected, rel=1e-9)
    assert found.contributions.sum() == pytest.approx(found.score, rel=1e-12)
    assert found.contributions.shape == (6,)
    assert found.grid == (3, 2)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("foreground", ["none", "features", "mask", "full"])
def test_the_score_is_that_of_the_trained_head(trained, foreground, distance):
    """The head scores sets of places in a path of its own."""
    images = scenes.noise(2), scenes.noise(3)
    options = {"foreground": foreground, "distance": distance, "scale": 3.0}
    found = explain.align(trained, *images, size=32, **options)
    head = heads.create_for(trained, "spatial_alignment", **options).double()
    query, support = (one.flatten(1).mT.view(1, 1, 16, 64) for one in maps_of(trained, *images))
    with torch.no_grad():
        expected = head(support, torch.zeros(1, 1, dtype=torch.long), query, way=1).item()
    assert found.score == pytest.approx(expected, rel=1e-6)
    assert list(found.heat) == ["query", "support", "correspondence", "manipulation"]
    assert np.allclose(found.correspondence.sum(1), 1)
    assert np.abs(found.offsets).max() > 0
    assert found.facts["trained_head"]
    assert sorted(found.masks) == (["query", "support"] if foreground in ("full", "mask") else [])


def test_trained_options_are_taken_and_can_be_changed(trained):
    found = explain.align(trained, scenes.noise(0), scenes.noise(1), size=32)
    assert {key: found.facts["head_options"][key] for key in EVERYTHING} == EVERYTHING
    found = explain.align(trained, scenes.noise(0), scenes.noise(1), size=32, manipulation=False, temperature=0.1)
    assert list(found.correlations) == ["support", "correspondence"]
    assert found.offsets is None
    assert found.facts["head_options"]["temperature"] == 0.1


def test_heat_maps_are_channel_maxima(conv4):
    images = scenes.noise(0), scenes.noise(1)
    found = explain.align(conv4, *images, size=32, correspondence=False)
    maps = maps_of(Encoder(conv4, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval(), *images).numpy()
    assert list(found.heat) == ["query", "support"]
    for one, heat in zip(maps, found.heat.values(), strict=True):
        expected = [[max(one[c, y, x] for c in range(64)) for x in range(4)] for y in range(4)]
        assert heat == pytest.approx(np.array(expected))
    norms = explain.align(conv4, *images, size=32, correspondence=False, heat="norm").heat["support"]
    assert norms == pytest.approx(np.sqrt((maps[1] ** 2).sum(0)))


def test_correlations_are_cosines_of_places(conv4):
    found = explain.align(conv4, scenes.noise(0, 32, 48), scenes.noise(1, 32, 48), size=(32, 48))
    assert found.grid == (4, 6)
    assert sorted(found.correlations) == ["correspondence", "support"]
    for matrix in found.correlations.values():
        assert matrix.shape == (24, 24)
        assert np.abs(matrix).max() <= 1 + 1e-9
    same = explain.align(conv4, scenes.noise(0), scenes.noise(0), size=32, correspondence=False)
    assert same.diagonal("support") == pytest.approx(1)
    assert np.allclose(same.correlations["support"], same.correlations["support"].T)


@pytest.mark.parametrize("shift", [(0, 8), (16, 8)])
def test_a_rolled_copy_is_brought_back(shift):
    """Each patch is described by its pixels alone, so the alignment has to be exact."""
    image = scenes.noise(5, 32, 40)
    found = explain.align(scenes.patches(), image, np.roll(image, shift, (0, 1)), size=(32, 40), temperature=0.005)
    assert found.diagonal("support") < 0.5
    assert found.diagonal("correspondence") == pytest.approx(1, abs=1e-6)
    rows, columns = np.mgrid[:4, :5]
    moved = (rows + shift[0] // 8) % 4 * 5 + (columns + shift[1] // 8) % 5
    assert (found.correspondence.argmax(1) == moved.ravel()).all()
    assert found.score == pytest.approx(0, abs=1e-6)
    blurred = explain.align(scenes.patches(), image, np.roll(image, shift, (0, 1)), size=(32, 40), temperature=1.0)
    assert blurred.score < -0.1  # at the paper's temperature hardly anything is aligned without training


def test_masks_are_those_of_a_plain_loop(conv4):
    images = scenes.noise(0), scenes.noise(1)
    found = explain.align(conv4, *images, size=32, foreground="mask")
    maps = maps_of(Encoder(conv4, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval(), *images).numpy()
    for one, mask in zip(maps, found.masks.values(), strict=True):
        mean = one.mean((1, 2))
        for y, x in np.ndindex(4, 4):
            cosine = mean @ one[:, y, x] / np.linalg.norm(mean) / np.linalg.norm(one[:, y, x])
            assert mask[y, x] == pytest.approx((cosine + 1) / 2)
        assert (mask >= 0).all()
        assert (mask <= 1).all()


def test_offsets_are_in_places(trained):
    """A head whose last layer says 'one place to the right' everywhere."""
    head = heads.create("spatial_alignment", manipulation=True, correspondence=False, padding="border")
    head.setup(64)
    with torch.no_grad():
        head.manipulate.last.bias[0] = math.atanh(2 / 3)  # 2 is the width of 4 places, from the first to the last
    found = explain.align(trained, scenes.noise(0), scenes.noise(1), size=32, head=head)
    assert np.allclose(found.offsets[0], 1, atol=1e-6)
    assert np.allclose(found.offsets[1], 0)
    assert np.allclose(found.heat["manipulation"][:, :3], found.heat["support"][:, 1:], atol=1e-5)


def test_everything_is_json_and_sorted(trained):
    found = explain.align(trained, scenes.noise(0), scenes.noise(1), size=32)
    record = json.loads(json.dumps(found.to_dict()))
    added = [one["contribution"] for one in record["places"]]
    assert added == sorted(added)
    assert sum(added) == pytest.approx(record["score"], rel=1e-9)
    assert sum(one["share"] for one in record["places"]) == pytest.approx(1)
    first = record["places"][0]
    assert first["box"] == found.boxes[first["place"]].tolist()
    assert first["takes_most_from"] == int(found.correspondence[first["place"]].argmax())
    assert set(first["cosine"]) == set(record["diagonal"]) == {"support", "correspondence", "manipulation"}
    assert record["query"]["grid"] == [4, 4]


def test_no_distance_has_no_shares(tmp_path):
    image = scenes.noise()
    found = explain.align(scenes.patches(), image, image, size=32, correspondence=False)
    assert found.score == 0
    assert found.shares is None
    assert found.to_dict()["places"][0]["share"] is None
    explain.save_picture(explain.alignment_picture(found), tmp_path / "same.png")


def test_files_of_any_kind(tmp_path, conv4):
    path = tmp_path / "one.jpg"
    Image.fromarray(scenes.noise(4, 60, 40)).save(path)
    found = explain.align(conv4, path, scenes.noise(0, 64, 64), size=(64, 32), fit="squash")
    assert found.query_image.shape == (64, 32, 3)
    assert (found.query_name, found.support_name) == ("one.jpg", "support")
    assert found.grid == (8, 4)


def test_mode_and_head_of_the_model_are_left_as_they_were(trained):
    encoder = trained.train()
    head = heads.create("spatial_alignment")
    explain.align(encoder, scenes.noise(0), scenes.noise(1), size=32, head=head)
    assert encoder.training
    assert head.training
    trained.eval()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fit": "cropped"}, "did you mean 'crop'"),
        ({"heat": "norms"}, "did you mean 'norm'"),
        ({"distance": "sums"}, "did you mean 'sum'"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"temperature": 0.0}, "temperature"),
        ({"manipulation": True}, "this model brings none"),
        ({"size": 0}, "from 1 to 4096"),
        ({"head": heads.create("spatial_alignment"), "scale": 2.0}, "expected one of the two"),
        ({"head": heads.create("spatial_alignment", manipulation=True)}, "learned parts without weights"),
    ],
)
def test_bad_options_are_refused_in_one_line(conv4, change, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=said) as caught:
        explain.align(conv4, scenes.noise(0), scenes.noise(1), **{"size": 32, **change})
    assert "\n" not in str(caught.value)


def test_a_part_that_was_not_trained_is_refused(conv4):
    kept = TrainedHead("spatial_alignment", {"temperature": 0.5}, {})
    encoder = Encoder(conv4, (0.5,) * 3, (0.25,) * 3, head=kept).eval()
    with pytest.raises(FieldmarkError, match="not trained with this"):
        explain.align(encoder, scenes.noise(0), scenes.noise(1), size=32, reduce=True)


def test_more_places_than_can_be_shown_are_refused():
    with pytest.raises(FieldmarkError, match=r"1,089 places each; .* smaller size"):
        explain.align(scenes.patches(), scenes.noise(0), scenes.noise(1), size=33 * 8)


def test_features_that_are_not_finite_are_refused():
    broken = backbones.create("conv4")
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(FieldmarkError, match="not finite"):
        explain.align(broken, scenes.noise(0), scenes.noise(1), size=32)
