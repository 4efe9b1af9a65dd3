"""From images to descriptors, and everything that must agree before two sets of descriptors may be compared."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from fieldmark import backbones
from fieldmark.backbones import Backbone, Encoder, as_encoder, load_model
from fieldmark.data.images import Fit, as_size, check_fit
from fieldmark.data.layouts.base import IMAGENET_STATISTICS
from fieldmark.descriptors import Extractor, Kind, as_extractor, describe
from fieldmark.devices import choose_device
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.features import in_parts
from fieldmark.gallery.pictures import Input, Pictures, read_pictures
from fieldmark.progress import track
from fieldmark.shapes import Float, Tensor

FORMAT = 1
"""Raised when the same images would get other descriptors although nothing else in the identity changed."""

_PIXELS_AT_ONCE = {"cpu": 8 * 224 * 224, "accelerator": 256 * 224 * 224}
_SEED = 0


@dataclass(frozen=True)
class Identity:
    """What made a set of descriptors; only those of equal identities may be compared with each other.

    Attributes:
        backbone: Its name.
        options: Options that build its architecture.
        weights: SHA-256 of the weights, in hexadecimal.
        size: (height, width) of the images as they are read.
        fit: How they are brought to that size.
        encoded: Side that the encoder scales them to before the backbone, or None.
        crop: Side of the centre that it cuts out first, or None.
        mean: Of the normalisation.
        std: Likewise.
        descriptors: Name of the extractor of local descriptors.
        descriptor_options: Its options.
        channels: Length of a descriptor.
        format: Version of this way of describing images.
    """

    backbone: str
    options: dict[str, Any]
    weights: str
    size: tuple[int, int]
    fit: str
    encoded: int | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    descriptors: str
    descriptor_options: dict[str, Any]
    channels: int
    format: int = field(default=FORMAT)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        facts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Identity:
        """The identity that :meth:`to_dict` wrote.

        Raises:
            FieldmarkError: If entries are missing or unknown, as after a change of the format.
        """
        known = {one.name for one in fields(cls)}
        if odd := sorted(known ^ set(facts)):
            raise FieldmarkError(
                f"the identity of the descriptors has {'no' if odd[0] in known else 'an unknown'} entry {odd[0]!r}; it "
                "was written by another version of fieldmark: embed the images again"
            )
        values: dict[str, Any] = dict(facts)
        for key in ("size", "mean", "std"):
            values[key] = tuple(values[key])
        return cls(**values)

    def differences(self, other: Identity) -> list[str]:
        """What is not the same, in words; empty when descriptors of both may be compared.

        Args:
            other: Called "here" in the words.

        Example:
            >>> from fieldmark import backbones
            >>> model = backbones.create("conv4")
            >>> Embedder(model, size=32).identity.differences(Embedder(model, size=64).identity)
            ['size 32 x 32 (here: 64 x 64)']
        """
        words = []
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if mine != theirs:
                words.append(f"{one.name.replace('_', ' ')} {_word(one.name, mine)} (here: {_word(one.name, theirs)})")
        return words


def _word(name: str, value: Any) -> str:
    if name == "weights":
        return value[:12]
    return f"{value[0]} x {value[1]}" if name == "size" else str(value)


class Embedder:
    """Describes images by a backbone: pooled vectors and local descriptors.

    Args:
        backbone: Name of a backbone (its pretrained weights, where it has some), path of a model file or run folder,
            an encoder, or a backbone.
        size: Side, or (height, width), of the images; default: what the model was trained at.
        fit: ``crop``, ``squash`` or ``pad``; default: as the model was trained, else ``crop``.
        descriptors: Name of an extractor of local descriptors, or one that is made; default: those that the model was
            trained with, else ``dense``.
        descriptor_options: Options of the named extractor.
        device: ``auto``, ``cpu``, ``cuda`` ...

    Attributes:
        encoder: The model, in evaluation mode.
        extractor: Makes the local descriptors.
        facts: What is known of the model.
        size: (height, width) of the images.
        fit: How they are brought to it.

    Raises:
        FieldmarkError: Unknown names, no such model, a size that the model does not run at, no such device.

    Example:
        >>> import numpy as np
        >>> from fieldmark import backbones
        >>> embedder = Embedder(backbones.create("conv4"), size=32)
        >>> found = embedder.embed([np.zeros((40, 50, 3), np.uint8)])
        >>> found["pooled"].shape, found["local"].shape
        (torch.Size([1, 1, 64]), torch.Size([1, 4, 64]))
    """

    def __init__(
        self,
        backbone: str | Path | Encoder | Backbone = "efficientnet_lite0",
        size: int | tuple[int, int] | None = None,
        fit: Fit | None = None,
        descriptors: str | Extractor | None = None,
        descriptor_options: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        target = choose_device(device)
        self.encoder, self.facts = _open(backbone, target)
        self.encoder = self.encoder.to(target).eval()
        known = self.facts.get("descriptors") or {"name": "dense", "options": {}}
        if descriptors is None and not descriptor_options:
            self.extractor = as_extractor(known["name"], known["options"])
        else:
            self.extractor = as_extractor(known["name"] if descriptors is None else descriptors, descriptor_options)
        self.extractor.eval()
        manifest = self.facts.get("manifest") or {}
        self.size = _size(self.encoder, manifest, size)
        self.fit: Fit = fit or manifest.get("fit") or "crop"
        check_fit(self.fit)
        self._identity: Identity | None = None

    @property
    def identity(self) -> Identity:
        """What must agree before descriptors are compared with those of this embedder."""
        if self._identity is None:
            encoder = self.encoder
            self._identity = Identity(
                backbone=encoder.backbone.name,
                options=dict(encoder.backbone.options),
                weights=hash_of(encoder.backbone.state_dict()),
                size=self.size,
                fit=self.fit,
                encoded=encoder.size,
                crop=encoder.crop,
                mean=_rounded(encoder.mean),
                std=_rounded(encoder.std),
                descriptors=self.extractor.name,
                descriptor_options=dict(self.extractor.options),
                channels=int(encoder.channels),
            )
        return self._identity

    def read(self, images: Iterable[Input] | Pictures, **options: Any) -> Pictures:
        """Images as the model is to see them; see :func:`fieldmark.gallery.pictures.read_pictures`."""
        return images if isinstance(images, Pictures) else read_pictures(images, self.size, self.fit, **options)

    @torch.inference_mode()
    def embed(
        self,
        images: Iterable[Input] | Pictures,
        kinds: Iterable[Kind] = ("pooled", "local"),
        *,
        progress: bool = True,
    ) -> dict[str, Float[Tensor, "M N C"]]:
        """Descriptors of images.

        An image's descriptors do not depend on the images beside it, beyond rounding: windows that are drawn at random
        are drawn afresh, by the same seed, for each image.

        Args:
            images: What :func:`~fieldmark.gallery.pictures.read_pictures` takes, or what it gave.
            kinds: Some of ``"pooled"`` (M, 1, C), ``"local"`` (M, N, C) and ``"spatial"`` (M, 5, C).
            progress: Show a bar for long work on a terminal.

        Returns:
            float32 on the CPU, for each kind.

        Raises:
            FieldmarkError: For images that cannot be read, or features that are not finite.
        """
        pictures, kinds = self.read(images, progress=progress), list(dict.fromkeys(kinds))
        if not len(pictures):
            raise FieldmarkError("there is no image to describe; expected at least one")
        batch = self._batch_size
        step = 1 if "local" in kinds and not self.extractor.from_maps else batch
        encode = in_parts(self.encoder, batch)
        out: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
        for start in track(range(0, len(pictures), step), "encoding images", step, len(pictures), show=progress):
            part = torch.from_numpy(pictures.images[start : start + step]).permute(0, 3, 1, 2)
            drawing = torch.Generator().manual_seed(_SEED)
            for kind, sets in describe(encode, part.to(self.encoder.device), kinds, self.extractor, drawing).items():
                if not torch.isfinite(sets).all():
                    raise FieldmarkError(
                        f"the model gives features of {pictures.names[start]} that are not finite; its weights are "
                        "damaged or its training diverged"
                    )
                out[kind].append(sets.float().cpu())
        return {kind: torch.cat(parts) for kind, parts in out.items()}

    @property
    def _batch_size(self) -> int:
        at_once = _PIXELS_AT_ONCE["cpu" if self.encoder.device.type == "cpu" else "accelerator"]
        return min(256, max(1, at_once // (self.size[0] * self.size[1])))


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order and the device.

    Example:
        >>> a, b = torch.zeros(2), torch.ones(2)
        >>> hash_of({"a": a, "b": b}) == hash_of({"b": b, "a": a}) != hash_of({"a": b, "b": a})
        True
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _open(backbone: str | Path | Encoder | Backbone, device: torch.device) -> tuple[Encoder, dict[str, Any]]:
    if isinstance(backbone, Encoder | Backbone):
        return as_encoder(backbone, *IMAGENET_STATISTICS), {}
    if not isinstance(backbone, str | Path):
        raise FieldmarkError(
            f"backbone is of type {type(backbone).__name__}; expected a backbone's name, the path of a model file or "
            "run folder, or an encoder"
        )
    path = Path(backbone)
    if path.exists() or backbones.zoo.looks_like(str(backbone)):
        return load_model(path, device)
    if path.suffix or len(path.parts) > 1:
        raise FieldmarkError(
            f"no model at {backbone}; expected a run folder, a model.safetensors file or a backbone's name"
        )
    return as_encoder(create_pretrained(str(backbone)), *IMAGENET_STATISTICS), {}


def create_pretrained(name: str, **options: Any) -> Backbone:
    """A backbone by name with its pretrained weights: what compares photos is no use with random ones.

    Args:
        name: As in :func:`fieldmark.backbones.create`.
        options: Likewise; "pretrained", which says how a *file's* architecture is built, is passed over.

    Raises:
        FieldmarkError: As there, or the backbone has no pretrained weights.

    Example:
        >>> create_pretrained("conv4")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: backbone 'conv4' has no pretrained weights, so it cannot describe photos; ...
    """
    known = backbones.BACKBONES
    options = {key: value for key, value in options.items() if key != "pretrained"}
    if name not in known or "pretrained" in inspect.signature(known.get(name).make).parameters:
        options["pretrained"] = True
    backbone = backbones.create(name, **options)
    if backbone.facts["pretraining"] == "none" and next(backbone.parameters(), None) is not None:
        raise FieldmarkError(
            f"backbone {name!r} has no pretrained weights, so it cannot describe photos; train it first (`fieldmark "
            "train`) and give the run folder, or take efficientnet_lite0"
        )
    return backbone


def _size(encoder: Encoder, manifest: Mapping[str, Any], size: int | tuple[int, int] | None) -> tuple[int, int]:
    own = encoder.size
    if size is None:
        return as_size(tuple(manifest["size"]) if manifest.get("size") else own or encoder.backbone.default_size)
    if own is not None and as_size(size) != (own, own):
        raise FieldmarkError(f"size is {size}, but this model always runs at {own} pixels; leave the size out")
    return as_size(size)


def _rounded(values: Tensor) -> tuple[float, ...]:
    """float32 as short decimals, so that they are the same after a way through JSON."""
    return tuple(round(float(value), 6) for value in values.flatten().tolist())
