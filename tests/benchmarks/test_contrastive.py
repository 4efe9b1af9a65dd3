"""`fieldmark bench contrastive` runs, and its peer is the official function."""

import json
import os
import sys

import pytest
import torch

from fieldmark.benchmarks import contrastive
from fieldmark.cli import main as cli


@pytest.mark.parametrize("name", ["scl_spatial_a", "scl_spatial_lowT"])
@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "logsumexp"])
def test_the_peer_gives_the_recorded_similarities(golden, name, aggregation):
    arrays = {key: torch.from_numpy(array) for key, array in golden(name).items()}
    locations, sets = arrays["features"].flatten(2).mT, []
    for one in ("query", "key", "value"):
        first, second = (arrays[f"w/{one}.{number}.weight"] for number in (0, 2))
        sets.append((locations @ first.mT).relu() @ second.mT)
    found = contrastive.official(*sets, aggregation=aggregation)
    recorded = arrays[f"{aggregation.replace('logsumexp', 'logsum')}_similarity"]
    torch.testing.assert_close(found, recorded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [False, True])
def test_both_sides_do_the_same_step(heads):
    ours, peer = (contrastive.Step(name, 2, heads, "mean", 8) for name in contrastive.SIDES)
    torch.testing.assert_close(ours(), peer())
    assert len(ours.leaves) == (7 if heads else 3)
    for mine, theirs in zip(ours.leaves, peer.leaves, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_memory_is_that_of_the_step_alone(monkeypatch):
    # Neither what this process holds nor what it held.
    large = torch.ones(2**26)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    used = {name: contrastive.measured(contrastive.Step(name, 5, False, "mean", 64)) for name in contrastive.SIDES}
    assert large.numel() * 4 / 2**20 == 256
    # The peer cannot do without one number a pair, location and channel, several times.
    assert used["peer"] > 4 * 64 * 64 * 25 * 80 / 2**20
    assert 0 < used["ours"] < used["peer"]


def test_bench_writes_rows(monkeypatch, tmp_path, capsys):
    plain = contrastive.run
    monkeypatch.setattr(contrastive, "run", lambda **given: plain(**given, cases=((2, False, "mean"),), images=8))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    target = tmp_path / "contrastive.json"
    assert cli.main(["bench", "contrastive", "--repeats", "1", "--json", str(target)]) == 0
    assert "8 images, 2x2x80, mean" in capsys.readouterr().out
    *rows, step = json.loads(target.read_text())["benchmarks"]["contrastive"]["rows"]
    assert [row["clock"] for row in rows] == ["wall", "cpu", "memory"]
    assert step["case"] == "step"
    assert step["ours"] == pytest.approx(1000 / step["milliseconds"]["ours"])
    assert len(step["repeats"]["ours"]) == len(step["repeats"]["peer"]) == contrastive.STEPS - contrastive.WARM
    for row in rows[:2]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["difference_of_loss"] < 1e-4
        assert row["relative_difference_of_gradient"] < 1e-3
