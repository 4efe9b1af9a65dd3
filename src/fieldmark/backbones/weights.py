"""Weight files of other projects, read without running anything in them."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor

_NESTS = ("state_dict", "model", "params", "net")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file by name.

    Dictionaries that hold the weights under "model", "params", "state_dict" or "net" are opened, and a prefix
    "module." or "encoder." that wrappers put before the names is removed. Nothing but tensors and plain data is
    unpickled (``weights_only=True``), so a file from a stranger cannot run code.

    Args:
        path: The file.

    Raises:
        FieldmarkError: If the file is missing, damaged, holds something other than weights, or two entries fall on
            the same name.
    """
    path = Path(path)
    if not path.is_file():
        raise FieldmarkError(f"no weights file at {path}; give the path of a .pth or .safetensors file")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _NESTS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise FieldmarkError(
            f"{path} holds no state dict; expected tensors by name, plain or under one of: {', '.join(_NESTS)}"
        )
    weights: dict[str, Tensor] = {}
    for key, value in loaded.items():
        short = str(key).removeprefix("module.").removeprefix("encoder.").removeprefix("module.")
        if short in weights:
            raise FieldmarkError(f"{path} has two entries for {short!r}; expected the weights of one network")
        weights[short] = value
    return weights


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FieldmarkError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from None


def _read_torch(path: Path) -> Any:
    try:
        # The official training scripts save their command-line options beside the weights: plain data as well.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        start = text.find("Unsupported global: GLOBAL ")
        what = text[start + len("Unsupported global: GLOBAL ") :].split()[0] if start >= 0 else "unreadable data"
        raise FieldmarkError(
            f"{path} holds {what} beside or instead of weights and is not opened, since it might run code; save its "
            "state dict alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:
        # Bytes that are no weights are read as instructions until one fails, in any way.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FieldmarkError(f"{path} is not a readable torch file ({reason}); it may be truncated") from None


def load_exactly(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load weights whose names and shapes must all fit; the first misfit is named.

    Counters that old or other code does not save (``num_batches_tracked``, DropBlock's ``passes``) may be missing.

    Raises:
        FieldmarkError: If an entry is missing, unknown or of another shape.

    Example:
        >>> load_exactly(nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "a.pth")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: a.pth does not fit: 'weight' has shape (1, 3); expected (1, 2)
    """
    wanted = model.state_dict()
    for key in weights:
        if key not in wanted:
            raise FieldmarkError(f"{origin} does not fit: it has an unknown entry {key!r}")
    for key, value in wanted.items():
        if key not in weights:
            if key.endswith(("num_batches_tracked", "drop.passes")):
                continue
            raise FieldmarkError(f"{origin} does not fit: it has no entry {key!r}")
        if weights[key].shape != value.shape:
            raise FieldmarkError(
                f"{origin} does not fit: {key!r} has shape {tuple(weights[key].shape)}; expected {tuple(value.shape)}"
            )
    model.load_state_dict(weights, strict=False)
