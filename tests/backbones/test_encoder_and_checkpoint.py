import pytest
import torch
from safetensors.torch import save_file

from fieldmark import backbones
from fieldmark.backbones import Encoder, load_model, save_model
from fieldmark.errors import FieldmarkError


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), size=32).eval()


def test_normalisation_is_the_formula(encoder):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).view(3, 1, 1)
    assert torch.allclose(encoder.prepare(images).double(), expected, atol=1e-5)
    assert torch.allclose(encoder.prepare(images), encoder.prepare(images.float() / 255))


def test_images_of_another_size_are_resized(encoder):
    assert encoder.prepare(torch.zeros(1, 3, 50, 40)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32)])
def test_wrong_shapes_are_refused(encoder, shape):
    with pytest.raises(FieldmarkError, match=r"expected \(B, 3, H, W\)"):
        encoder(torch.zeros(shape))


def test_round_trip_is_exact(encoder, tmp_path):
    encoder.backbone.layer1[1].running_mean.normal_()
    images = torch.rand(2, 3, 32, 32)
    save_model(tmp_path / "model.safetensors", encoder, {"seed": 3, "training_classes": {"glyphs": ["a"]}})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        back, facts = load_model(path)
        assert torch.equal(back(images), encoder(images))
        assert facts == {"seed": 3, "training_classes": {"glyphs": ["a"]}}
        assert (back.size, back.backbone.name, back.training) == (32, "conv4", False)


def test_half_precision_file_is_half_as_large_and_close(encoder, tmp_path):
    whole = save_model(tmp_path / "whole.safetensors", encoder)
    half = save_model(tmp_path / "half.safetensors", encoder, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(load_model(half)[0](images), encoder(images), atol=2e-2)


def test_what_is_not_a_model_is_refused(encoder, tmp_path):
    with pytest.raises(FieldmarkError, match="no model at"):
        load_model(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(FieldmarkError, match="not a readable safetensors"):
        load_model(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(FieldmarkError, match="convert it first"):
        load_model(tmp_path / "y.safetensors")
    path = save_model(tmp_path / "z.safetensors", encoder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FieldmarkError, match="may be truncated"):
        load_model(path)


def test_a_backbone_without_normalisation_needs_one():
    with pytest.raises(FieldmarkError, match="no normalisation of its own"):
        Encoder(backbones.create("conv4"))
