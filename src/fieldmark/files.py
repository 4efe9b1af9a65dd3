"""Files are written beside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fieldmark.errors import FieldmarkError


def write_beside(path: str | Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Call ``write`` with a binary file beside ``path``, then rename it to ``path``.

    Args:
        path: Where the file shall be; missing folders are made.
        write: Receives the open file.

    Raises:
        FieldmarkError: If the disk is full or the place cannot be written; the old file is then untouched.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> write_beside(folder / "a.txt", lambda file: file.write(b"whole")).read_bytes()
        b'whole'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from None
        raise
    return path


_COLUMNS = 160  # a measure with its interval and what it is over fits


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, beside and renamed; see :func:`json_text`."""
    text = json_text(value) + "\n"
    return write_beside(path, lambda file: file.write(text.encode()))


def json_text(value: Any) -> str:
    """``value`` as JSON, indented where it is deep and long.

    What fits on a line stands on one; so does, of whatever length, a list of numbers or texts and a mapping of numbers.
    Numbers that are not finite become null, for JSON has no others.

    Example:
        >>> print(json_text({"ratio": float("inf"), "hits": [3, 5], "head": {"name": "emd", "classes": {"pear": 1.0}}}))
        {"ratio": null, "hits": [3,5], "head": {"name": "emd", "classes": {"pear": 1.0}}}
        >>> text = json_text({"hits": [3, 5], "head": {"name": "emd", "options": {}}, "said": "at length, " * 20})
        >>> text.splitlines()[:3]
        ['{', ' "hits": [3,5],', ' "head": {"name": "emd", "options": {}},']
    """
    return _text(_finite(value), 0)


def _text(value: Any, depth: int, taken: int = 0) -> str:
    """JSON of a value that is ``depth`` levels deep, on whose first line its name has ``taken`` columns."""
    if not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, ensure_ascii=False)
    named = isinstance(value, dict)
    members = list(value.values()) if isinstance(value, dict) else value
    deep = any(isinstance(member, (dict, list)) for member in members)
    worded = any(isinstance(member, str) for member in members)
    if not deep and not (named and worded):
        return json.dumps(value, ensure_ascii=False, separators=(", " if named or worded else ",", ": "))
    names = [f"{_name(key)}: " for key in value] if named else [""] * len(value)
    texts = [name + _text(member, depth + 1, len(name)) for name, member in zip(names, members, strict=True)]
    first, last = "{}" if named else "[]"
    line = f"{first}{', '.join(texts)}{last}"
    if depth + taken + len(line) < _COLUMNS and "\n" not in line:  # less, for a comma
        return line
    left = " " * (depth + 1)
    inside = ",\n".join(f"{left}{text}" for text in texts)
    return f"{first}\n{inside}\n{' ' * depth}{last}"


def _name(key: Any) -> str:
    """A key as JSON; keys that are numbers become texts."""
    return json.dumps(key if isinstance(key, str) else json.dumps(key), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | Path, what: str) -> Any:
    """Read a JSON file; a missing or broken one is named in one line.

    Args:
        path: The file.
        what: What it should be, for the message ("result", "manifest").
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FieldmarkError(f"no {what} file at {path}") from None
    except (OSError, ValueError) as error:
        raise FieldmarkError(f"{path} is not a readable {what} file: {error}") from None


def cannot_write(path: str | Path, error: OSError) -> FieldmarkError:
    """The one-line error for a file that could not be written."""
    if error.errno == errno.ENOSPC:
        return FieldmarkError(f"the disk is full: {path} was not written; free some space and run the command again")
    return FieldmarkError(f"cannot write {path}: {error.strerror or error}")
