"""Shared by the commands that list a registry."""

from __future__ import annotations

import inspect

from fieldmark.registry import Entry


def options_of(entry: Entry) -> str:
    """The options of a registered thing with their defaults, on one line."""
    parameters = inspect.signature(entry.make).parameters.values()
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in parameters
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    )
