"""Ten thousand damaged and hostile files through `fieldmark predict`: each gets an answer or one clear line."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from fieldmark.cli import main as cli
from fieldmark.gallery import Gallery, read_pictures

sys.path.insert(0, str(Path(__file__).parent))
import mutants
from drawn import embedder, picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")

BATCH = 200
SECONDS = 30.0  # of processor time for one file; the largest that are read have a hundred million pixels
MEGABYTES = 2500  # that a batch may add to the largest memory so far
_NUMBER = re.compile(r"[\d,.]+")


@pytest.fixture
def gallery(tmp_path):
    made = Gallery.open(tmp_path / "gallery", create=True)
    shots = [picture(name, n) for name in ("red", "green") for n in range(2)]
    made.enroll(shots, ["red", "red", "green", "green"], embedder=embedder())
    return made


def reason_of(problem: str, path: str) -> str:
    """A problem without the file's name and without numbers."""
    assert problem.startswith(path), problem
    text = problem.removeprefix(path)
    return _NUMBER.sub("#", re.sub(r"\(.*\)", "(...)", text)).strip()


def through_predict(gallery: Gallery, folder: Path, numbers: range, capfd) -> tuple[Counter, float, float]:
    """Outcomes by kind and reason, the longest processor time of a file, and megabytes that were needed."""
    folder.mkdir(exist_ok=True)
    kinds = {}
    for number in numbers:
        kind, name, content = mutants.mutant(7, number)
        (folder / name).write_bytes(content)
        kinds[str(folder / name)] = kind
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = 0.0
    for path in kinds:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_pictures([path], 16, on_error="skip", progress=False)
        slowest = max(slowest, time.process_time() - start)
    status = cli.main(["predict", *kinds, "--gallery", gallery.uri, "--json", "-"])
    printed = capfd.readouterr()
    report = json.loads(printed.out)
    found: Counter = Counter()
    answered = {one["image"] for one in report["predictions"]}
    problems = {one["image"]: one["problem"] for one in report["problems"]}
    assert answered.isdisjoint(problems)
    assert answered | set(problems) == set(kinds)
    assert status == (1 if problems else 0)
    assert printed.err.splitlines() == [f"fieldmark: {problem}" for problem in problems.values()]
    for path, problem in problems.items():
        assert len(problem) < len(path) + 300, problem
        assert problem.isprintable(), problem
        found[kinds[path], reason_of(problem, path)] += 1
    for path in answered:
        found[kinds[path], "answered"] += 1
    for path in kinds:
        os.unlink(path)
    return found, slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def check(gallery: Gallery, folder: Path, count: int, capfd) -> Counter:
    found: Counter = Counter()
    slowest, most = 0.0, 0.0
    for start in range(0, count, BATCH):
        outcomes, seconds, megabytes = through_predict(gallery, folder, range(start, min(count, start + BATCH)), capfd)
        found += outcomes
        slowest, most = max(slowest, seconds), max(most, megabytes)
    assert sum(found.values()) == count
    assert slowest < SECONDS
    assert most < MEGABYTES
    answered = {kind: number for (kind, outcome), number in found.items() if outcome == "answered"}
    assert answered["whole"] == sum(number for (kind, _), number in found.items() if kind == "whole")
    assert "noise" not in answered
    reasons = Counter()
    for (_, outcome), number in found.items():
        reasons[outcome] += number
    with capfd.disabled():
        print(f"\n{count} files, slowest {slowest:.2f} s, at most {most:.0f} MB more a batch")
        for reason, number in reasons.most_common():
            print(f"  {number:6d}  {reason}")
    return found


def test_mutated_images_are_answered_or_named(gallery, tmp_path, capfd):
    found = check(gallery, tmp_path / "asked", 210, capfd)
    assert {kind for kind, _ in found} == {kind.__name__ for kind in mutants.KINDS}


@pytest.mark.slow
def test_ten_thousand_mutated_images(gallery, tmp_path, capfd):
    check(gallery, tmp_path / "asked", 10_000, capfd)


def test_mutants_are_the_same_each_time():
    assert mutants.mutant(7, 5) == mutants.mutant(7, 5)
    assert mutants.mutant(7, 5)[2] != mutants.mutant(8, 5)[2]
