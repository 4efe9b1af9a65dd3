"""Confidence against what it should be: scores of a known temperature, plain loops, scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.gallery.calibration import (
    ALLOWANCE,
    FEWEST,
    best_temperature,
    calibrate,
    negative_log_likelihood,
    spread,
)
from fieldmark.gallery.confidence_measures import expected_calibration_error, reliability, risk_coverage
from fieldmark.gallery.held_out import class_groups, held_out_photos, photo_runs, strangers


def answers(count: int = 4000, way: int = 6, temperature: float = 0.2, seed: int = 0):
    """Scores, and labels that were drawn by the softmax of the scores over a temperature."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, way, generator=generator)
    labels = torch.multinomial(torch.softmax(scores / temperature, -1), 1, generator=generator).flatten()
    return scores, labels


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0, 5.0])
def test_the_temperature_that_drew_the_labels_is_found(temperature):
    scores, labels = answers(temperature=temperature)
    assert best_temperature(scores, labels) == pytest.approx(temperature, rel=0.25 if temperature > 2 else 0.1)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_scores_is_the_scale_of_the_temperature(unit):
    scores, labels = answers(500)
    assert best_temperature(unit * scores, labels) == pytest.approx(unit * best_temperature(scores, labels), rel=0.01)


def test_no_other_temperature_is_likelier():
    scores, labels = answers(300)
    found = best_temperature(scores, labels)
    best = negative_log_likelihood(scores, labels, found)
    for other in found * np.logspace(-1, 1, 41):
        assert best <= negative_log_likelihood(scores, labels, float(other)) + 1e-5


def test_likelihood_is_that_of_a_plain_loop():
    scores, labels = answers(50)
    each = []
    for row, label in zip(scores.double().numpy() / 0.7, labels.tolist(), strict=True):
        chances = np.exp(row) / np.exp(row).sum()
        each.append(-np.log(chances[label]))
    assert negative_log_likelihood(scores, labels, 0.7) == pytest.approx(np.mean(each), rel=1e-9)


def test_photos_that_are_all_right_do_not_make_certain():
    scores = torch.eye(3)[[0, 1, 2]]
    labels = torch.arange(3)
    sure = best_temperature(scores, labels)
    careful = best_temperature(scores, labels, prior=0.3, prior_photos=5)
    assert sure < 0.03  # as far as is looked
    assert 0.05 < careful < 0.3
    assert best_temperature(scores[:0], labels[:0], prior=0.3) == 0.3
    with pytest.raises(FieldmarkError, match="no photo at all"):
        best_temperature(scores[:0], labels[:0])


def test_many_photos_outweigh_the_prior():
    scores, labels = answers(4000, temperature=0.2)
    assert best_temperature(scores, labels, prior=2.0, prior_photos=5) == pytest.approx(0.2, rel=0.1)


def test_spread_leaves_classes_out_that_were_left_out():
    scores = torch.tensor([[1.0, 3.0, -torch.inf], [2.0, -torch.inf, 4.0]])
    assert spread(scores) == pytest.approx(1.0)
    assert spread(torch.ones(2, 3)) == 1.0
    assert spread(torch.empty(0, 3)) == 1.0


def test_every_photo_of_a_class_with_two_is_left_out_once():
    labels = np.array([2, 0, 1, 0, 0, 2, 0, 0])
    for runs in (2, 3, 20):
        left = photo_runs(labels, runs)
        assert len(left) <= runs
        assert sorted(np.concatenate(left).tolist()) == [0, 1, 3, 4, 5, 6, 7]  # photo 2 is alone
        for run in left:
            assert set(labels[np.setdiff1d(np.arange(8), run)]) == {0, 1, 2}
    assert photo_runs(np.arange(4)) == []


def test_every_class_is_left_out_once():
    for way in (2, 3, 5, 11):
        groups = class_groups(way)
        assert sorted(np.concatenate(groups).tolist()) == list(range(way))
        assert all(len(group) < way for group in groups)


class Recorder:
    """A head that scores photo numbers, and remembers what it was given."""

    def __init__(self, labels: torch.Tensor):
        self.labels, self.calls = labels, []

    def __call__(self, stay, stay_labels, query, way):
        self.calls.append((stay, stay_labels, query, way))
        assert set(stay_labels.tolist()) == set(range(way)), "every class that takes part has a photo"
        return torch.randn(len(query), way, generator=torch.Generator().manual_seed(len(stay)))


def test_nobody_is_scored_against_itself():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    score = Recorder(labels)
    held = held_out_photos(score, labels, 4)
    assert sorted(held.index.tolist()) == [0, 1, 2, 3, 4, 6, 7]
    assert torch.equal(held.labels, labels[held.index])
    for stay, stay_labels, query, way in score.calls:
        assert not set(stay.tolist()) & set(query.tolist())
        assert torch.equal(stay_labels, labels[stay])
        assert way == 4


def test_strangers_are_scored_without_their_class():
    labels = torch.tensor([0, 0, 1, 2, 3, 3])
    score = Recorder(labels)
    away = strangers(score, labels, 4, groups=2)
    assert sorted(away.index.tolist()) == list(range(6))
    for row, label in zip(away.scores, away.labels, strict=True):
        assert row[label] == -torch.inf
        assert torch.isfinite(row).sum() == 2
    for stay, stay_labels, query, _ in score.calls:
        assert not set(labels[stay].tolist()) & set(labels[query].tolist())
        order = sorted(set(labels[stay].tolist()))
        assert [order[i] for i in stay_labels.tolist()] == labels[stay].tolist()


def vectors(way: int, shot: int, noise: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(way, 16, generator=generator)
    labels = torch.arange(way).repeat_interleave(shot)
    return centres[labels] + noise * torch.randn(len(labels), 16, generator=generator), labels, centres


def nearest_mean(photos):
    """Scores: minus the squared distance to the mean of each class."""

    def score(stay, labels, query, way):
        means = torch.stack([photos[stay][labels == c].mean(0) for c in range(way)])
        return -(torch.cdist(photos[query], means) ** 2)

    return score


def test_confidence_of_new_photos_is_their_accuracy():
    photos, labels, centres = vectors(20, 10, 1.2)
    found = calibrate(nearest_mean(photos), labels, 20, allowance=1.0)
    new = torch.arange(20).repeat_interleave(100)
    queries = centres[new] + 1.2 * torch.randn(len(new), 16, generator=torch.Generator().manual_seed(9))
    scores = -(torch.cdist(queries, torch.stack([photos[labels == c].mean(0) for c in range(20)])) ** 2)
    best = torch.softmax(scores / found.temperature, -1).max(-1)
    right = best.indices == new
    assert 0.6 < right.float().mean() < 0.97
    assert expected_calibration_error(best.values.numpy(), right.numpy()) < 0.05
    assert expected_calibration_error(torch.softmax(scores, -1).amax(-1).numpy(), right.numpy()) > 0.05
    assert found.photos == 200
    assert found.accuracy == pytest.approx(float(right.float().mean()), abs=0.08)
    # The line: about 5% of new photos of these classes are below it, and several times as many strangers.
    assert float((scores.amax(-1) < found.threshold).float().mean()) == pytest.approx(0.05, abs=0.04)
    means = torch.stack([photos[labels == c].mean(0) for c in range(20)])
    strange = -(torch.cdist(torch.randn(500, 16, generator=torch.Generator().manual_seed(3)) * 1.6, means) ** 2)
    assert float((strange.amax(-1) < found.threshold).float().mean()) > 0.2
    assert found.basis == "held-out photos"


def test_the_allowance_raises_the_temperature_of_held_out_photos_only():
    photos, labels, _ = vectors(6, 8, 1.0)
    plain, raised = (calibrate(nearest_mean(photos), labels, 6, allowance=one) for one in (1.0, ALLOWANCE))
    assert raised.temperature == pytest.approx(ALLOWANCE * plain.temperature, rel=0.1)
    photos, labels, _ = vectors(6, 1, 1.0)
    plain, raised = (calibrate(nearest_mean(photos), labels, 6, allowance=one) for one in (1.0, ALLOWANCE))
    assert raised.temperature == plain.temperature


def test_one_photo_a_class_gives_the_prior_and_a_line_from_strangers():
    photos, labels, _ = vectors(12, 1, 1.0)
    score = nearest_mean(photos)
    found = calibrate(score, labels, 12, prior=0.4)
    away = strangers(score, labels, 12)
    assert found.temperature == pytest.approx(0.4 * spread(away.scores))
    assert found.accuracy is None
    assert found.photos == 0
    assert found.basis == "strangers"
    assert found.threshold == pytest.approx(float(away.scores.amax(-1).double().quantile(0.05)))
    assert found.strangers_rejected == pytest.approx(0.05, abs=1 / 12)


def test_few_held_out_photos_are_not_asked_for_a_line():
    labels = torch.tensor([0, 0, 1, 2, 3, 4])
    found = calibrate(Recorder(labels), labels, 5)
    assert found.photos == 2 < FEWEST
    assert found.basis == "strangers"
    assert np.isfinite(found.temperature)
    assert found.temperature > 0


@pytest.mark.parametrize("shot", [1, 2, 12])
def test_a_single_class(shot):
    labels = torch.zeros(shot, dtype=torch.int64)
    photos = torch.randn(shot, 16, generator=torch.Generator().manual_seed(0))
    found = calibrate(nearest_mean(photos), labels, 1)
    assert found.temperature == 1.0
    assert found.stranger_photos == 0
    assert (found.threshold is None) == (shot == 1)


def test_calibration_error_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence**2
    confidence[:3] = 0.0, 1.0, 0.2  # edges
    for bins in (1, 5, 15):
        error = 0.0
        for i in range(bins):
            low, high = np.linspace(0, 1, bins + 1)[[i, i + 1]]
            inside = [k for k, one in enumerate(confidence) if low < one <= high or (i == 0 and one == 0)]
            if inside:
                error += len(inside) / 500 * abs(np.mean(confidence[inside]) - np.mean(correct[inside]))
        assert expected_calibration_error(confidence, correct, bins) == pytest.approx(error, abs=1e-12)


def test_calibration_error_is_that_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    scores, labels = answers(800)
    chances = torch.softmax(scores, -1)
    best = chances.max(-1)
    theirs = functional.multiclass_calibration_error(chances, labels, 6, n_bins=15)
    ours = expected_calibration_error(best.values.numpy(), (best.indices == labels).numpy())
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_bins_say_confidence_and_accuracy():
    found = reliability(np.array([0.1, 0.9, 0.95, 1.0]), [0, 1, 0, 1], bins=2)
    assert found.counts.tolist() == [1, 3]
    assert found.confidence.tolist() == pytest.approx([0.1, 0.95])
    assert found.accuracy.tolist() == pytest.approx([0, 2 / 3])
    assert np.isnan(reliability(np.array([0.9]), [1], bins=2).accuracy[0])


def test_risk_and_coverage_of_a_plain_loop():
    rng = np.random.default_rng(1)
    confidence, correct = np.round(rng.random(60), 1), rng.random(60) < 0.7
    found = risk_coverage(confidence, correct)
    for threshold, coverage, risk in zip(found.threshold, found.coverage, found.risk, strict=True):
        answered = confidence >= threshold
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx(1 - correct[answered].mean())
    # The area is the mean over all orders of equal confidence; check by shuffling.
    areas = []
    for _ in range(400):
        order = np.lexsort((rng.random(60), -confidence))
        areas.append((np.cumsum(~correct[order]) / np.arange(1, 61)).mean())
    assert found.area == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / 20)
    assert found.coverage_at(1.0) == 1.0
    assert found.coverage_at(-0.1) == 0.0


@pytest.mark.parametrize("measure", [expected_calibration_error, risk_coverage])
@pytest.mark.parametrize(
    ("confidence", "correct", "words"),
    [
        (np.array([]), [], "expected one of each"),
        (np.array([0.5]), [1, 0], "expected one of each"),
        (np.array([np.nan]), [1], "NaN or infinity"),
    ],
)
def test_no_answers_and_odd_ones_are_refused(measure, confidence, correct, words):
    with pytest.raises(FieldmarkError, match=words):
        measure(confidence, correct)


def test_what_is_no_probability_is_refused():
    with pytest.raises(FieldmarkError, match=r"from 0.5 to 3; expected 0 to 1"):
        expected_calibration_error(np.array([0.5, 3.0]), [1, 1])
    with pytest.raises(FieldmarkError, match="bins is 0"):
        reliability(np.array([0.5]), [1], bins=0)
