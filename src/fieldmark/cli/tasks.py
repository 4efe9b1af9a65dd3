"""Which options of `fieldmark eval` belong to one task only, and which of them were given."""

from __future__ import annotations

import argparse
from typing import Any

from fieldmark.errors import FieldmarkError, unknown_name

ONLY = {
    "few-shot": (
        "--way", "--shot", "--queries", "--episodes", "--episodes-file", "--save-episodes", "--support-split",
        "--support-copies", "--runs", "--base-split", "--head", "--head-option",
    ),
    "retrieval": ("--metric", "--metric-option", "--shortlist"),
}  # fmt: skip


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
    for task, names in ONLY.items():
        for option in options.given:
            if task != options.task and option in names:
                raise FieldmarkError(f"{option} is an option of --task {task}; leave it out for --task {options.task}")


def _noting(kind: Any) -> Any:
    class Noting(kind):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, namespace, values, option_string)
            if option_string is not None:
                namespace.given = (*namespace.given, option_string)

    return Noting
