"""What a user would pick: list the comparisons, measure them, write the page.

ADDRESS is DATA or DATA/BACKBONE, as in glyphs or glyphs/conv4_glyphs; without it all comparisons are meant. Nothing is
measured without --run. With it each comparison that lacks results is measured, the cheapest first; interrupted, the
same command goes on. Data is looked for in the folders that the environment's FIELDMARK_DATA names (default: data).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fieldmark.errors import FieldmarkError, unknown_name

if TYPE_CHECKING:
    from fieldmark.picks.catalogue import Comparison
    from fieldmark.reproduce.state import Places

EXAMPLE = "python -m fieldmark.picks glyphs --run --page docs/what_to_pick.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when done, 2 for bad input or a comparison that could not be measured, 130 when interrupted."""
    from fieldmark.cli.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED

    try:
        return run(_parser().parse_args(sys.argv[1:] if arguments is None else list(arguments)))
    except FieldmarkError as error:
        print(f"fieldmark.picks: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("fieldmark.picks: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from fieldmark.cli.main import Parser

    parser = Parser(
        prog="python -m fieldmark.picks", description=__doc__, epilog=f"example:  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("address", nargs="*", metavar="ADDRESS", help="DATA or DATA/BACKBONE; default: all")
    parser.add_argument("--run", action="store_true", help="measure what has no results yet; default: list it")
    parser.add_argument("--page", metavar="FILE", help="write the page, with its pictures beside it in images/")
    parser.add_argument("--out", default="results/picks", metavar="DIR", help="where results are")
    parser.add_argument("--list", metavar="FILE", help="another list of comparisons; default: the one in the package")
    parser.add_argument(
        "--root", action="append", default=[], metavar="DATA=PATH", help="where a data set is, if not found by name"
    )
    parser.add_argument("--device", default="cpu", help="where images are encoded and heads run; default: cpu")
    return parser


def run(options: argparse.Namespace) -> int:
    """List, measure, or write the page."""
    from fieldmark.cli.output import print_table
    from fieldmark.picks.catalogue import LIST, find, load_list
    from fieldmark.picks.run import overview
    from fieldmark.reproduce.state import Places

    listed = load_list(options.list or LIST)
    comparisons = find(listed, options.address)
    places = Places.here(_roots(options.root))
    status = _measure(options, comparisons, places) if options.run else 0
    if options.page:
        from fieldmark.picks.page import write_page

        print(f"{write_page(options.page, listed, options.out)} written")
    if not options.run and not options.page:
        columns = ["comparison", f"episodes at {', '.join(map(str, listed.shots))} shots", "measured shots", "the rest"]
        print_table("What a user would pick", columns, overview(comparisons, places, options.out))
    return status


def _measure(options: argparse.Namespace, comparisons: Sequence[Comparison], places: Places) -> int:
    """Measure one after the other; one that cannot be is named, and the others go on."""
    from fieldmark.cli.main import EXIT_BAD_INPUT
    from fieldmark.cli.models import choose_device
    from fieldmark.picks.run import measure

    device, failed = str(choose_device(options.device)), 0
    for one in comparisons:
        try:
            if not measure(one, places, options.out, say=_say, device=device):
                _say(f"{one.address}: measured already")
        except FieldmarkError as error:
            failed += 1
            print(f"fieldmark.picks: left out: {' '.join(str(error).split())}", file=sys.stderr)
    return EXIT_BAD_INPUT if failed else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _roots(texts: Sequence[str]) -> dict[str, str]:
    """``DATA=PATH`` by data set.

    Example:
        >>> _roots(["omniglot=data"])
        {'omniglot': 'data'}
    """
    from fieldmark.data import DATASETS

    found = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path:
            raise FieldmarkError(f"--root {text!r}; expected DATA=PATH, as in grocery=photos/grocery.zip")
        if name not in DATASETS:
            raise unknown_name("data set in --root", name, DATASETS.names())
        found[name] = path
    return found


if __name__ == "__main__":
    sys.exit(main())
