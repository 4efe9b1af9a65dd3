"""Tracing a graph, and the two kinds of file that it is written as: ONNX and ``torch.export``."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import nn

from fieldmark._version import __version__
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.shapes import Tensor

Kind = Literal["onnx", "torch"]
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""Inputs by name to outputs."""

_KINDS: dict[str, Kind] = {".onnx": "onnx", ".pt2": "torch"}
_OPSET = 20


def check_path(path: str | os.PathLike[str]) -> Kind:
    """What the ending of a file asks for, and whether it can be written here.

    Raises:
        FieldmarkError: For another ending.
        MissingExtraError: For ONNX, its packages are not installed.

    Example:
        >>> check_path("birds.pt2")
        'torch'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _KINDS:
        raise FieldmarkError(f"{path} ends in {suffix or 'nothing'}; expected a file .onnx, or .pt2 for torch.export")
    if _KINDS[suffix] == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, "export", "writing ONNX")
    return _KINDS[suffix]


def trace(name: str, model: nn.Module, inputs: tuple[Tensor, ...], sizes: Any) -> Any:
    """The program of a graph.

    Args:
        name: Of the network in it, for messages.
        model: The graph.
        inputs: An example of each input.
        sizes: Which of their sizes are free.

    Raises:
        FieldmarkError: If torch cannot trace it.
    """
    try:
        with torch.no_grad():
            return torch.export.export(model, inputs, dynamic_shapes=sizes, strict=False)
    except FieldmarkError:
        raise
    except Exception as error:
        raise FieldmarkError(
            f"{name} cannot be exported by torch {torch.__version__} ({_first_line(error)}); conv4, resnet12 and "
            "efficientnet_lite0 can"
        ) from None


def converted(program: Any, kind: Kind, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    """The program, or the ONNX model made from it."""
    if kind == "torch":
        return program
    try:
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=_OPSET,
            input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
    except Exception as error:
        raise FieldmarkError(
            f"the model cannot be written as ONNX ({_first_line(error)}); write a .pt2 file instead"
        ) from None
    assert found is not None
    return found.model_proto


def runner(data: Any, kind: Kind) -> Run:
    """A function from inputs by name to outputs, that runs what will be written."""
    if kind == "torch":
        module = data.module()

        def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            with torch.no_grad():
                return [one.numpy() for one in module(*(torch.from_numpy(one) for one in inputs.values()))]

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        data.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )  # fmt: skip
    return lambda inputs: session.run(None, inputs)


def save(data: Any, kind: Kind, text: str, file: IO[bytes]) -> None:
    """Write a program or an ONNX model, with the description as its metadata."""
    if kind == "torch":
        buffer = io.BytesIO()
        with quietly():
            torch.export.save(data, buffer, extra_files={"fieldmark.json": text})
        file.write(buffer.getvalue())
        return
    for key, value in (("fieldmark", text), ("source", f"fieldmark {__version__}")):
        entry = next((one for one in data.metadata_props if one.key == key), None) or data.metadata_props.add()
        entry.key, entry.value = key, value
    file.write(data.SerializeToString())


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The exporter's notes for developers are no messages of ours."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]
