"""Entry point: finds the subcommand without importing torch, and turns every failure into one line and a status."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from fieldmark._version import __version__
from fieldmark.allocation import keep_freed_memory
from fieldmark.errors import FieldmarkError, unknown_name

# name: (module in this folder, what the overview says)
COMMANDS = {
    "demo": ("demo", "train, evaluate and report on the embedded data set, in under three minutes"),
    "enroll": ("enroll", "your own photos, sorted into class folders, into a gallery; again to add more"),
    "predict": ("predict", "what an image shows, how sure that is, and why; or none of the classes"),
    "search": ("search", "the enrolled photos nearest to an image"),
    "export": ("export", "a gallery's classifier as ONNX or torch.export, to run without fieldmark"),
    "coach": ("coach", "what would make a gallery better: wrong labels, copies, classes that need photos"),
    "gallery": ("gallery", "list, rename, merge, remove, export or import enrolled classes"),
    "serve": ("serve", "a gallery in the browser, and by HTTP for programs"),
    "train": ("train", "train a recipe; resumes after an interruption"),
    "eval": ("evaluate", "accuracy of a model on few-shot episodes of any data set"),
    "explain": ("explain", "picture of which places of two images match, and what each match adds"),
    "analyse": ("analyse", "look inside an embedding: neighbours, Grad-CAM, spectrum, clusters"),
    "reproduce": ("reproduce", "the papers' tables row by row: their numbers beside ours, and how to run a row"),
    "data": ("data", "data sets by name; `data check FOLDER` examines your own images"),
    "recipes": ("recipes", "recipes that can be trained"),
    "heads": ("heads", "heads: from support set and queries to scores"),
    "backbones": ("backbones", "backbones: from images to feature maps"),
    "convert": ("convert", "turn an official checkpoint into a fieldmark model"),
    "bench": ("bench", "measure speed against the peers"),
}
EXIT_BAD_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED = 2, 70, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest option for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise FieldmarkError(f"{message} (see `{self.prog} --help`)")


def overview() -> str:
    """The text of ``fieldmark --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fieldmark COMMAND [options]",
            "",
            "Recognise classes that differ only in small parts from a few labelled images, and see why.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --help     this text; `fieldmark COMMAND --help` for a command, with an example",
            "  --version  the version",
            "  --debug    show the whole traceback of an error",
            "",
            "example:  fieldmark demo",
        ]
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command; errors come out as exceptions."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"fieldmark {__version__}")
        return 0
    name, rest = arguments[0], list(arguments[1:])
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    command = importlib.import_module(f"fieldmark.cli.{COMMANDS[name][0]}")
    parser = Parser(
        prog=f"fieldmark {name}",
        description=command.__doc__,
        epilog=f"example:  {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    if getattr(command, "TAKES_OVERRIDES", False):
        options, overrides = parser.parse_known_args(rest)
        options.overrides = overrides
    else:
        options, unknown = parser.parse_known_args(rest)
        if unknown:
            raise _unknown_argument(parser, unknown[0], rest)
    return command.run(options) or 0


def _unknown_argument(parser: argparse.ArgumentParser, argument: str, words: Sequence[str]) -> FieldmarkError:
    if not argument.startswith("-"):
        return FieldmarkError(f"unexpected argument {argument!r} (see `{parser.prog} --help`)")
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += [one for name, one in action.choices.items() if name in words[:1]]
    known = {
        text for one in parsers for action in one._actions for text in action.option_strings if text.startswith("--")
    }
    return unknown_name(f"option of `{parser.prog}`", argument.split("=")[0], known)


def main(arguments: Sequence[str] | None = None) -> int:
    """Console entry point: 0 when done, 2 for bad input, 70 for an error of ours, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or bool(os.environ.get("FIELDMARK_DEBUG"))
    arguments = [text for text in arguments if text != "--debug"]
    keep_freed_memory()
    # What is wrong with an image is told in a line of our own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(arguments)
    except FieldmarkError as error:
        if debug:
            raise
        print(f"fieldmark: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as stop:
        print(f"fieldmark: {str(stop) or 'interrupted; nothing is half-written'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())[:300]
        print(
            f"fieldmark: unexpected {type(error).__name__}: {text} (please report it; --debug shows the traceback)",
            file=sys.stderr,
        )
        return EXIT_INTERNAL


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
