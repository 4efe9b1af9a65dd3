"""Your own photos: a classifier with reasons, and the store of classes that were enrolled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LATER = {
    "Embedder": "embedder",
    "Identity": "embedder",
    "Pictures": "pictures",
    "open_picture": "pictures",
    "read_pictures": "pictures",
}

__all__ = ["Embedder", "Identity", "Pictures", "open_picture", "read_pictures"]

if TYPE_CHECKING:
    from fieldmark.gallery.embedder import Embedder, Identity
    from fieldmark.gallery.pictures import Pictures, open_picture, read_pictures


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"fieldmark.gallery.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fieldmark.gallery' has no attribute {name!r}")
