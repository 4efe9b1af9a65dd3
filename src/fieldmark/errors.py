"""What the user did wrong, in one line: what, where, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FieldmarkError(ValueError):
    """Bad input that the user can mend; its text is one line and complete without a traceback.

    Example:
        >>> raise FieldmarkError("shot is 0; expected at least 1")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: shot is 0; expected at least 1
    """


class MissingExtraError(FieldmarkError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; run: pip install 'fieldmark[{extra}]'"
        )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> FieldmarkError:
    """The error for a name that is not among the known ones, with the nearest of them.

    Args:
        kind: What was asked for, in the singular ("head", "recipe key").
        name: The name that was given.
        known: The valid names.

    Example:
        >>> print(unknown_name("head", "prototyp", ["prototype", "matching"]))
        unknown head 'prototyp'; did you mean 'prototype'? Known: matching, prototype
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) if len(names) <= 40 else ", ".join(names[:40]) + f" ... ({len(names)} in all)"
    return FieldmarkError(f"unknown {kind} {name!r}; {hint}Known: {listed}")
