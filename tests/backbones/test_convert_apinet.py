"""A file as API-Net's code saves it, made up here, gives the network it was made of."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from fieldmark.backbones import convert_checkpoint, load_model
from fieldmark.classifiers import classifier_of
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError

ROWS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@pytest.fixture(scope="module")
def network():
    """A whole ResNet-101 by timm, whose entries have torchvision's names."""
    torch.manual_seed(0)
    made = timm.create_model("resnet101", num_classes=7).eval()
    for name, value in made.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.05)
    return made


@pytest.fixture
def official(network):
    """The same by the names of the official module, which puts the ResNet's children in a row."""
    weights = {}
    for key, value in network.state_dict().items():
        first, rest = key.split(".", 1)
        weights[f"fc.{rest}" if first == "fc" else f"conv.{ROWS[first]}.{rest}"] = value
    for name, shape in {"map1": (512, 4096), "map2": (2048, 512)}.items():
        weights |= {f"{name}.weight": torch.zeros(shape), f"{name}.bias": torch.zeros(shape[0])}
    return weights


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_backbone_and_classifier_are_those_of_the_file(prefix, official, network, tmp_path, capsys):
    path, out = tmp_path / "model_best.pth.tar", tmp_path / "apinet.safetensors"
    torch.save({"epoch": 99, "best_prec1": 88.6, "state_dict": {prefix + k: v for k, v in official.items()}}, path)
    assert cli.main(["convert", str(path), "--from", "apinet", "--out", str(out), "--json", "-"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["dropped"] == ["map1.weight", "map1.bias", "map2.weight", "map2.bias"]
    assert summary["training_class_count"] == 7
    encoder, facts = load_model(out)
    assert (facts["backbone"], encoder.crop, facts["manifest"]["size"]) == ("timm:resnet101", 448, [512, 512])
    assert encoder.classifier.class_names[:2] == ("class_001", "class_002")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((images - mean) / std)
        found = classifier_of(encoder)(encoder, images)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_classes_get_their_names(official, tmp_path, capsys):
    path, out, names = tmp_path / "a.pth", tmp_path / "a.safetensors", tmp_path / "classes.txt"
    torch.save(official, path)
    names.write_text("".join(f"{n} {n:03d}.Bird_{n}\n" for n in range(1, 8)))
    command = ["convert", str(path), "--from", "apinet", "--out", str(out), "--class-names", str(names)]
    assert cli.main(command) == 0
    assert load_model(out)[0].classifier.class_names == tuple(f"{n:03d}.Bird_{n}" for n in range(1, 8))
    names.write_text("a\nb\n")
    capsys.readouterr()
    assert cli.main(command) == 2
    assert "has 2 different names in 2 lines; expected 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: {k: v for k, v in w.items() if not k.startswith("fc")}, "no checkpoint of API-Net's code"),
        (lambda w: {k: v for k, v in w.items() if not k.startswith("conv.6.22")}, "3-4-22-3 blocks"),
        (lambda w: w | {"head.weight": torch.zeros(2)}, "it has 'head.weight'"),
        (lambda w: w | {"fc.weight": torch.zeros(7, 3)}, r"fc.weight has shape \(7, 3\); expected \(7, 2048\)"),
    ],
)
def test_other_files_are_refused(change, text, official, tmp_path):
    torch.save(change(official), tmp_path / "a.pth")
    with pytest.raises(FieldmarkError, match=text):
        convert_checkpoint(tmp_path / "a.pth", "apinet")


def test_another_backbone_than_was_asked_for(official, tmp_path):
    torch.save(official, tmp_path / "a.pth")
    with pytest.raises(FieldmarkError, match="'resnet50' was asked for"):
        convert_checkpoint(tmp_path / "a.pth", "apinet", "resnet50")
