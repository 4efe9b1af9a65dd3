"""`fieldmark bench gallery` runs, small, and its made-up vectors are a search worth measuring."""

import json
import os
import sys

import numpy as np
import pytest

from fieldmark.benchmarks import gallery
from fieldmark.cli import main as cli

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")


def test_queries_are_nearest_to_photos_of_their_class():
    centres = gallery.make_centres(20)
    vectors, queries = gallery.make_vectors(200, 1, centres), gallery.make_vectors(20, 2, centres)
    cosines = (queries @ vectors.T) / np.linalg.norm(vectors, axis=1)
    assert (cosines.argmax(1) % 20 == np.arange(20)).mean() > 0.9


@pytest.mark.slow
def test_bench_writes_rows(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(gallery, "PREDICTED", 4)
    target = tmp_path / "gallery.json"
    words = ["bench", "gallery", "--photos", "1000", "--classes", "2", "--repeats", "1", "--json", str(target)]
    assert cli.main(words) == 0
    assert "top 10 of 1,000 photos" in capsys.readouterr().out
    rows = json.loads(target.read_text())["benchmarks"]["gallery"]["rows"]
    assert rows[0]["recall"]["exact"] > 0.99
    assert len(rows) == 3


def test_options_of_the_benchmark_are_checked(capsys):
    assert cli.main(["bench", "gallery", "--photos", "1"]) == 2
    assert "--photos is 1; expected at least 2" in capsys.readouterr().err
    assert cli.main(["bench", "lssa", "--classes", "3"]) == 2
    assert "option of the benchmark gallery" in capsys.readouterr().err
