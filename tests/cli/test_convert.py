import json

import pytest
import torch

from fieldmark import backbones
from fieldmark.backbones import load_model
from fieldmark.cli import main as cli


@pytest.fixture
def checkpoint(tmp_path):
    """A file as the official training scripts write it: nested, with a classifier."""
    torch.manual_seed(0)
    backbone = backbones.create("conv4", last_pool=False)
    entries = backbone.state_dict() | {"classifier.weight": torch.zeros(64, 64), "classifier.bias": torch.zeros(64)}
    path = tmp_path / "official.pth"
    torch.save({"model": {f"module.{key}": value for key, value in entries.items()}, "epoch": 3}, path)
    return path, backbone.eval()


def test_converted_model_gives_the_same_maps(checkpoint, tmp_path, capsys):
    path, backbone = checkpoint
    out = tmp_path / "model.safetensors"
    assert cli.main(["convert", str(path), "--from", "scl", "--out", str(out), "--json", "-"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["training_class_count"] == 64
    encoder, facts = load_model(out)
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(encoder(images), backbone(encoder.prepare(images)), atol=1e-6)
    assert facts["converted_from"] == "official.pth"
    assert encoder.mean.flatten()[0] == pytest.approx(120.39586422 / 255)


def test_normalisation_can_be_given(checkpoint, tmp_path):
    out = tmp_path / "model.safetensors"
    arguments = ["convert", str(checkpoint[0]), "--from", "rfs", "--out", str(out), "--half", "--size", "84"]
    assert cli.main([*arguments, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2"]) == 0
    encoder, _ = load_model(out)
    assert encoder.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert encoder.size == 84


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{file}", "--from", "scl", "--size", "-3"), "--size is -3; expected a number of pixels of at least 1"),
        (("nothing.pth", "--from", "scl"), "nothing.pth"),
        (("{file}", "--from", "slc"), "did you mean 'scl'"),
        (("{file}", "--from", "timm"), "--backbone"),
        (("{file}", "--from", "scl", "--mean", "1,2"), "three numbers"),
    ],
)
def test_bad_requests(checkpoint, tmp_path, capsys, arguments, message):
    filled = [text.format(file=checkpoint[0]) for text in arguments]
    assert cli.main(["convert", *filled, "--out", str(tmp_path / "x.safetensors")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


def test_junk_is_refused(tmp_path, capsys):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    assert cli.main(["convert", str(tmp_path / "junk.pth"), "--from", "scl", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_deepemd_sees_the_middle_of_squashed_images(tmp_path):
    """As its code evaluates: 92 pixels, whatever the shape, and the middle 84 of them."""
    path, out = tmp_path / "max_acc.pth", tmp_path / "model.safetensors"
    entries = backbones.create("resnet12").state_dict()
    torch.save({"params": {f"encoder.{key}": value for key, value in entries.items()}}, path)
    assert cli.main(["convert", str(path), "--from", "deepemd", "--out", str(out)]) == 0
    encoder, facts = load_model(out)
    assert facts["manifest"] == {"size": [92, 92], "fit": "squash"}
    images = torch.rand(1, 3, 92, 92)
    assert torch.equal(encoder.prepare(images), encoder.prepare(images[..., 4:88, 4:88]))
