"""The training benchmark trains what it says, on every side."""

import numpy as np
import pytest

from fieldmark.benchmarks import training


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(training, "BATCH", 4)
    monkeypatch.setattr(training, "STEPS", {"conv4": 3})
    images = np.random.default_rng(0).integers(0, 256, (16, training.SIZE, training.SIZE, 3), dtype=np.uint8)
    return images, np.arange(16) % 4


@pytest.mark.parametrize("measure", [training.step_rows, training.precision_rows])
def test_rows_hold_what_was_measured(small, measure):
    (row,) = measure("conv4", *small, 3)
    assert [len(row["repeats"][side]) for side in ("ours", "peer")] == [3, 3]
    assert row["ours"] == sorted(row["repeats"]["ours"])[1]
    assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])


def test_precision_is_that_of_the_side(small, monkeypatch):
    seen = []
    monkeypatch.setattr(
        training, "ends_of_steps", lambda recipe, *_: seen.append(recipe.trainer["precision"]) or [0.0, 1.0, 2.0]
    )
    training.precision_rows("conv4", *small, 2)
    assert seen == ["bf16-mixed", "32-true", "32-true", "bf16-mixed"]
