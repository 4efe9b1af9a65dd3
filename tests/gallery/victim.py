"""Changes a gallery again and again, and writes down what it is about to do, until it is killed.

    python victim.py GALLERY

For each line on standard input, the path of a journal and a seed as JSON, it forks a process that works until it is
killed: what is slow to import is imported once. LanceDB makes itself ready again after a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from drawn import COLOURS, picture

from fieldmark import backbones
from fieldmark.gallery import Embedder, Gallery
from fieldmark.gallery.incoming import hash_of_content

STEPS = ("enroll", "enroll", "enroll", "remove", "rename", "merge", "move")


def state_of(gallery: Gallery) -> list[tuple[int, str, str]]:
    """Id, class and hash of each photo."""
    return [(photo.id, photo.class_name, photo.sha256) for photo in gallery.photos()]


def choose(gallery: Gallery, draw: random.Random) -> tuple[str, dict]:
    """The next step and its arguments, one that is possible."""
    classes = {one.name: one.photos for one in gallery.list()}
    step = draw.choice(STEPS)
    if step == "enroll" or len(classes) < 3 or (step in ("remove", "merge") and len(classes) < 5):
        return "enroll", {
            "name": f"class {draw.randrange(8)}",
            "seed": draw.randrange(10**9),
            "count": draw.randint(1, 12),
        }
    some = draw.sample(sorted(classes), 2)
    if step == "remove":
        return step, {"name": some[0]}
    if step == "rename":
        return step, {"old": some[0], "new": f"class {draw.randrange(8, 10**6)}"}
    if step == "merge":
        return step, {"name": some[0], "into": some[1]}
    return step, {"ids": [photo.id for photo in gallery.photos(some[0])][:3], "into": some[1]}


def drawn(seed: int, count: int) -> list:
    return [picture(list(COLOURS)[(seed + i) % 4], seed + i) for i in range(count)]


def hashes(seed: int, count: int) -> list[str]:
    return [hash_of_content(one) for one in drawn(seed, count)]


def do(gallery: Gallery, step: str, how: dict, embedder: Embedder) -> None:
    if step == "enroll":
        gallery.enroll(drawn(how["seed"], how["count"]), how["name"], embedder=embedder)
    elif step == "remove":
        gallery.remove(how["name"])
    elif step == "rename":
        gallery.rename(how["old"], how["new"])
    elif step == "merge":
        gallery.merge(how["name"], how["into"])
    else:
        gallery.move(how["ids"], how["into"])


def expected(state: list, step: str, how: dict) -> list[tuple[str, str]]:
    """Class and hash of each photo after a step, worked out without the gallery."""
    rows = [(id_, name, sha) for id_, name, sha in state]
    if step == "enroll":
        have = {(name, sha) for _, name, sha in rows}
        new = [(how["name"], sha) for sha in hashes(how["seed"], how["count"])]
        return sorted([*((name, sha) for _, name, sha in rows), *(one for one in new if one not in have)])
    if step == "remove":
        return sorted((name, sha) for _, name, sha in rows if name != how["name"])
    if step == "rename":
        return sorted((how["new"] if name == how["old"] else name, sha) for _, name, sha in rows)
    if step == "merge":
        return sorted((how["into"] if name == how["name"] else name, sha) for _, name, sha in rows)
    return sorted((how["into"] if id_ in how["ids"] else name, sha) for id_, name, sha in rows)


def write(journal: int, entry: dict) -> None:
    """A line that is on the disk before anything else happens."""
    os.write(journal, (json.dumps(entry) + "\n").encode())
    os.fsync(journal)


def work(uri: str, embedder: Embedder, path: str, seed: int) -> None:
    gallery = Gallery.open(uri, create=True)
    draw = random.Random(seed)
    journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    print(os.getpid(), flush=True)
    while True:
        step, how = choose(gallery, draw)
        write(journal, {"state": state_of(gallery), "step": step, "how": how})
        do(gallery, step, how, embedder)


if __name__ == "__main__":
    importlib.import_module("lancedb")
    warnings.filterwarnings("ignore", message="lancedb fork support")
    describes = Embedder(backbones.create("pixels"), size=32)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            work(sys.argv[1], describes, *json.loads(line))
        os.waitpid(child, 0)
        print("gone", flush=True)
