"""One file a trained model: safetensors, with everything needed to use it in its metadata. Nothing in it can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fieldmark.backbones import create, zoo
from fieldmark.backbones.encoder import Encoder
from fieldmark.backbones.trained_parts import TrainedClassifier, TrainedHead, TrainedPart
from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside
from fieldmark.shapes import Tensor

FORMAT = "fieldmark-model-1"


def save_model(
    path: str | Path, encoder: Encoder, facts: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> Path:
    """Write an encoder with what is known about it.

    Args:
        path: File to write, by custom ``model.safetensors``.
        encoder: The trained model; a head or classifier that was trained with it (``encoder.head``,
            ``encoder.classifier``) goes into the same file.
        facts: What it was trained on and how (``training_classes``, ``manifest``, ``seed`` ...); JSON values.
        dtype: Store floating-point weights in this type (float16 halves the file).

    Example:
        >>> import tempfile
        >>> from fieldmark import backbones
        >>> encoder = Encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> path = save_model(tempfile.mkdtemp() + "/model.safetensors", encoder, {"seed": 0})
        >>> load_model(path)[1]["seed"]
        0
    """
    state: dict[str, Tensor] = dict(encoder.backbone.state_dict())
    parts: list[TrainedPart] = [part for part in (encoder.head, encoder.classifier) if part is not None]
    for part in parts:
        state |= _beside(state, part)
    tensors = {}
    for key, value in state.items():
        value = value.detach().cpu()
        value = value.to(dtype or value.dtype) if value.is_floating_point() else value
        # Two entries may not share memory in the file.
        tensors[key] = value.clone(memory_format=torch.contiguous_format)
    header = {
        "format": FORMAT,
        "backbone": encoder.backbone.name,
        "options": json.dumps(encoder.backbone.options),
        "mean": json.dumps(encoder.mean.flatten().tolist()),
        "std": json.dumps(encoder.std.flatten().tolist()),
        "size": json.dumps(encoder.size),
        "crop": json.dumps(encoder.crop),
        "facts": json.dumps(facts or {}),
    }
    header |= {part.kind: part.header() for part in parts}
    data = save(tensors, header)
    return write_beside(path, lambda file: file.write(data))


def read_header(path: str | Path) -> dict[str, str]:
    """What a model file says of itself, as texts: backbone, options, mean, std, size, crop, facts.

    Args:
        path: A file written by :func:`save_model`.

    Raises:
        FieldmarkError: If it is not readable, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FieldmarkError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from None
    if header.get("format") != FORMAT:
        raise FieldmarkError(
            f"{path} is not a fieldmark model; convert it first: fieldmark convert {path} --from FORMAT --out FILE"
        )
    return header


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[Encoder, dict[str, Any]]:
    """Read a model file, the one in a run folder, or one that comes with fieldmark.

    Args:
        path: A file written by :func:`save_model`, a folder that holds ``model.safetensors``, or the name of a trained
            model (:func:`fieldmark.backbones.zoo.names`).
        device: Where to put it.

    Returns:
        The encoder, in evaluation mode with float32 weights, and the facts saved with it. ``encoder.head`` and
        ``encoder.classifier`` are the head and the classifier that were trained with it, if any were.

    Raises:
        FieldmarkError: If there is no such file, or it is not one of ours.

    Example:
        >>> encoder, facts = load_model("conv4/scl-cifar_fs")
        >>> encoder.backbone.name, facts["manifest"]["name"], facts["seed"]
        ('conv4', 'cifar_fs', 0)
    """
    path, card = Path(path), None
    if not path.exists() and (card := zoo.find(path)) is not None:
        path = card.file
    elif not path.exists() and zoo.looks_like(path.as_posix()):
        raise zoo.unknown(path.as_posix())
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FieldmarkError(f"no model at {path}; expected a model.safetensors file or a run folder that holds one")
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    backbone = create(header["backbone"], **json.loads(header["options"]))
    wanted = backbone.state_dict()
    parts: dict[str, Any] = {}
    for kind in (TrainedHead, TrainedClassifier):
        if kind.kind in header:
            own = {k: tensors.pop(k) for k in list(tensors) if k.startswith(kind.prefix()) and k not in wanted}
            parts[kind.kind] = kind.from_file(header[kind.kind], own, str(path))
    if set(wanted) != set(tensors):
        odd = sorted(set(wanted) ^ set(tensors))[0]
        raise FieldmarkError(f"{path} does not fit backbone {header['backbone']!r}: entry {odd!r} is on one side only")
    backbone.load_state_dict({key: value.to(wanted[key].dtype) for key, value in tensors.items()})
    mean, std, size, crop = (json.loads(header.get(key, "null")) for key in ("mean", "std", "size", "crop"))
    encoder, facts = Encoder(backbone, mean, std, size, crop, **parts), json.loads(header["facts"])
    if card is not None:
        card.mark(backbone, facts)
    return encoder.to(device).eval(), facts


def _beside(state: dict[str, Tensor], part: TrainedPart) -> dict[str, Tensor]:
    """The part's entries under names of their own."""
    entries = {part.prefix() + key: value for key, value in part.weights.items()}
    if shared := sorted(set(entries) & set(state)):
        raise FieldmarkError(
            f"the backbone and {part.kind} {part.name!r} both have an entry {shared[0]!r} in the model file; rename "
            "the backbone's module"
        )
    return entries
