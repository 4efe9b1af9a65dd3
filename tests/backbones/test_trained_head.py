"""A trained head in the model's own file: there and back, in half the size, missing, damaged."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fieldmark import backbones
from fieldmark.backbones import Encoder, TrainedHead, load_model, save_model
from fieldmark.errors import FieldmarkError

OPTIONS = {"foreground": "full", "temperature": 0.5, "memory": None}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    head = TrainedHead(
        "spatial_alignment",
        OPTIONS,
        {"enhance.conv.weight": torch.randn(4, 3), "enhance.norm.num_batches_tracked": torch.tensor(7)},
    )
    return Encoder(backbones.create("conv4", channels=4), (0.5,) * 3, (0.2,) * 3, head=head)


def test_the_head_comes_back_as_it_was(encoder, tmp_path):
    path = save_model(tmp_path / "model.safetensors", encoder, {"seed": 1})
    back, facts = load_model(path)
    assert (back.head.name, back.head.options, facts) == ("spatial_alignment", OPTIONS, {"seed": 1})
    assert set(back.head.weights) == set(encoder.head.weights)
    for key, value in encoder.head.weights.items():
        assert torch.equal(back.head.weights[key], value)
    assert set(load_file(path)) == set(encoder.backbone.state_dict()) | {f"head.{key}" for key in encoder.head.weights}


def test_half_a_file_keeps_whole_numbers_and_comes_back_as_float32(encoder, tmp_path):
    path = save_model(tmp_path / "model.safetensors", encoder, dtype=torch.float16)
    assert load_file(path)["head.enhance.conv.weight"].dtype == torch.float16
    weights = load_model(path)[0].head.weights
    assert weights["enhance.conv.weight"].dtype == torch.float32
    assert torch.equal(weights["enhance.conv.weight"], encoder.head.weights["enhance.conv.weight"].half().float())
    assert weights["enhance.norm.num_batches_tracked"] == 7


def test_a_file_without_a_head_has_none(encoder, tmp_path):
    encoder.head = None
    path = save_model(tmp_path / "model.safetensors", encoder)
    with safe_open(path, framework="pt") as file:
        assert "head" not in file.metadata()
    assert load_model(path)[0].head is None


@pytest.mark.parametrize("header", ["{", "[]", '{"name": 3, "options": {}}', '{"name": "emd"}', "null"])
def test_a_damaged_head_is_one_clear_line(encoder, tmp_path, header):
    path = save_model(tmp_path / "model.safetensors", encoder)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, "head": header})
    with pytest.raises(FieldmarkError, match=r"model\.safetensors: its trained head cannot be read") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_entries_of_a_head_that_no_header_names_are_refused(encoder, tmp_path):
    path = save_model(tmp_path / "model.safetensors", encoder)
    with safe_open(path, framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "head"}
    save_file(load_file(path), path, metadata)
    with pytest.raises(FieldmarkError, match=r"entry 'head\.enhance.* is on one side only"):
        load_model(path)


def test_the_model_of_a_head_that_is_not_installed_can_still_be_used(encoder, tmp_path):
    encoder.head = TrainedHead("my_plugin", {}, {"weight": torch.zeros(2)})
    path = save_model(tmp_path / "model.safetensors", encoder)
    back, _ = load_model(path)
    assert back.head.name == "my_plugin"
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(back(images), encoder.eval()(images))


def test_a_backbone_with_an_entry_of_the_same_name_is_refused_before_anything_is_written(encoder, tmp_path):
    encoder.backbone.head = torch.nn.Linear(2, 2)
    encoder.head = TrainedHead("emd", {}, {"weight": torch.zeros(2)})
    with pytest.raises(FieldmarkError, match=r"both have an entry 'head\.weight'"):
        save_model(tmp_path / "model.safetensors", encoder)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_header_is_plain_json():
    assert json.loads(TrainedHead("emd", {"shots": "mean"}).header()) == {"name": "emd", "options": {"shots": "mean"}}
