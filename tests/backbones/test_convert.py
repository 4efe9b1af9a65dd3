import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fieldmark import backbones
from fieldmark.backbones.weights import read_weights
from fieldmark.errors import FieldmarkError

convert = backbones.convert_checkpoint


@pytest.mark.parametrize(
    ("case", "format", "wrap", "name"),
    [
        ("scl_convnet4", "scl", lambda w: {"opt": argparse.Namespace(lr=0.05), "model": w}, "conv4"),
        ("scl_resnet12", "rfs", lambda w: {"model": {f"module.{k}": v for k, v in w.items()}}, "resnet12"),
        ("scl_seresnet12", "scl", lambda w: w, "seresnet12"),
        ("deepemd_resnet12", "deepemd", lambda w: {"params": {f"encoder.{k}": v for k, v in w.items()}}, "resnet12"),
        (
            "deepemd_resnet12",
            "deepemd",
            lambda w: {
                "params": {f"module.encoder.{k}": v for k, v in w.items()} | {"module.fc.weight": torch.ones(64, 640)}
            },
            "resnet12",
        ),
    ],
)
def test_official_checkpoint_gives_official_output(case, format, wrap, name, tmp_path, golden, official):
    recorded = golden(f"{case}_ruleB")
    file = tmp_path / "model.pth"
    torch.save(wrap(official(case, "B", int(recorded["weight_seed"]))), file)
    backbone, facts = convert(file, format)
    assert backbone.name == facts["backbone"] == name
    with torch.no_grad():
        maps = backbone(torch.from_numpy(recorded["in0"]))
    key = "out0_spatial" if "out0_spatial" in recorded else "out0_feat"
    expected = torch.from_numpy(recorded[key])
    assert (maps - expected).abs().max() <= 1e-4 * expected.abs().max()
    if case.startswith("scl"):
        assert facts["dropped"] == ["classifier.weight", "classifier.bias"]
        assert facts["training_class_count"] == 64
    again = backbones.create(facts["backbone"], **facts["options"])
    again.load_state_dict(backbone.state_dict())


def test_head_rows_are_counted_and_named(tmp_path):
    weights = backbones.create("resnet12-512").state_dict()
    save_file(
        {**{k: v.contiguous() for k, v in weights.items()}, "fc.weight": torch.zeros(20, 512)},
        tmp_path / "a.safetensors",
    )
    backbone, facts = convert(tmp_path / "a.safetensors", "rfs", last_pool=False)
    assert (backbone.name, facts["dropped"], facts["training_class_count"]) == ("resnet12-512", ["fc.weight"], 20)
    assert facts["options"] == {"last_pool": False}


def test_timm_checkpoint(tmp_path):
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=5).eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    backbone, facts = convert(tmp_path / "vit.safetensors", "timm", "test_vit")
    assert sorted(facts["dropped"]) == ["head.bias", "head.weight"]
    assert facts["training_class_count"] == 5
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(images).flatten(2).transpose(1, 2), model.forward_features(images)[:, model.num_prefix_tokens :]
        )
    with pytest.raises(FieldmarkError, match="does not say which timm model"):
        convert(tmp_path / "vit.safetensors", "timm")


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_files_that_are_refused(tmp_path, capsys):
    weights = backbones.create("conv4").state_dict()

    def refused(content, message, format="scl", name="a.pth", **options):
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(FieldmarkError, match=message) as caught:
            convert(file, format, **options)
        assert "\n" not in str(caught.value)

    refused({**weights, "attention.weight": torch.zeros(1)}, "unknown entry 'attention.weight'")
    refused({k: v for k, v in weights.items() if k != "layer2.1.bias"}, r"no entry 'layer2.1.bias'")
    refused({**weights, "layer2.0.weight": torch.zeros(64, 32, 3, 3)}, "has shape")
    refused({"conv1.weight": torch.zeros(1)}, "is no conv4, resnet12 or seresnet12")
    refused({"epoch": 3}, "holds no state dict")
    refused({"model": weights, "hook": Payload()}, "might run code")
    refused(pickle.dumps(Payload()), "might run code|not a readable torch file")
    refused(b"", "not a readable torch file")
    refused(b"junk" * 100, "not a readable|unreadable")
    refused(b"junk" * 100, "not a readable safetensors file", name="a.safetensors")
    refused({"layer1.0.weight": torch.zeros(1), "module.layer1.0.weight": torch.zeros(1)}, "two entries")
    refused(weights, "holds a 'conv4'; 'resnet12' was asked for", backbone="resnet12")
    assert "must not run" not in capsys.readouterr().out
    torch.save(weights, tmp_path / "good.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:20_000])
    with pytest.raises(FieldmarkError, match="truncated"):
        read_weights(tmp_path / "cut.pth")
    with pytest.raises(FieldmarkError, match="no weights file at"):
        convert(tmp_path / "none.pth", "scl")
    with pytest.raises(FieldmarkError, match="unknown checkpoint format 'slc'; did you mean 'scl'"):
        convert(tmp_path / "good.pth", "slc")


def test_counters_that_old_files_lack_may_be_missing(tmp_path):
    weights = backbones.create("resnet12").state_dict()
    file = tmp_path / "old.pth"
    torch.save({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, file)
    backbone, _ = convert(file, "rfs", drop_rate=0.1, drop_block=2)
    torch.testing.assert_close(backbone.state_dict()["layer4.0.conv3.weight"], weights["layer4.0.conv3.weight"])
