"""Killed at any moment, a gallery is as it was before the step or as it is after it; nothing is lost or half there."""

from __future__ import annotations

import datetime
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark import backbones
from fieldmark.gallery import Embedder, Gallery

sys.path.insert(0, str(Path(__file__).parent))
import victim
from drawn import picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")
if not hasattr(os, "fork"):
    pytest.skip("needs fork and kill -9", allow_module_level=True)

LONGEST = 0.15  # seconds from the begin of a step to the kill; a step takes a few hundredths


class Victims:
    """One after the other, processes that work on a gallery."""

    def __init__(self, uri: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, victim.__file__, uri], stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:  # closes its input, which ends it
            pass

    def live_and_die(self, journal: Path, seed: int, steps: int, wait: float) -> None:
        """Begin to work, and be killed so many seconds after a step has begun."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(journal), seed]), file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        patience = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < steps:
            assert time.monotonic() < patience
            time.sleep(0.002)
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        assert self.process.stdout.readline() == "gone\n"


def last_entry(journal: Path) -> dict | None:
    """The last line that was written whole."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return json.loads(lines[-1]) if lines else None


def check_whole(gallery: Gallery) -> None:
    """Every photo has its picture, its descriptors and one id of its own."""
    photos = gallery.photos()
    ids, labels, sets = gallery.descriptors()
    assert [photo.id for photo in photos] == ids.tolist() == sorted(set(ids.tolist()))
    assert [photo.class_name for photo in photos] == labels.tolist()
    assert all(np.isfinite(found).all() and len(found) == len(ids) for found in sets.values())
    # With pixels as the backbone the descriptors can be checked against the picture itself.
    thumbnails = gallery.thumbnails(ids.tolist())
    for id_, pooled in zip(ids.tolist(), sets["pooled"], strict=True):
        shown = np.asarray(Image.open(io.BytesIO(thumbnails[id_])), np.float32) / 255
        np.testing.assert_allclose(shown.mean((0, 1)), pooled.reshape(3, -1).mean(1), atol=0.03)
    names = {photo.class_id: photo.class_name for photo in photos}
    assert len(names) == len({photo.class_name for photo in photos})
    assert all(names[photo.class_id] == photo.class_name for photo in photos)


def kills(victims: Victims, tmp_path: Path, count: int, seed: int) -> dict[str, int]:
    """Kill so many victims; returns how many steps were found undone and done."""
    uri, draw = victims.process.args[-1], random.Random(seed)
    found = {"before": 0, "after": 0, "no gallery yet": 0}
    highest = 0
    for number in range(count):
        journal = tmp_path / f"journal {number}"
        victims.live_and_die(journal, number, draw.randint(1, 4), draw.uniform(0, LONGEST))
        entry = last_entry(journal)
        gallery = Gallery.open(uri, create=True)
        assert entry is not None
        if gallery.table.exists:
            check_whole(gallery)
            state = victim.state_of(gallery)
            highest_now = gallery.table.highest()
            assert highest_now >= max([highest, *(id_ for id_, _, _ in state)])
            highest = highest_now
            now = sorted((name, sha) for _, name, sha in state)
            before = sorted((name, sha) for _, name, sha in entry["state"])
            after = victim.expected(entry["state"], entry["step"], entry["how"])
            assert now in (before, after), (number, entry["step"], entry["how"])
            found["after" if now == after else "before"] += 1
        else:
            assert (entry["state"], entry["step"]) == ([], "enroll")
            found["no gallery yet"] += 1
    return found


def check_goes_on(tmp_path: Path) -> None:
    """After all that, the gallery takes photos, and a compacted one holds the same and no leftovers."""
    embedder = Embedder(backbones.create("pixels"), size=32)
    gallery = Gallery.open(tmp_path / "gallery", create=True)
    gallery.enroll([picture("red", 5), picture("blue", 5)], ["red", "blue"], embedder=embedder)
    state = victim.state_of(gallery)
    gallery.compact(datetime.timedelta(0))
    assert victim.state_of(Gallery.open(gallery.uri)) == state
    assert list(Path(gallery.uri).rglob(".tmp*")) == []
    check_whole(gallery)


def test_a_few_kills_leave_the_old_or_the_new_state(tmp_path):
    with Victims(str(tmp_path / "gallery")) as victims:
        assert sum(kills(victims, tmp_path, 3, seed=0).values()) == 3
    check_goes_on(tmp_path)


@pytest.mark.slow
def test_a_hundred_kills_leave_the_old_or_the_new_state(tmp_path):
    with Victims(str(tmp_path / "gallery")) as victims:
        found = kills(victims, tmp_path, 100, seed=1)
    print(found)
    assert sum(found.values()) == 100, found
    assert found["before"] > 5, found
    check_goes_on(tmp_path)


def test_a_kill_in_the_middle_of_a_write_is_seen_by_this_test(tmp_path):
    """The check can fail: a photo without its row, and rows that were half done."""
    gallery = Gallery.open(tmp_path / "gallery", create=True)
    embedder = Embedder(backbones.create("pixels"), size=32)
    gallery.enroll([picture("red", 1), picture("red", 2)], "red", embedder=embedder)
    gallery.table.update(f"id = {gallery.photos()[0].id}", {"class_name": "half renamed"})
    with pytest.raises(AssertionError):
        check_whole(gallery)
