"""A gallery in the browser and over HTTP: ask about photos, correct answers, look after what is enrolled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LATER = {
    "Access": "guard",
    "Limits": "uploads",
    "RefusedError": "uploads",
    "Service": "service",
    "make_app": "api",
    "serve": "server",
}

__all__ = ["Access", "Limits", "RefusedError", "Service", "make_app", "serve"]

if TYPE_CHECKING:
    from fieldmark.app.api import make_app
    from fieldmark.app.guard import Access
    from fieldmark.app.server import serve
    from fieldmark.app.service import Service
    from fieldmark.app.uploads import Limits, RefusedError


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"fieldmark.app.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fieldmark.app' has no attribute {name!r}")
