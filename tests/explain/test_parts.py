"""Pictures of parts: what is drawn is where the model looks, and the command writes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, classifiers, explain
from fieldmark.backbones import Encoder, save_model
from fieldmark.classifiers.trained import classifier_of, keep
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError


def model(name="ssanet", crop=None, **options):
    torch.manual_seed(0)
    encoder = Encoder(backbones.create("conv4", channels=8), mean=(0.5,) * 3, std=(0.25,) * 3, crop=crop).eval()
    made = classifiers.create(name, **options)
    made.setup(encoder.channels, 3)
    encoder.classifier = keep(made, ["apple", "pear", "plum"])
    return encoder


def picture(seed=0, shape=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_boxes_are_those_of_the_classifier():
    encoder, images = model(), [picture(0), picture(1)]
    found = explain.parts(encoder, images, size=64)
    with torch.no_grad():
        given = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        looked = classifier_of(encoder).look(encoder, given)
    for i, view in enumerate(found.views):
        np.testing.assert_array_equal(view.image, images[i])
        np.testing.assert_allclose(view.look.proposed, looked.found.boxes[i])
        np.testing.assert_allclose(view.look.aligned, looked.boxes[i], atol=1e-4)
        assert view.look.guess == ["apple", "pear", "plum"][int(looked.logits[i].argmax())]
        np.testing.assert_allclose(view.look.maps, looked.maps[i].mean(1).flatten(1), atol=1e-5)


def test_histograms_are_those_of_the_poolings():
    encoder = model()
    found = explain.parts(encoder, [picture()], size=64).views[0].look
    with torch.no_grad():
        maps = classifier_of(encoder).look(encoder, torch.from_numpy(picture()).permute(2, 0, 1)[None] / 255).maps[0]
    for part in range(4):
        for name, axis in (("rows", 1), ("columns", 0)):
            values = []
            for n in range(3):
                cells = [(n, m) if axis == 1 else (m, n) for m in range(3)]
                patches = torch.stack([maps[part, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for i, j in cells])
                values.append(patches.amax(0).mean(0).flatten())
            np.testing.assert_allclose(getattr(found, name)[part], torch.cat(values), atol=1e-5)


def test_key_points_and_boxes_are_in_pixels_of_the_picture():
    wide = picture(shape=(64, 128))
    found = explain.parts(model(crop=48), [wide], key_points=[np.array([[64.0, 32.0]])], size=64)
    assert found.views[0].image.shape == (48, 48, 3)
    np.testing.assert_allclose(found.views[0].points, [[24, 24]])  # the middle
    assert found.views[0].look.proposed.max() <= 48
    record = found.to_dict()["images"][0]["model"]
    middles = np.array(record["aligned"]).reshape(4, 2, 2).mean(1)
    np.testing.assert_allclose(record["aligned_point_distance"], np.linalg.norm(middles - 24, axis=1))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_picture_has_a_panel_for_each_look(beside, count):
    other = model("nts") if beside else None
    found = explain.parts(model(), [picture(n) for n in range(count)], beside=other, size=64)
    figure = explain.part_picture(found, ["boxes"])
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == count * (3 if beside else 2)
    figure = explain.part_picture(found, ["pooling"], part=2)
    bars = [axes for axes in figure.axes if axes.containers]
    assert [len(one.containers[0]) for one in bars] == count * ([54, 49, 49] if beside else [54, 49])


def test_the_other_models_maps_are_of_the_same_boxes():
    encoder = model()
    view = explain.parts(encoder, [picture()], beside=model(), size=64).views[0]
    np.testing.assert_allclose(view.maps_beside, view.look.maps, atol=1e-5)  # the same model: the same maps
    other = explain.parts(encoder, [picture()], beside=model("nts"), size=64).views[0]
    np.testing.assert_allclose(other.maps_beside, view.look.maps, atol=1e-5)  # the same backbone
    assert not np.allclose(other.beside.proposed, view.look.aligned)


def test_models_without_alignment_or_oriented_pooling_are_drawn_without():
    found = explain.parts(model("nts"), [picture()], size=64)
    assert explain.part_drawable(found) == ["boxes"]
    assert found.views[0].look.aligned is None
    explain.part_picture(found)
    with pytest.raises(FieldmarkError, match="oriented pooling"):
        explain.part_picture(found, ["pooling"])


def test_wrong_input_is_refused_in_one_line():
    encoder = model()
    found = explain.parts(encoder, [picture()], size=64)
    plain = model("linear")
    for bad in (
        lambda: explain.parts(plain, [picture()], size=64),
        lambda: explain.parts(encoder, [], size=64),
        lambda: explain.parts(encoder, [picture()], size=64, key_points=[]),
        lambda: explain.part_picture(found, part=5),
        lambda: explain.part_picture(found, ["box"]),
        lambda: explain.part_picture(explain.parts(encoder, [picture()] * 9, size=64)),
    ):
        with pytest.raises(FieldmarkError) as caught:
            bad()
        assert "\n" not in str(caught.value)


def test_the_command_writes_picture_and_record(tmp_path, capsys):
    paths = []
    for n in range(3):
        paths.append(str(tmp_path / f"image{n}.png"))
        Image.fromarray(picture(n)).save(paths[-1])
    for name in ("ssanet", "nts"):
        save_model(tmp_path / f"{name}.safetensors", model(name), {"manifest": {"size": [64, 64], "fit": "crop"}})
    out, record = tmp_path / "parts.png", tmp_path / "parts.json"
    chosen = ["--parts", "--model", str(tmp_path / "ssanet.safetensors"), "--out", str(out)]
    assert (
        cli.main(["explain", *paths, *chosen, "--beside", str(tmp_path / "nts.safetensors"), "--json", str(record)])
        == 0
    )
    with Image.open(out) as written:
        assert written.size[0] > 1000
    assert [len(one["model"]["aligned"]) for one in json.loads(record.read_text())["images"]] == [4, 4, 4]
    assert cli.main(["explain", paths[0], *chosen]) == 0
    assert "to key point" in capsys.readouterr().out
    for words in (
        [*paths, "--out", str(out)],  # three images are for --parts alone
        [paths[0], "--parts", "--out", str(out)],  # a bare backbone has no classifier
        [*paths, *chosen, "--part", "0"],
        [*paths[:2], "--part", "2", "--out", str(out)],
        [*paths, *chosen, "--out", paths[1]],
        [*paths, *chosen, "--key-points", str(tmp_path)],
    ):
        assert cli.main(["explain", *words]) != 0
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
