"""Several runs: other episodes each, the median run, and paired differences over all of them."""

import copy

import numpy as np
import pytest
import torch

from fieldmark import backbones, data
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import compare_rows, evaluate_few_shot, evaluate_runs, make_record
from fieldmark.evaluation.results import check_record
from fieldmark.evaluation.statistics import median_run
from fieldmark.evaluation.table import results_page
from fieldmark.files import write_json

HOW = {"way": 5, "shot": 1, "queries": 3, "episodes": 12}


@pytest.fixture(scope="module")
def glyphs():
    """Twelve classes are enough, and quick."""
    whole = data.load("glyphs", split="test")
    return whole.subset(np.flatnonzero(whole.labels < 12))


class Counting(Encoder):
    """Counts the images it is given."""

    def forward(self, images):
        self.__dict__["seen"] = self.__dict__.get("seen", 0) + len(images)
        return super().forward(images)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Counting(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)


def test_runs_are_the_single_evaluations_and_the_median_is_one_of_them(glyphs, encoder):
    found = evaluate_runs(encoder, glyphs, {"mean": "prototype", "near": "nearest"}, 3, seed=5, **HOW)
    single = [evaluate_few_shot(encoder, glyphs, head="prototype", seed=5 + run, **HOW) for run in range(3)]
    for ours, alone in zip(found["mean"].results, single, strict=True):
        assert ours.episodes.hash == alone.episodes.hash
        np.testing.assert_array_equal(ours.predicted, alone.predicted)
    assert found["mean"].median.accuracy == np.median([one.accuracy for one in single])
    assert len({one.episodes.hash for one in single}) == 3


def test_images_are_encoded_once_and_copies_anew(glyphs, encoder):
    evaluate_runs(encoder, glyphs, {"mean": "prototype"}, 3, **HOW)
    assert encoder.seen == len(glyphs)
    encoder.__dict__["seen"] = 0
    found = evaluate_runs(encoder, glyphs, {"mean": "prototype"}, 2, support_copies=2, **HOW)
    support = sum(len(np.unique(result.episodes.support)) for result in found["mean"].results)
    assert encoder.seen == len(glyphs) + 2 * support
    alone = evaluate_few_shot(encoder, glyphs, support_copies=2, seed=1, **HOW)
    np.testing.assert_array_equal(found["mean"].results[1].predicted, alone.predicted)


def test_spatial_features_of_one_encoding_serve_beside_pooled_ones(glyphs, encoder):
    heads = {"global": "logistic", "both": "logistic"}
    options = {"both": {"features": "sum"}}
    found = evaluate_runs(encoder, glyphs, heads, 1, head_options=options, **HOW)
    assert encoder.seen == len(glyphs)
    assert found["both"].median.descriptors == {"name": "spatial", "options": {}}
    assert found["global"].median.descriptors["name"] == "pooled"
    assert (found["both"].median.predicted != found["global"].median.predicted).any()


def test_differences_and_records_count_the_episodes_of_all_runs(glyphs, encoder, tmp_path):
    found = evaluate_runs(encoder, glyphs, {"mean": "prototype", "near": "nearest"}, 3, **HOW)
    values = {key: np.concatenate([one.episode_accuracies for one in runs.results]) for key, runs in found.items()}
    gap = found["mean"].difference(found["near"])
    assert gap.count == 36
    assert gap.mean == pytest.approx((values["mean"] - values["near"]).mean())
    rows = {key: {"model": "m", **runs.to_dict()} for key, runs in found.items()}
    assert compare_rows(rows["mean"], rows["near"]) == gap
    assert [run["seed"] for run in rows["mean"]["runs"]] == [0, 1, 2]
    assert np.median([run["mean"] for run in rows["mean"]["runs"]]) == rows["mean"]["mean"]
    assert [run["mean"] for run in rows["mean"]["runs"] if "hits_per_episode" not in run] == [rows["mean"]["mean"]]
    other = copy.deepcopy(rows["near"])
    other["runs"][1]["episode_hash"] = "0" * 64
    with pytest.raises(FieldmarkError, match="different episodes"):
        compare_rows(rows["mean"], other)
    record = make_record("a", list(rows.values()), {"m": {}})
    write_json(tmp_path / "a.json", record)
    assert "median of 3 runs, seeds 0, 1, 2" in results_page(tmp_path)
    for run in rows["near"]["runs"]:  # none takes the hits of another run for its own
        run.pop("hits_per_episode", None)
    with pytest.raises(FieldmarkError, match="made: a run lacks the field 'hits_per_episode', and the row's are of"):
        check_record(record, "made")


def test_one_run_is_an_ordinary_result(glyphs, encoder):
    found = evaluate_runs(encoder, glyphs, {"mean": "prototype"}, 1, **HOW)
    assert "runs" not in found["mean"].to_dict()


def test_fixed_episodes_cannot_be_run_again(glyphs, encoder):
    index = evaluate_few_shot(encoder, glyphs, **HOW).episodes
    with pytest.raises(FieldmarkError, match="3 runs of fixed episodes"):
        evaluate_runs(encoder, glyphs, {"mean": "prototype"}, 3, episodes=index)
    with pytest.raises(FieldmarkError, match="runs is 0"):
        evaluate_runs(encoder, glyphs, {"mean": "prototype"}, 0, **HOW)


@pytest.mark.parametrize("values", [[0.3], [0.5, 0.1, 0.3], [0.2, 0.4, 0.1, 0.3], [0.1, 0.1, 0.1]])
def test_median_run(values):
    assert values[median_run(values)] == sorted(values)[(len(values) - 1) // 2]


def test_no_runs_have_no_median():
    with pytest.raises(FieldmarkError, match="at least one run"):
        median_run([])
