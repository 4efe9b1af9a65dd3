"""Distances of part boxes to key points: on boxes and points whose distances are known, and on a small CUB."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fieldmark import backbones, classifiers
from fieldmark.backbones import Backbone, Encoder, save_model
from fieldmark.classifiers.trained import keep
from fieldmark.cli.main import main
from fieldmark.data import ImageStore
from fieldmark.data.images import fit_image
from fieldmark.data.manifest import Manifest
from fieldmark.data.sources import open_source
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.point_distance import (
    evaluate_point_distance,
    fitted_points,
    point_distance,
    read_key_points,
)


def test_distances_are_to_the_nearest_point():
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 40, 20]])  # middles (5, 5) and (30, 10)
    points = np.array([[5.0, 8], [33, 14], [0, 0]])
    assert point_distance(boxes, points).tolist() == [3, 5]
    with pytest.raises(FieldmarkError, match="no key point"):
        point_distance(boxes, np.empty((0, 2)))


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("shape", [(60, 100), (90, 70), (64, 64)])
def test_points_go_where_their_pixels_go(fit, shape):
    """A bright spot is drawn at the point, and looked for in the fitted image."""
    spot = np.array([[0.45 * shape[1], 0.55 * shape[0]]])
    canvas = np.zeros((*shape, 3), np.uint8)
    x, y = spot[0].astype(int)
    canvas[y - 2 : y + 2, x - 2 : x + 2] = 255
    fitted = fit_image(Image.fromarray(canvas), 48, fit).astype(float)[..., 0]
    if fit == "pad":  # the margin is white as well
        border = fit_image(Image.fromarray(np.zeros((*shape, 3), np.uint8)), 48, fit)[..., 0] == 255
        fitted[border] = 0
    rows, columns = np.mgrid[:48, :48] + 0.5
    middle = np.array([(fitted * columns).sum(), (fitted * rows).sum()]) / fitted.sum()
    (found,) = fitted_points(np.array([[x, y]], np.float64), shape, 48, fit)
    assert np.abs(found - middle).max() < 0.7


def test_a_centre_crop_moves_the_origin():
    whole = fitted_points(np.array([[30.0, 40.0]]), (64, 64), 64)
    np.testing.assert_allclose(fitted_points(np.array([[30.0, 40.0]]), (64, 64), 64, crop=48), whole - 8)


@pytest.fixture
def birds(tmp_path):
    """Two classes of CUB, one image each in test; a bright spot with a key point in its middle, and a hidden one."""
    root = tmp_path / "CUB_200_2011"
    names = ["001.Black_footed_Albatross/a.png", "001.Black_footed_Albatross/b.png", "002.Laysan_Albatross/c.png"]
    places = [(40, 24), (16, 16), (32, 48)]
    for name, (x, y) in zip(names, places, strict=True):
        canvas = np.zeros((64, 64, 3), np.uint8)
        canvas[y - 8 : y + 8, x - 8 : x + 8] = 255
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(canvas).save(root / "images" / name)
    (root / "parts").mkdir()
    lines = {
        "images.txt": [f"{n} {name}" for n, name in enumerate(names, 1)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2"],
        "train_test_split.txt": ["1 0", "2 0", "3 0"],
        "parts/part_locs.txt": [
            line for n, (x, y) in enumerate(places, 1) for line in (f"{n} 1 {x}.0 {y}.0 1", f"{n} 2 0.0 0.0 0")
        ],
    }
    lines["parts/part_locs.txt"][-2] = "3 1 0.0 0.0 0"  # nothing is visible in the last one
    for name, rows in lines.items():
        (root / name).write_text("\n".join(rows) + "\n")
    return root


def test_only_visible_key_points_are_read(birds):
    found = read_key_points(birds)
    assert found["001.Black_footed_Albatross/a.png"].tolist() == [[40, 24]]
    assert found["002.Laysan_Albatross/c.png"].shape == (0, 2)
    with pytest.raises(FieldmarkError, match="part_locs"):
        read_key_points(birds / "images")


class Bright(Backbone):
    """A map of stride 8 of the brightness."""

    def __init__(self):
        super().__init__(1, 64, mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(self, images):
        return nn.functional.avg_pool2d(images[:, :1], 8)


def test_boxes_on_the_key_points_have_small_distances(birds, monkeypatch):
    torch.manual_seed(0)
    encoder = Encoder(Bright()).eval()
    made = classifiers.create("ssanet", parts=1, proposals=1, scales=3)
    made.setup(1, 2)
    with torch.no_grad():  # the navigator looks for what is brightest over 2 x 2 cells
        for one in made.navigator.parameters():
            one.zero_()
        made.navigator.levels[0].weight[0, 0] = torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]])
        made.navigator.scores[0].weight[1, 0] = 1
    encoder.classifier = keep(made, ["a", "b"])
    # The registered data set insists on all its classes.
    monkeypatch.setattr("fieldmark.evaluation.point_distance.load", lambda _, root, split, **how: _store(root, **how))
    found = evaluate_point_distance(encoder, birds, size=64, fit="squash", progress=False)
    assert found.images == 2
    assert found.size == (64, 64)
    assert found.proposed[0] < 8
    assert found.aligned is not None
    record = found.to_dict()
    assert record["mean"]["proposed"] == pytest.approx(found.proposed[0])


def test_the_command_prints_a_row_for_each_kind_of_box(birds, tmp_path, monkeypatch, capsys):
    encoder = Encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    for kind in ("nts", "ssanet"):
        torch.manual_seed(0)
        made = classifiers.create(kind, parts=2, proposals=2)
        made.setup(encoder.channels, 2)
        encoder.classifier = keep(made, ["a", "b"])
        save_model(tmp_path / f"{kind}.safetensors", encoder)
    monkeypatch.setattr("fieldmark.evaluation.point_distance.load", lambda _, root, split, **how: _store(root, **how))
    command = ["eval", str(tmp_path / "ssanet.safetensors"), "--task", "point-distance", "--root", str(birds)]
    command += ["--size", "64", "--fit", "squash", "--baseline", str(tmp_path / "nts.safetensors")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("proposed") == 2  # of either model
    assert printed.count("aligned") == 1  # of ssanet alone
    assert main([*command, "--json", str(tmp_path / "found.json")]) == 0
    first, second = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert len(first["aligned"]) == 2
    assert second["aligned"] is None
    assert main([*command, "--shot", "1"]) == 2
    assert "--shot is an option of --task few-shot" in capsys.readouterr().err
    assert main([*command[:4]]) == 2
    assert "key points" in capsys.readouterr().err


def _store(root, size, fit):
    source = open_source(root)
    names = [name for name in source.names() if name.endswith(".png")]
    images = np.stack([fit_image(source.image(name), size, fit) for name in names])
    labels = [int("002" in name) for name in names]
    return ImageStore.from_arrays(images, labels, ["a", "b"], Manifest("cub", fit=fit), names)
