"""Which options of a command belong to one of its tasks only, and which of them were given."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from fieldmark.errors import FieldmarkError, unknown_name

_REPORT = ("--name", "--published", "--against", "--seed", "--descriptors", "--descriptor-option")
ONLY = {
    "few-shot": (
        "--way", "--shot", "--queries", "--episodes", "--episodes-file", "--save-episodes", "--support-split",
        "--support-copies", "--runs", "--base-split", "--head", "--head-option", "--allow-leakage", "--interval",
        "--worst", "--cost", *_REPORT,
    ),
    "retrieval": ("--metric", "--metric-option", "--shortlist", "--allow-leakage", "--interval", "--worst", *_REPORT),
    "top1": ("--head", "--head-option", "--support-split", "--interval", "--worst", *_REPORT),
    "robustness": (
        "--head", "--head-option", "--support-split", "--change", "--ratio", "--interval", "--worst", *_REPORT,
    ),
    "own-photos": (
        "--shot", "--queries", "--draws", "--leave-out", "--keep", "--head", "--head-option", "--support-split",
        "--allow-leakage", *_REPORT,
    ),
    "point-distance": (),
}  # fmt: skip
"""Of each task the options that not all tasks take."""


def note_given(parser: argparse.ArgumentParser) -> None:
    """Have the parser note in ``options.given`` which options stand on the command line; call it before adding any.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> note_given(parser)
        >>> _ = parser.add_argument("--way", default="5")
        >>> parser.parse_args([]).given, parser.parse_args(["--way", "5"]).given
        ((), ('--way',))
    """
    parser.set_defaults(given=())
    for name, kind in (("store", argparse._StoreAction), ("append", argparse._AppendAction)):
        noting = _noting(kind)
        parser.register("action", name, noting)
        if name == "store":
            parser.register("action", None, noting)


def check_task(options: argparse.Namespace) -> None:
    """Refuse an unknown task, and options that belong to another one.

    Raises:
        FieldmarkError: Names the task or the option.
    """
    if options.task not in ONLY:
        raise unknown_name("task", options.task, ONLY)
    refuse_others("--task", options.task, options.given, ONLY)


def refuse_others(switch: str, chosen: str, given: Iterable[str], only: Mapping[str, Iterable[str]]) -> None:
    """Refuse options that belong to another value of a switch than the one that was chosen.

    Args:
        switch: The switch, such as ``--task``.
        chosen: Its value.
        given: Options on the command line.
        only: Of each value of the switch the options that it takes and not all others do.

    Raises:
        FieldmarkError: Names the option and whose it is.

    Example:
        >>> refuse_others("--task", "a", ["--depth"], {"a": ["--width"], "b": ["--depth"]})
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: --depth is an option of --task b; leave it out for --task a
    """
    for option in given:
        owners = [value for value, names in only.items() if option in names]
        if owners and chosen not in owners:
            whose = " and ".join(filter(None, [", ".join(owners[:-1]), owners[-1]]))
            raise FieldmarkError(f"{option} is an option of {switch} {whose}; leave it out for {switch} {chosen}")


def _noting(kind: Any) -> Any:
    class Noting(kind):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, namespace, values, option_string)
            if option_string is not None:
                namespace.given = (*namespace.given, option_string)

    return Noting
