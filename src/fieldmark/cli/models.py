"""From what the user typed (a run, a model file, a name) to an encoder and what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fieldmark import backbones, descriptors
from fieldmark.backbones import Encoder, load_model, zoo
from fieldmark.descriptors import Extractor
from fieldmark.devices import choose_device as choose_device
from fieldmark.errors import FieldmarkError


def find_model(text: str, device: torch.device) -> tuple[Encoder | backbones.Backbone, dict[str, Any]]:
    """The model behind a run folder, a model file, the name of a trained model or a backbone's name.

    Returns:
        An encoder (from a file, also one that comes with fieldmark), or a backbone without normalisation of its own
        (then the data set's is used); and the facts known of it, always with ``backbone``, ``parameters`` and
        ``trained``.

    Raises:
        FieldmarkError: If it is none of them; the nearest name is suggested.
    """
    path = Path(text)
    if path.exists() or zoo.looks_like(text):
        encoder, facts = load_model(path, device)
        return encoder, _describe(encoder.backbone, {"trained": True, **facts, "path": text})
    if path.suffix or len(path.parts) > 1:
        raise FieldmarkError(
            f"no model at {text}; expected a run folder, a model.safetensors file or a backbone's name"
        )
    backbone = backbones.create(text).to(device).eval()
    pretraining = backbone.facts["pretraining"]
    facts = _describe(backbone, {"trained": pretraining != "none", "pretraining": pretraining})
    if backbone.mean is not None and backbone.std is not None:
        return Encoder(backbone).to(device).eval(), facts
    return backbone, facts


def untrained(model: Encoder | backbones.Backbone, seed: int) -> tuple[Encoder | backbones.Backbone, dict[str, Any]]:
    """The same architecture with fresh weights: what training has to beat."""
    backbone = model.backbone if isinstance(model, Encoder) else model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = backbones.create(backbone.name, **backbone.options).eval()
    facts = _describe(fresh, {"trained": False, "initial_weights_seed": seed})
    if isinstance(model, Encoder):
        mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
        return Encoder(fresh, mean, std, model.size, model.crop).to(model.device).eval(), facts
    return fresh.to(next(model.parameters()).device), facts


def _describe(backbone: backbones.Backbone, facts: dict[str, Any]) -> dict[str, Any]:
    parameters = sum(p.numel() for p in backbone.parameters())
    return {
        "backbone": backbone.name,
        "backbone_options": backbone.options,
        "parameters": parameters,
        **facts,
    }


def choose_extractor(name: str | None, options: dict[str, Any], facts: dict[str, Any]) -> Extractor:
    """The local descriptors asked for; by default those that the model was trained with, or the places of its map."""
    known = facts.get("descriptors") or {"name": "dense", "options": {}}
    if name is None and not options:
        return descriptors.create(known["name"], **known["options"])
    return descriptors.create(known["name"] if name is None else name, **options)


def image_size(model: Encoder | backbones.Backbone, facts: dict[str, Any]) -> int | None:
    """The image size a model expects, or None where the data set's own serves."""
    trained_at = (facts.get("manifest") or {}).get("size")
    if trained_at:
        return trained_at[0]
    if isinstance(model, Encoder):
        return model.size or model.backbone.default_size
    return None
