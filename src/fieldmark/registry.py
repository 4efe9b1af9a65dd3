"""Named things (backbones, heads, objectives, data sets ...): add, list, create by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Generic, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from fieldmark.errors import FieldmarkError, unknown_name

T = TypeVar("T")

_WRITABLE = (str, int, float, list, tuple, dict, NoneType)  # what can be written into a file
# How a message calls the plain types; a truth value is no number here.
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", NoneType: "null"}


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing: how to make it, and what a listing says about it."""

    name: str
    make: Callable[..., T]
    summary: str
    source: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: The singular word used in messages, for example ``"head"``.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.add("square", "four equal sides")
        ... def square(side: float = 1.0):
        ...     return side * side
        >>> shapes.create("square", side=3)
        9
        >>> shapes.create("sqare")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown shape 'sqare'; did you mean 'square'? Known: square
        >>> shapes.create("square", sides=3)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown option of shape 'square' 'sides'; did you mean 'side'? Known: side
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(
        self, name: str, summary: str, *, source: str = "", **facts: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that registers a class or a factory function under ``name``."""

        def decorate(make: Callable[..., Any]) -> Callable[..., Any]:
            if name in self._entries:
                raise FieldmarkError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, make, summary, source, facts)
            return make

        return decorate

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Entry[T]:
        """The entry of a name; an unknown name is refused with the nearest known one."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def create(self, name: str, **options: Any) -> T:
        """Make the named thing; options that it does not take are refused with the nearest valid one."""
        entry = self.get(name)
        parameters = inspect.signature(entry.make).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for option in options:
                if option not in parameters:
                    raise unknown_name(f"option of {self.kind} {name!r}", option, parameters)
        check_types(f"{self.kind} {name}", entry.make, options)
        return entry.make(**options)

    def defaults(self, name: str) -> dict[str, Any]:
        """The options of a name that have a default which a file can hold, with it.

        Example:
            >>> shapes = Registry("shape")
            >>> _ = shapes.add("line", "of a length")(lambda length=1.0, end="round", pen=print: length)
            >>> shapes.defaults("line")
            {'length': 1.0, 'end': 'round'}
        """
        parameters = inspect.signature(self.get(name).make).parameters.values()
        return {one.name: one.default for one in parameters if isinstance(one.default, _WRITABLE)}


class Remembers(Protocol):
    """A thing that knows how it was made: the name and all options, those left at their defaults too; or None."""

    made_as: tuple[str, dict[str, Any]] | None


R = TypeVar("R", bound=Remembers)


class RememberingRegistry(Registry[R]):
    """A registry whose things remember the name and all options that they were made with (``made_as``).

    Example:
        >>> class Line:
        ...     made_as = None
        ...     def __init__(self, length: float = 1.0, end: str = "round") -> None:
        ...         self.length, self.end = length, end
        >>> lines = RememberingRegistry("line")
        >>> _ = lines.add("plain", "of a length")(Line)
        >>> lines.create("plain", length=2.0).made_as
        ('plain', {'length': 2.0, 'end': 'round'})
    """

    def create(self, name: str, **options: Any) -> R:
        """Make the named thing; options that it does not take are refused with the nearest valid one."""
        made = super().create(name, **options)
        made.made_as = name, {**self.defaults(name), **options}
        return made


def check_types(owner: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse values of another type than a function or class declares for its options.

    Only numbers, texts, truth values and None are judged; which texts and how large a number is for the function.

    Args:
        owner: What has the options, for the message.
        make: The function or class.
        options: Names, all known to it, and values.

    Raises:
        FieldmarkError: Names the option, its value and what was expected.

    Example:
        >>> def square(side: float = 1.0) -> float:
        ...     return side * side
        >>> check_types("shape square", square, {"side": "long"})
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: side of shape square is 'long'; expected a number
    """
    if not options:
        return
    try:
        hints = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    except NameError:  # types that only a type checker imports
        return
    for option, value in options.items():
        hint = hints.get(option, Any)
        choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = [str if get_origin(choice) is Literal else choice for choice in choices]
        if all(kind in _PLAIN for kind in kinds) and not any(_fits(value, kind) for kind in kinds):
            wanted = " or ".join(dict.fromkeys(_PLAIN[kind] for kind in kinds))
            raise FieldmarkError(f"{option} of {owner} is {value!r}; expected {wanted}")


def _fits(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)
