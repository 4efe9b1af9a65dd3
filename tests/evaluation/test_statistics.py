import numpy as np
import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.statistics import Estimate, estimate, paired_difference
from fieldmark.files import read_json, write_json


def test_intervals_equal_the_official_codes(golden):
    extras = golden("extras")
    normal = estimate(extras["acc"])
    np.testing.assert_allclose([normal.mean, normal.ci95], extras["deepemd_ci_mean_pm"], rtol=1e-9)
    student = estimate(extras["acc"], interval="student")
    np.testing.assert_allclose([student.mean, student.ci95], extras["scl_ci_mean_h"], rtol=1e-9)


def test_paired_interval_is_narrower_when_episodes_are_shared():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.6, 0.1, 600)
    a, b = difficulty + rng.normal(0.01, 0.01, 600), difficulty + rng.normal(0, 0.01, 600)
    paired = paired_difference(a, b)
    assert paired.ci95 < 0.2 * estimate(a).ci95
    assert abs(paired.mean - (a.mean() - b.mean())) < 1e-12


def test_interval_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    inside = [abs(e.mean - 0.5) < e.ci95 for e in (estimate(rng.normal(0.5, 0.2, 200)) for _ in range(2000))]
    assert 0.935 < np.mean(inside) < 0.965


def test_percent_never_rounds_up():
    assert Estimate(0.59999, 0.00801, 600, "episodes", "normal").percent() == "59.99 ± 0.81"


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_bad_values(values):
    with pytest.raises(FieldmarkError, match="finite values"):
        estimate(values)


def test_different_lengths_are_refused():
    with pytest.raises(FieldmarkError, match="same episodes"):
        paired_difference([1, 2], [1, 2, 3])


@pytest.mark.parametrize("interval", ["normal", "student"])
def test_a_single_value_has_no_interval_on_screen_and_in_files(interval, tmp_path):
    one = estimate([0.75], interval=interval)
    assert (one.ci95, one.percent()) == (float("inf"), "75.00 ± ?")
    path = write_json(tmp_path / "one.json", one.to_dict())
    assert '"ci95": null' in path.read_text()
    assert Estimate.from_dict(read_json(path, "test")) == one
