"""The benchmark of API-Net runs in miniature, and its sides do the same."""

from __future__ import annotations

import numpy as np
import pytest

from fieldmark.benchmarks import apinet


def test_rows_of_pairs(monkeypatch):
    monkeypatch.setattr(apinet, "LENGTH", 16)
    rows = apinet.pair_rows(1)
    assert [row.get("target") for row in rows] == [20.0, 20.0, None, None]
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)


def test_the_loops_agree():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 5)), np.arange(12) % 3
    assert apinet.looped(features, labels) == apinet.chosen_in_a_loop(features, labels)


def test_rows_of_steps(monkeypatch):
    monkeypatch.setattr(apinet, "measured", lambda step: {"ours": 10.0, "peer": 40.0}[step.given[0]])
    rows = apinet.step_rows(("conv4", 32, 8, 2), 1)
    assert [row["clock"] for row in rows] == ["wall", "cpu", "memory"]
    assert rows[0]["relative_difference_of_gradients"] < 1e-4
    assert rows[0]["difference_of_losses"] == pytest.approx(0, abs=1e-5)
    assert (rows[2]["ratio"], rows[2]["target"]) == (4.0, 3.0)
