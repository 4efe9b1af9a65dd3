"""`fieldmark bench lssa` runs, and both its sides compute the same."""

import json
import os
import sys

import pytest
import torch

from fieldmark.benchmarks import lssa
from fieldmark.cli import main as cli


@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_both_sides_compute_the_same(shots, training):
    ours, peer = (lssa.Episode(name, 16, shots, training, 3) for name in lssa.SIDES)
    torch.testing.assert_close(ours(), peer(), rtol=1e-4, atol=1e-4)
    assert len(ours.gradients()) == (1 + len(list(ours.head.parameters())) if training else 0)
    for mine, theirs in zip(ours.gradients(), peer.gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_bench_writes_rows(monkeypatch, tmp_path, capsys):
    plain = lssa.run
    monkeypatch.setattr(lssa, "run", lambda **given: plain(**given, cases=((16, 1, True),), side=4))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    target = tmp_path / "lssa.json"
    assert cli.main(["bench", "lssa", "--repeats", "1", "--json", str(target)]) == 0
    assert "training, 16x4x4, 5-way 1-shot" in capsys.readouterr().out
    rows = json.loads(target.read_text())["benchmarks"]["lssa"]["rows"]
    assert [row["clock"] for row in rows] == ["wall", "cpu", "memory"]
    for row in rows[:2]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["difference_of_scores"] < 1e-3
        assert row["relative_difference_of_gradients"] < 1e-2
