import numpy as np
import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.results import accuracies
from fieldmark.evaluation.statistics import Estimate, estimate, hits_for_file, hits_of_file, paired_difference
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


def test_hits_of_single_images_come_back_from_a_file_as_they_were():
    hits = np.random.default_rng(0).random(500) < 0.7
    for kind in (bool, int, float):
        assert hits_for_file(hits.astype(kind)) == "".join("1" if hit else "0" for hit in hits.tolist())
    for written in (hits_for_file(hits), hits.astype(int).tolist()):  # files of before hold a list
        assert (hits_of_file(written) == hits).all()
        assert (accuracies({"hits_per_episode": written, "queries_per_episode": 1}) == hits).all()
    assert accuracies({"hits_per_episode": [75, 30], "queries_per_episode": 75}).tolist() == [1, 0.4]
    with pytest.raises(FieldmarkError, match="digits 0 and 1, not '2'"):
        hits_of_file("0120")
