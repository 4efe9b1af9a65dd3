"""Trained models that come with fieldmark, by name: ``create("conv4/scl-cifar_fs")``, without a network.

Each is a model file (float16 safetensors) with a card, ``cards/`` and the same stem, a JSON file that says what it was
trained on and how, and what was measured with it (:mod:`fieldmark.evaluation.cards` writes it). A name is
``ARCHITECTURE/METHOD-DATA``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark.backbones.base import BACKBONES, Backbone
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.files import read_json

CARDS = "cards"
_OPTIONS = ("pretrained", "project")


@dataclass(frozen=True)
class Card:
    """What is known of a trained model.

    Attributes:
        name: Such as "conv4/scl-cifar_fs".
        file: The model file.
        facts: All that the card says: data and its licence, recipe, seed, commit, measured accuracies.
    """

    name: str
    file: Path
    facts: Mapping[str, Any]

    def mark(self, backbone: Backbone, known: Mapping[str, Any], *, pretrained: bool = True) -> None:
        """Tell a backbone of this architecture where its weights come from, and the size they were trained at.

        Args:
            backbone: Made by this model's file or as it.
            known: What the file says of itself; its training classes go on into what is trained from it.
            pretrained: Whether it has the weights.
        """
        backbone.default_size = self.facts["size"][0]
        backbone.facts |= {
            "licence": f"Apache-2.0; the data's: {self.facts['licence_of_data']}",
            "pretraining": self.facts["data"],
            "pretrained": pretrained,
            "source": f"{self.facts['recipe']}, seed {self.facts['seed']}",
            "model": self.name,
        }
        if pretrained:
            backbone.facts["origin"] = dict(known)


def models_folder() -> Path:
    """Where the models are: in the installed package, or in ``results/models`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "models", package.parents[1] / "results" / "models")
    return next((folder for folder in places if folder.is_dir()), places[0])


def cards() -> list[Card]:
    """The cards of all models, sorted by name.

    Example:
        >>> [card.file.name for card in cards() if card.name == "conv4/scl-cifar_fs"]
        ['scl_cifar_fs_conv4.safetensors']
    """
    found, folder = [], models_folder()
    for path in (folder / CARDS).glob("*.json"):
        facts = read_json(path, "card")
        found.append(Card(facts["name"], folder / f"{path.stem}.safetensors", facts))
    return sorted(found, key=lambda card: card.name)


def names() -> list[str]:
    """The names of all models, sorted."""
    return [card.name for card in cards()]


def find(name: str | Path) -> Card | None:
    """The card of a model, or None if there is none of this name."""
    text = Path(name).as_posix()
    return next((card for card in cards() if card.name == text), None) if "/" in text else None


def looks_like(name: str) -> bool:
    """Whether a name that may also be a path begins as a trained model's.

    Example:
        >>> looks_like("conv4/scl-cifar"), looks_like("runs/conv4"), looks_like("conv4")
        (True, False, False)
    """
    architecture, slash, rest = name.partition("/")
    return bool(slash) and architecture in BACKBONES and "/" not in rest and not Path(rest).suffix


def unknown(name: str) -> FieldmarkError:
    """The error for a name that no model has, with the nearest."""
    return unknown_name("trained model", name, names())


def create(name: str, pretrained: bool = True, **options: Any) -> Backbone:
    """The backbone of a trained model, in training mode, with its own mean, standard deviation and image size.

    A head or classifier that was trained with it is in the same file: :func:`fieldmark.load_model` takes the name as
    well and gives both.

    Args:
        name: As :func:`names` lists it.
        pretrained: False: the architecture alone, with fresh weights.
        options: Those of the architecture may be repeated; others than the model was trained with are refused.

    Raises:
        FieldmarkError: Unknown name, or an option that does not fit the weights.

    Example:
        >>> backbone = create("conv4/scl-cifar_fs")
        >>> backbone.name, backbone.options, backbone.default_size, backbone.facts["model"]
        ('conv4', {'last_pool': False}, 32, 'conv4/scl-cifar_fs')
    """
    from fieldmark import backbones
    from fieldmark.backbones.checkpoint import load_model, read_header

    card = find(name)
    if card is None and Path(name).exists():
        raise FieldmarkError(
            f"{name} is no name of a trained model, but a path; fieldmark.load_model({name!r}) reads it"
        )
    if card is None:
        raise unknown(name)
    header = read_header(card.file)
    own = json.loads(header["options"])
    for option, value in options.items():
        if option not in own:
            raise unknown_name(f"option of trained model {name!r}", option, [*_OPTIONS, *own])
        if own[option] != value:
            raise FieldmarkError(
                f"{option} of trained model {name!r} is {own[option]!r}, not {value!r}; leave the option out, or train "
                f"backbone {header['backbone']!r} with it"
            )
    if pretrained:
        encoder, _ = load_model(name)
        backbone = encoder.backbone.train()
    else:
        backbone = backbones.create(header["backbone"], **own)
        card.mark(backbone, {}, pretrained=False)
    backbone.mean, backbone.std = (tuple(json.loads(header[key])) for key in ("mean", "std"))
    return backbone
