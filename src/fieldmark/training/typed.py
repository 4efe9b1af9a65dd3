"""From plain YAML values to typed dataclasses, each mistake named on one line."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from fieldmark.errors import FieldmarkError, unknown_name

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes ``5e-4`` for a text; here it is the number everyone means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, where: str) -> Any:
    """Safely parse YAML; a syntax error is named with its line.

    Example:
        >>> parse_yaml("lr: 5e-4", "here")
        {'lr': 0.0005}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise FieldmarkError(f"{where}{line} is not valid YAML: {problem}") from None


def build(kind: type[T], value: Any, key: str = "") -> T:
    """A dataclass from a mapping, its fields converted to their declared types.

    Args:
        kind: The dataclass.
        value: A mapping of its fields; fields with defaults may be missing.
        key: Dotted place of the value in the recipe, for messages.

    Raises:
        FieldmarkError: Names the key: unknown (with the nearest one), missing, or of a wrong type (with the expected).

    Example:
        >>> @dataclasses.dataclass
        ... class Point:
        ...     x: float
        ...     name: str = "p"
        >>> build(Point, {"x": 1})
        Point(x=1.0, name='p')
        >>> build(Point, {"x": "far"})
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: recipe key x is 'far'; expected a number
    """
    if not isinstance(value, dict):
        raise _wrong(key or "(top)", value, "a mapping")
    hints = _hints(kind)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given = {}
    for name, item in value.items():
        if name not in fields:
            raise unknown_name("recipe key", f"{key}.{name}" if key else str(name), _placed(fields, key))
        given[name] = convert(hints[name], item, f"{key}.{name}" if key else name)
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in given and no_default:
            raise FieldmarkError(
                f"recipe key {key + '.' if key else ''}{name} is missing; expected {describe(hints[name])}"
            )
    return kind(**given)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def convert(kind: Any, value: Any, key: str) -> Any:
    """``value`` as ``kind``, or the error that names key, value and expected type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        last: FieldmarkError | None = None
        for choice in arguments:
            if choice is type(None):
                continue
            try:
                return convert(choice, value, key)
            except FieldmarkError as error:
                last = error
        if sum(choice is not type(None) for choice in arguments) == 1 and last is not None:
            raise last
        raise _wrong(key, value, describe(kind))
    if origin is Literal:
        if value not in arguments:
            raise unknown_name(f"value of recipe key {key}", str(value), [str(a) for a in arguments])
        return value
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(key, value, describe(kind))
        return [convert(arguments[0], item, f"{key}.{i}") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise _wrong(key, value, describe(kind))
        return {name: convert(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, str) and hasattr(kind, "from_text"):
            return kind.from_text(value)
        return value if isinstance(value, kind) else build(kind, value, key)
    return _plain(kind, value, key)


def _plain(kind: Any, value: Any, key: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise _wrong(key, value, describe(kind))


def describe(kind: Any) -> str:
    """A type in plain words.

    Example:
        >>> describe(int | None), describe(list[str])
        ('a whole number or nothing', 'a list of text')
    """
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}
    if kind in plain:
        return plain[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin is list:
        return f"a list of {describe(arguments[0])}"
    return "a mapping"


def _placed(names: Any, key: str) -> list[str]:
    return [f"{key}.{name}" if key else name for name in names]


def _wrong(key: str, value: Any, expected: str) -> FieldmarkError:
    return FieldmarkError(f"recipe key {key} is {value!r}; expected {expected}")
