"""Official checkpoints of other projects as backbones of this one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from fieldmark.backbones import create
from fieldmark.backbones.base import Backbone
from fieldmark.backbones.trained_parts import TrainedClassifier
from fieldmark.backbones.weights import load_exactly, read_weights
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Tensor

Format = Literal["scl", "rfs", "deepemd", "timm", "apinet"]

# Layers that turn features into scores of the training classes (or of rotations); they are no part of a backbone.
_HEADS = ("classifier", "fc", "rot_classifier", "linear", "logits")
_RESNET12 = {(64, 160, 320, 640): "resnet12", (64, 128, 256, 512): "resnet12-512"}
_STAGES = (1, 2, 3, 4)
_RESNETS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}
# torchvision's ResNet taken apart: its children stand in a row, the layers without weights counted.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}

# Mean and standard deviation (of 255) with which the official code trained on miniImageNet; on CIFAR it used others.
_PIXELS = {
    "scl": ((120.39586422, 115.59361427, 104.54012653), (70.68188272, 68.27635443, 72.54505529)),
    "deepemd": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
}
_PIXELS["rfs"] = _PIXELS["scl"]


def convert_checkpoint(
    path: str | Path, format: str, backbone: str | None = None, **options: Any
) -> tuple[Backbone, dict[str, Any]]:
    """Read an official checkpoint into a backbone; classifiers are left out and named.

    The key names of this project's conv4 and ResNet-12 are those of the official code, so the correspondence is exact
    and every entry must find its place.

    Args:
        path: A ``.pth`` or ``.safetensors`` file.
        format: "scl", "rfs" or "deepemd" (Conv-4, ResNet-12, SE-ResNet-12, recognised by their entries), "apinet"
            (ResNet-101 with its classifier), or "timm".
        backbone: The model's name; needed for "timm", whose files do not say it; checked for the others.
        options: Options of the backbone that leave its entries alone, for example ``last_pool``.

    Returns:
        The backbone in evaluation mode, and the facts: ``converted_from`` (file name), ``sha256``, ``format``,
        ``backbone``, ``options``, ``dropped`` (entries left out), ``training_class_count`` (rows of the classifier;
        None when the file has none), and the ``mean`` and ``std`` of the official miniImageNet training (not for timm
        models, which bring their own). From "apinet" there is also ``classifier``, a
        :class:`~fieldmark.backbones.TrainedClassifier` for ``Encoder.classifier``; the file does not name its classes,
        so they are called by their numbers.

    Raises:
        FieldmarkError: The file cannot be read safely, is no known architecture, or has entries that do not fit.
    """
    if format not in get_args(Format):
        raise unknown_name("checkpoint format", format, get_args(Format))
    path = Path(path)
    if format == "timm":
        if backbone is None:
            raise FieldmarkError(
                f"{path.name} does not say which timm model it is; give its name, for example --backbone resnet50"
            )
        weights = read_weights(path)
        made = create(f"timm:{backbone.removeprefix('timm:')}", pretrained=str(path), **options)
        kept = made.state_dict()
        dropped = [key for key in weights if f"model.{key}" not in kept]
        classes = _rows(weights, dropped)
    elif format == "apinet":
        made, classifier, dropped = _apinet(read_weights(path), path.name, options)
        if backbone is not None and backbone.removeprefix("timm:") != made.name.removeprefix("timm:"):
            raise FieldmarkError(f"{path.name} holds a {made.name!r}; {backbone!r} was asked for")
        classes = len(classifier.class_names)
    else:
        weights, dropped, classes = _without_heads(read_weights(path))
        name, found = recognise(weights, path.name)
        if backbone is not None and backbone != name:
            raise FieldmarkError(f"{path.name} holds a {name!r}; {backbone!r} was asked for")
        made = create(name, **{**found, **options})
        load_exactly(made, weights, f"{path.name} (as {name!r})")
    facts: dict[str, Any] = {
        "converted_from": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "format": format,
        "backbone": made.name,
        "options": made.options,
        "dropped": dropped,
        "training_class_count": classes,
    }
    if format == "apinet":
        facts["classifier"] = classifier
    if format in _PIXELS:
        facts["mean"], facts["std"] = ([value / 255 for value in values] for values in _PIXELS[format])
    return made.eval(), facts


def recognise(weights: Mapping[str, Tensor], origin: str) -> tuple[str, dict[str, Any]]:
    """Name and options of the backbone whose weights these are.

    Args:
        weights: Tensors by official key name, without classifier.
        origin: What they come from, for messages.

    Raises:
        FieldmarkError: If they are none that is known.

    Example:
        >>> recognise(create("conv4", channels=32).state_dict(), "a.pth")
        ('conv4', {'channels': 32, 'last_pool': False})
    """
    if all(f"layer{stage}.0.weight" in weights for stage in _STAGES):
        # Every official conv4 read here (SCL, RFS) pools after the first three blocks only.
        channels = weights["layer1.0.weight"].shape[0]
        return "conv4", {"last_pool": False} if channels == 64 else {"channels": channels, "last_pool": False}
    if all(f"layer{stage}.0.conv1.weight" in weights for stage in _STAGES):
        widths = tuple(weights[f"layer{stage}.0.conv1.weight"].shape[0] for stage in _STAGES)
        if widths not in _RESNET12:
            raise FieldmarkError(
                f"{origin} is a ResNet-12 of widths {'-'.join(map(str, widths))}; "
                f"expected {' or '.join('-'.join(map(str, known)) for known in _RESNET12)}"
            )
        if any(".se.fc." in key for key in weights):
            if _RESNET12[widths] != "resnet12":
                raise FieldmarkError(f"{origin} is a narrow SE-ResNet-12; expected widths 64-160-320-640 with SE")
            return "seresnet12", {}
        return _RESNET12[widths], {}
    first = next(iter(weights), "nothing")
    raise FieldmarkError(
        f"{origin} is no conv4, resnet12 or seresnet12 of SCL, RFS or DeepEMD (its first entry is {first!r}); "
        "for a timm model give the format 'timm'"
    )


def _apinet(
    weights: Mapping[str, Tensor], origin: str, options: Mapping[str, Any]
) -> tuple[Backbone, TrainedClassifier, list[str]]:
    """Backbone and classifier of an API_Net, and what is left out: the mutual vector's layers, unloaded at test."""
    body, rest = {}, []
    for key, value in weights.items():
        room, _, name = key.partition(".")
        child, _, inner = name.partition(".")
        if room == "conv" and child in _CHILDREN:
            body[f"model.{_CHILDREN[child]}.{inner}"] = value
        elif not key.startswith("fc."):
            rest.append(key)
    blocks = tuple(len({key.split(".")[2] for key in body if key.startswith(f"model.layer{n}.")}) for n in _STAGES)
    strange = [key for key in rest if key.split(".")[0] not in ("map1", "map2")]
    if blocks not in _RESNETS or strange or not {"fc.weight", "fc.bias"} <= set(weights):
        first = (strange or [next(iter(weights))])[0]
        raise FieldmarkError(
            f"{origin} is no checkpoint of API-Net's code (entries conv.0.weight to conv.7..., fc.weight, fc.bias of "
            f"a ResNet with bottlenecks; it has {first!r} and {'-'.join(map(str, blocks))} blocks); for a plain ResNet "
            "give the format 'timm'"
        )
    made = create(f"timm:{_RESNETS[blocks]}", **options)
    load_exactly(made, body, f"{origin} (as {made.name!r})")
    learned = {f"layer.{part}": weights[f"fc.{part}"].float() for part in ("weight", "bias")}
    names = tuple(f"class_{number:03d}" for number in range(1, len(learned["layer.bias"]) + 1))
    if learned["layer.weight"].shape != (len(names), made.channels):
        raise FieldmarkError(
            f"{origin}: fc.weight has shape {tuple(learned['layer.weight'].shape)}; expected "
            f"{(len(names), made.channels)}"
        )
    return made, TrainedClassifier("linear", {"dropout": 0.5}, learned, names), rest


def _without_heads(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], int | None]:
    dropped = [key for key in weights if key.split(".")[0] in _HEADS]
    return {k: v for k, v in weights.items() if k not in dropped}, dropped, _rows(weights, dropped)


def _rows(weights: Mapping[str, Tensor], dropped: list[str]) -> int | None:
    rows = [weights[key].shape[0] for key in dropped if key.endswith("weight") and not key.startswith("rot")]
    return rows[0] if rows else None
