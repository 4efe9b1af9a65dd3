"""Files are written beside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import math
import os
import re
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


# A list of what is no text, list or object. Within a text no line ends, so that none is taken for such a list.
_NUMBERS = re.compile(r'\[\n *((?:[^][{}",\s]+,\n *)*[^][{}",\s]+)\n *\]')
_PAIR = r'"(?:[^"\\]|\\.)*": -?\d[\d.eE+-]*'
_NAMED_NUMBERS = re.compile(rf"\{{\n *({_PAIR}(?:,\n *{_PAIR})*)\n *\}}")
_BETWEEN = re.compile(r",\n *")


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, beside and renamed; see :func:`json_text`."""
    text = json_text(value) + "\n"
    return write_beside(path, lambda file: file.write(text.encode()))


def json_text(value: Any) -> str:
    """``value`` as indented JSON, numbers of one list or one mapping on one line.

    Numbers that are not finite become null, for JSON has no others.

    Example:
        >>> print(json_text({"ratio": float("inf"), "hits": [3, 5], "classes": {"apple": 0.5, "pear": 1.0}}))
        {
         "ratio": null,
         "hits": [3,5],
         "classes": {"apple": 0.5, "pear": 1.0}
        }
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{_BETWEEN.sub(',', found[1])}]", text)
    return _NAMED_NUMBERS.sub(lambda found: f"{{{_BETWEEN.sub(', ', found[1])}}}", text)


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
