"""`fieldmark analyse` on the embedded data set and on a folder, as a user would call it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones
from fieldmark.backbones import Encoder, save_model
from fieldmark.cli import main as cli
from fieldmark.cli.analyse import PARTS


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Three classes of eight images that differ in one bright bar."""
    rng = np.random.default_rng(0)
    for c in range(3):
        folder = tmp_path / "photos" / f"class $_{c}"
        folder.mkdir(parents=True)
        for i in range(8):
            array = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            array[10 * c : 10 * c + 10] += 150
            Image.fromarray(array).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)
    return save_model(tmp_path / "model.safetensors", encoder, {})


SMALL = ("--size", 32, "--queries", 3, "--neighbours", 4)


def test_all_parts_of_a_checkpoint_on_a_folder(photos, model, tmp_path, capsys):
    out = tmp_path / "analysis"
    status, shown, err = run(
        capsys, "analyse", model, "--root", photos, *SMALL, "--out", out, "--baseline", "untrained", "--layer", "layer3"
    )
    assert status == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["analysis.json", *sorted(f"{part}.png" for part in PARTS)]
    for part in PARTS:
        with Image.open(out / f"{part}.png") as picture:
            assert picture.width == 1560
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    found = json.loads((out / "analysis.json").read_text())
    first, second = found["models"].values()
    assert len(found["models"]) == 2
    assert np.shape(first["neighbours"]["nearest"]) == (3, 4)
    assert np.shape(first["grad_cam"]["images"][0]["cams"]) == (2, 4, 4)
    assert first["grad_cam"]["classifier_accuracy"] > 0.9
    assert second.keys() == {"spectrum", "clusters"}
    assert sum(second["spectrum"]["explained_variance"]) == pytest.approx(1)
    assert "Davies-Bouldin index" in shown


def test_one_part_of_a_backbone_by_name_as_json(photos, tmp_path, capsys):
    out = tmp_path / "a" / "b"
    status, shown, err = run(
        capsys, "analyse", "pixels", "--root", photos, *SMALL, "--out", out, "--what", "neighbours", "--json", "-"
    )
    assert status == 0, err
    numbers = json.loads(shown)["models"]["pixels"]
    assert numbers.keys() == {"neighbours"}
    assert np.all(numbers["neighbours"]["hits"])  # bars are what pixels show
    assert sorted(path.name for path in out.iterdir()) == ["analysis.json", "neighbours.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--what", "neighbors"), "unknown part of the analysis 'neighbors'; did you mean 'neighbours'"),
        (("--what", ","), "--what names nothing"),
        (("--queries", 0), "--queries is 0; expected 1 to 23"),
        (("--neighbours", 24), "--neighbours is 24; expected 1 to 23, as there are 24 images"),
        (("--layer", "layer9"), "unknown layer of backbone 'conv4' 'layer9'; did you mean 'layer"),
        (("--layer", "layer4.1.bias"), "unknown layer"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(photos, tmp_path, capsys, options, message):
    out = tmp_path / "analysis"
    status, _, err = run(capsys, "analyse", "conv4", "--root", photos, "--size", 32, "--out", out, *options)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_a_file_is_no_folder(photos, tmp_path, capsys):
    target = tmp_path / "taken"
    target.write_text("mine")
    status, _, err = run(capsys, "analyse", "conv4", "--root", photos, "--out", target)
    assert status == 2
    assert "is a file; expected a folder" in err
    assert target.read_text() == "mine"
