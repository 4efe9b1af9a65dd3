"""The episode files beside the results, each under its hash, and which results used them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from fieldmark.data.episodes import EpisodeIndex
from fieldmark.evaluation.results import load_records, runs_of

FOLDER = "episodes"


def episodes_section(folder: str | Path) -> str:
    """The table of saved episodes: how they were drawn, and how many results were measured on them.

    Args:
        folder: The results; the files are ``episodes/*.npz`` in it, as :meth:`EpisodeIndex.save` writes them.

    Returns:
        The section, empty where no episodes are saved.

    Raises:
        FieldmarkError: For a damaged file of results or episodes.
    """
    saved = sorted(Path(folder, FOLDER).glob("*.npz"))
    users = _users(folder) if saved else {}
    lines = [_line(path, users) for path in saved]
    return "\n".join([_HEAD, "| file | episodes | data | results |", "|---|---|---|---|", *lines, ""]) if saved else ""


_HEAD = """## Episodes

A seed draws the same episodes again; `episode_hash` in a row of a JSON file tells that they are the same. Those saved
here bear the first characters of their hash, and `fieldmark eval --episodes-file FILE` measures on them.
"""


def _users(folder: str | Path) -> dict[str, set[tuple[str, str]]]:
    """For the hash of each episodes measured on, the files of results and the data."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for file, record in load_records(folder):
        for row in record["rows"]:
            for run in runs_of(row):
                found[run["episode_hash"]].add((file, row["manifest"]["name"]))
    return found


def _line(path: Path, users: Mapping[str, set[tuple[str, str]]]) -> str:
    episodes = EpisodeIndex.load(path)
    facts, found = episodes.facts, users.get(episodes.hash, set())
    drawn = f"seed {facts['seed']}" if "seed" in facts else f"given by {facts['source']}"
    queries = "all other images" if facts["queries"] is None else f"queries a class: {facts['queries']}"
    what = f"{facts['way']}-way {facts['shot']}-shot, {queries}, {len(episodes)} episodes, {drawn}"
    data = ", ".join(sorted({name for _, name in found}))
    return f"| [`{path.name}`]({FOLDER}/{path.name}) | {what} | {data} | {len({file for file, _ in found})} |"
