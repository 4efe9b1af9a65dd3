"""fieldmark: few-shot and fine-grained recognition by aligning parts, with the parts that decided.

Nothing heavy is imported before it is used: ``fieldmark.heads`` brings torch, ``fieldmark.training`` brings Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fieldmark._version import __version__
from fieldmark.errors import FieldmarkError

_ROOMS = (
    "backbones",
    "data",
    "descriptors",
    "evaluation",
    "explain",
    "functional",
    "gallery",
    "heads",
    "methods",
    "training",
)
_NAMES = {
    "FewShotClassifier": "fieldmark.gallery",
    "evaluate_few_shot": "fieldmark.evaluation",
    "keep_freed_memory": "fieldmark.allocation",
    "load_model": "fieldmark.backbones",
}

__all__ = ["FieldmarkError", "__version__", *_ROOMS, *_NAMES]

if TYPE_CHECKING:
    from fieldmark import backbones as backbones
    from fieldmark import data as data
    from fieldmark import descriptors as descriptors
    from fieldmark import evaluation as evaluation
    from fieldmark import explain as explain
    from fieldmark import functional as functional
    from fieldmark import gallery as gallery
    from fieldmark import heads as heads
    from fieldmark import methods as methods
    from fieldmark import training as training
    from fieldmark.allocation import keep_freed_memory as keep_freed_memory
    from fieldmark.backbones import load_model as load_model
    from fieldmark.evaluation import evaluate_few_shot as evaluate_few_shot
    from fieldmark.gallery import FewShotClassifier as FewShotClassifier


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"fieldmark.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'fieldmark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
