"""Every committed result says where it comes from, and trained models are better than untrained ones."""

import re
from pathlib import Path

import numpy as np
import pytest

from fieldmark.data import EpisodeIndex, draw_episodes
from fieldmark.evaluation import load_record
from fieldmark.evaluation.results import accuracies, compare_rows, runs_of
from fieldmark.evaluation.saved_episodes import episodes_section
from fieldmark.evaluation.statistics import hits_of_file
from fieldmark.evaluation.table import results_page, seeds_section
from fieldmark.files import read_json
from fieldmark.picks import load_list
from fieldmark.picks.page import page, readme_section
from fieldmark.reproduce.page import papers_section

RESULTS = Path(__file__).resolve().parents[1] / "results"
FILES = sorted([*RESULTS.glob("*.json"), *RESULTS.glob("seeds/*.json")])


def test_there_are_results():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_record_is_whole(path):
    record = load_record(path)
    for row in record["rows"]:
        manifest, protocol = row["manifest"], row["protocol"]
        assert manifest["checksum"]
        assert manifest["name"]
        assert len(row["episode_hash"]) == 64
        assert "seed" in protocol or "source" in protocol
        assert row["ci95"] > 0
        assert row["count"] == len(row["hits_per_episode"])
        assert accuracies(row).mean() == pytest.approx(row["mean"])
        for run in runs_of(row):
            assert row["count"] == len(run["hits_per_episode"])
            assert accuracies(run).mean() == pytest.approx(run["mean"])
        for one in row.get("columns", {}).values():  # changed images; the hits on plain ones are the row's
            assert hits_of_file(one.get("hits_per_image", row["hits_per_episode"])).mean() == pytest.approx(one["mean"])
        assert not row["leaked_classes"]
    made = record["provenance"]
    assert len(made["commit"].removesuffix("+changes")) == 40
    assert made["hardware"]["cores"]
    assert made["threads"] >= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_of_one_file_share_their_episodes(path):
    rows = load_record(path)["rows"]
    for row in rows[1:]:
        compare_rows(rows[0], row)  # refuses different images, and different episodes of any run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_trained_models_beat_their_untrained_backbone(path):
    record = load_record(path)
    trained = {key for key, facts in record["models"].items() if facts["trained"]}
    untrained = {key for key, facts in record["models"].items() if not facts["trained"]}
    if not trained or not untrained:
        pytest.skip("no untrained baseline in this file")
    for row in record["rows"]:
        if row["model"] in trained:
            for other in record["rows"]:
                if other["model"] in untrained and other["head"] == row["head"]:
                    assert row["mean"] - other["mean"] > 2 * (row["ci95"] + other["ci95"])


def test_the_page_is_what_the_files_say():
    before = papers_section(RESULTS) + readme_section(RESULTS) + seeds_section(RESULTS) + episodes_section(RESULTS)
    assert (RESULTS / "README.md").read_text() == results_page(RESULTS, before), "run: make results"


EPISODES = sorted(RESULTS.glob("episodes/*.npz"))


@pytest.mark.parametrize("path", EPISODES, ids=lambda path: path.stem)
def test_saved_episodes_bear_their_hash_and_are_what_results_were_measured_on(path):
    episodes = EpisodeIndex.load(path)
    assert path.stem == episodes.hash[:12]
    said = f'"episode_hash": "{episodes.hash}"'
    users = sum(said in file.read_text() for file in [*RESULTS.glob("*.json"), *RESULTS.glob("*/*.json")])
    (line,) = [line for line in (RESULTS / "README.md").read_text().splitlines() if f"episodes/{path.name}" in line]
    assert users
    assert line.endswith(f"| {users} |")


@pytest.mark.parametrize(("stem", "shot", "count"), [("a2b0d83540ee", 1, 600), ("e12c194cb99b", 5, 600)])
def test_a_seed_draws_the_saved_episodes_again(stem, shot, count):
    labels = np.repeat(np.arange(20), 600)  # the test classes of CIFAR-FS, and of FC100
    drawn = draw_episodes(labels, way=5, shot=shot, queries=15, episodes=count, seed=0)
    assert drawn.hash == EpisodeIndex.load(RESULTS / "episodes" / f"{stem}.npz").hash


def test_the_page_on_what_to_pick_is_what_the_files_say():
    docs = RESULTS.parent / "docs"
    text = page(load_list(), RESULTS / "picks")
    assert (docs / "what_to_pick.md").read_text() == text, "run: make results"
    for image in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (docs / image).exists(), "run: make results"


def test_benchmarks_say_where_they_come_from():
    for path in sorted((RESULTS.parent / "benchmarks").glob("*.json")):
        report = read_json(path, "benchmark")
        assert report["provenance"]["hardware"]["cores"]
        for found in report["benchmarks"].values():
            for row in found["rows"]:
                less_is_better = row["unit"] == "MB"
                ratio = row["peer"] / row["ours"] if less_is_better else row["ours"] / row["peer"]
                assert row["ratio"] == pytest.approx(ratio, rel=0.02)
