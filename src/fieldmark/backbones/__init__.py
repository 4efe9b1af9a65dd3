"""Backbones by name: normalised images in, maps of local descriptors out.

Example:
    >>> import torch
    >>> backbone = create("conv4", last_pool=False)
    >>> backbone(torch.zeros(1, 3, 84, 84)).shape
    torch.Size([1, 64, 10, 10])
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import torch

from fieldmark.backbones import conv4, efficientnet_lite0, pixels, resnet12, timm_models, wrn, zoo  # noqa: F401
from fieldmark.backbones.base import BACKBONES, Backbone, BackboneFacts
from fieldmark.backbones.projection import Projected
from fieldmark.errors import unknown_name

_TIMM_OPTIONS = ("pretrained", "image_size", "project")
_LATER = {
    "Encoder": "encoder",
    "as_encoder": "encoder",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "convert_checkpoint": "convert",
    "TrainedClassifier": "trained_parts",
    "TrainedHead": "trained_parts",
}

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneFacts",
    "Encoder",
    "Projected",
    "TrainedClassifier",
    "TrainedHead",
    "as_encoder",
    "convert_checkpoint",
    "create",
    "describe",
    "load_model",
    "names",
    "save_model",
    "zoo",
]

if TYPE_CHECKING:
    from fieldmark.backbones.checkpoint import load_model, save_model
    from fieldmark.backbones.convert import convert_checkpoint
    from fieldmark.backbones.encoder import Encoder, as_encoder
    from fieldmark.backbones.trained_parts import TrainedClassifier, TrainedHead


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"fieldmark.backbones.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fieldmark.backbones' has no attribute {name!r}")


def names() -> list[str]:
    """The registered names, sorted; trained models' (:mod:`fieldmark.backbones.zoo`) and timm's are valid as well."""
    return BACKBONES.names()


def create(name: str, project: int | None = None, **options: Any) -> Backbone:
    """Make a backbone by name.

    Args:
        name: A registered name (see :func:`names`), that of a trained model that comes with fieldmark, such as
            ``"conv4/scl-cifar_fs"`` (:func:`fieldmark.backbones.zoo.create`), or the name of any timm model, plain or
            as ``"timm:NAME"``.
        project: Channels of a linear layer that is put on top of it (:class:`Projected`); default: none.
        options: Options of that backbone.

    Returns:
        The backbone, in training mode, with ``name`` and ``options`` set so that they rebuild it (a trained model's
        architecture, not its weights).

    Raises:
        FieldmarkError: Unknown name or option (the nearest valid one is named), an option out of its range, or
            pretrained weights that cannot be had.
    """
    if project is not None:
        trunk = create(name, **options)
        projected = Projected(trunk, project)
        projected.name, projected.options = trunk.name, {**trunk.options, "project": project}
        return projected
    if name in BACKBONES:
        backbone = BACKBONES.create(name, **options)
    elif "/" in name:
        return zoo.create(name, **options)
    else:
        model = name.removeprefix("timm:")
        if not timm_models.is_timm(model):
            raise timm_models.unknown_backbone(name)
        for option in options:
            if option not in _TIMM_OPTIONS:
                raise unknown_name(f"option of timm model {name!r}", option, _TIMM_OPTIONS)
        backbone = timm_models.TimmBackbone(model, **options)
    backbone.name = name
    backbone.options = {**options, **backbone.options}
    return backbone


def describe(name: str, **options: Any) -> BackboneFacts:
    """Facts about a backbone, measured on a build that allocates no memory for weights.

    Args:
        name: As in :func:`create`.
        options: As in :func:`create`.

    Example:
        >>> facts = describe("conv4")
        >>> facts.output_shape, facts.parameters
        ((64, 5, 5), 113088)
    """
    entry = BACKBONES.get(name) if name in BACKBONES else None
    if entry is None or "pretrained" in inspect.signature(entry.make).parameters:
        options = {**options, "pretrained": False}
    with torch.device("meta"):
        backbone = create(name, **options).eval()
        side = backbone.default_size
        with torch.no_grad():
            _, channels, height, width = backbone(torch.empty(1, 3, side, side)).shape
    return BackboneFacts(
        name=name,
        summary=_summary(name),
        output_shape=(channels, height, width),
        default_size=side,
        parameters=sum(p.numel() for p in backbone.parameters()),
        licence=backbone.facts["licence"],
        pretraining=backbone.facts["pretraining"],
        source=entry.source if entry else backbone.facts["source"],
    )


def _summary(name: str) -> str:
    """One line on a backbone."""
    if name in BACKBONES:
        return BACKBONES.get(name).summary
    if (card := zoo.find(name)) is not None:
        return f"{card.facts['backbone']} trained on {card.facts['data']} ({', then '.join(card.facts['objectives'])})"
    return f"timm's {name.removeprefix('timm:')}"
