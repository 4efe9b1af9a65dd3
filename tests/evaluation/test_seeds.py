"""Rows belong together where recipe and test are the same, and nowhere else."""

import json
import statistics

import pytest
from scipy import stats

from fieldmark.evaluation import make_record, save_record
from fieldmark.evaluation.seeds import differences, over_seeds
from fieldmark.evaluation.table import seeds_section
from fieldmark.training import load_recipe

MEANS = {0: 0.60, 1: 0.63, 2: 0.61}


@pytest.fixture
def write(tmp_path):
    """Writes a results file of one row, of a model that a recipe trained."""

    def written(
        file, seed, mean, *overrides, episodes="e" * 64, trained=True, head="prototype", size=32, last=None, **more
    ):
        recipe = load_recipe("baseline/glyphs_conv4", ["--seed", str(seed), "--name", f"mine_seed{seed}", *overrides])
        row = {
            "model": "model", "task": "few-shot", "mean": mean, "ci95": 0.01 * (seed + 1), "count": 600,
            "over": "episodes", "interval": "normal", "head": head, "head_options": {},
            "protocol": {"way": 5, "shot": 1, "queries": 15, "episodes": 600, "seed": 0}, "episode_hash": episodes,
            "queries_per_episode": 75, "hits_per_episode": [], "leaked_classes": [],
            "manifest": {"name": "glyphs", "split": "test", "checksum": "c", "size": [size, size]}, "seconds": {},
            **more,
        }  # fmt: skip
        facts = {"trained": trained, "recipe": recipe.name, "recipe_yaml": recipe.to_yaml(), "seed": seed}
        if last:
            names = [stage.name for stage in recipe.stages]
            facts["stages"] = [{"stage": name} for name in names[: names.index(last) + 1]]
        path = tmp_path / f"{file}.json"
        path.parent.mkdir(exist_ok=True)
        save_record(path, make_record(file, [row], {"model": facts}))

    return written


def test_seeds_of_one_recipe_and_test_belong_together(write, tmp_path):
    for seed, mean in MEANS.items():
        write(f"seeds/{seed}" if seed else "first", seed, mean)
    (one,) = over_seeds(tmp_path)
    assert one.recipe == "mine"
    assert list(one.rows) == [0, 1, 2]
    assert list(one.files.values()) == ["first.json", "seeds/1.json", "seeds/2.json"]
    spread = one.over_seeds
    assert spread.mean == pytest.approx(statistics.mean(MEANS.values()))
    half = stats.t.ppf(0.975, 2) * statistics.stdev(MEANS.values()) / 3**0.5
    assert spread.ci95 == pytest.approx(half)
    assert one.over_episodes.ci95 == pytest.approx(0.02)


@pytest.mark.parametrize(
    "other",
    [
        {"overrides": ("--stages.classify.epochs", "6")},
        {"episodes": "f" * 64},
        {"head": "logistic"},
        {"descriptors": {"name": "grid", "options": {}}},
        {"size": 84},
    ],
    ids=["recipe", "episodes", "head", "descriptors", "size"],
)
def test_another_recipe_test_head_or_description_is_apart(write, tmp_path, other):
    write("one", 0, 0.6)
    write("two", 1, 0.6, *other.pop("overrides", ()), **other)
    assert [list(one.rows) for one in over_seeds(tmp_path)] == [[0], [1]]


def test_where_it_was_trained_and_under_which_name_does_not_matter(write, tmp_path):
    write("one", 0, 0.6)
    write("two", 1, 0.6, "--data.root", "elsewhere", "--trainer.devices", "2")
    assert len(over_seeds(tmp_path)) == 1


def test_it_goes_by_the_name_that_most_seeds_have_or_the_first_of_them(write, tmp_path):
    write("one", 0, 0.6, "--name", "first_try")
    write("two", 1, 0.6, "--name", "small_seed1")
    assert over_seeds(tmp_path)[0].recipe == "first_try"
    write("three", 2, 0.6, "--name", "small_seed2")
    assert over_seeds(tmp_path)[0].recipe == "small"


def test_a_model_of_an_earlier_stage_is_another_and_what_came_later_does_not_matter_to_it(write, tmp_path):
    write("1_early", 0, 0.5, last="classify")
    write("2_whole", 0, 0.6, last="episodes")
    write("3_whole_without_stages_in_its_facts", 1, 0.7)
    write("4_early_of_a_recipe_with_other_episodes", 2, 0.4, "--stages.episodes.epochs", "7", last="classify")
    early, whole = over_seeds(tmp_path)
    assert (early.recipe, [row["mean"] for row in early.rows.values()]) == ("mine (up to classify)", [0.5, 0.4])
    assert (whole.recipe, [row["mean"] for row in whole.rows.values()]) == ("mine", [0.6, 0.7])
    assert "| `mine (up to classify)` |" in seeds_section(tmp_path)


def test_a_key_that_is_new_since_an_older_file_has_its_default(write, tmp_path):
    write("one", 0, 0.6)
    write("two", 1, 0.6)
    path = tmp_path / "two.json"
    record = json.loads(path.read_text())
    text = record["models"]["model"]["recipe_yaml"]
    assert "descriptors:\n  name: dense\n  options: {}\n" in text
    record["models"]["model"]["recipe_yaml"] = text.replace("descriptors:\n  name: dense\n  options: {}\n", "")
    path.write_text(json.dumps(record))
    assert len(over_seeds(tmp_path)) == 1


def test_an_older_file_does_not_name_pooled_descriptors(write, tmp_path):
    write("one", 0, 0.6)
    write("two", 1, 0.6, descriptors={"name": "pooled", "options": {}})
    assert len(over_seeds(tmp_path)) == 1


def test_a_seed_that_was_tested_twice_counts_once(write, tmp_path):
    write("a", 0, 0.6)
    write("b", 0, 0.6)
    (one,) = over_seeds(tmp_path)
    assert one.files == {0: "a.json"}


def test_untrained_models_have_no_seeds(write, tmp_path):
    write("one", 0, 0.6, trained=False)
    assert over_seeds(tmp_path) == []
    assert seeds_section(tmp_path) == ""


def test_the_section_shows_both_intervals_and_what_has_one_seed(write, tmp_path):
    for seed, mean in MEANS.items():
        write(str(seed), seed, mean)
    write("lone", 0, 0.7, "--stages.classify.epochs", "6", "--name", "lone")
    section = seeds_section(tmp_path)
    (line,) = [one for one in section.splitlines() if one.startswith("| `mine`")]
    assert "| 61.33 ± 2.00 | ± 3.80 | 0, 1, 2 | 60.00, 63.00, 61.00 |" in line
    assert "[0](0.json) [1](1.json) [2](2.json)" in line
    assert "spread: `lone`." in section


def test_seeds_on_images_of_their_own_stand_side_by_side_without_an_interval_over_them(write, tmp_path):
    for seed, mean in MEANS.items():
        manifest = {"name": "glyphs", "split": "held out", "checksum": f"of seed {seed}", "size": [32, 32]}
        write(f"own {seed}", seed, mean, manifest=manifest, episodes=str(seed) * 64)
    write("lone", 0, 0.7, "--stages.classify.epochs", "6", "--name", "lone")
    section = seeds_section(tmp_path)
    assert "each seed on images of its own: 60.00 (seed 0), 63.00 (seed 1), 61.00 (seed 2)." in section
    assert "spread: `lone`." in section
    assert "| `mine`" not in section


def add_row(path, hits, **more):
    """Another head on the same episodes, whose hits are given for both."""
    record = json.loads(path.read_text())
    record["rows"][0]["hits_per_episode"] = hits[0]
    record["rows"].append({**record["rows"][0], "hits_per_episode": hits[1], **more})
    path.write_text(json.dumps(record))


GAPS = {0: (3, 6), 1: (-3, 6), 2: (6, 0)}  # queries of 75, in each of two episodes


def write_two_heads(write, tmp_path):
    for seed, (one, two) in GAPS.items():
        write(str(seed), seed, MEANS[seed])
        add_row(tmp_path / f"{seed}.json", ([30, 60], [30 + one, 60 + two]), head="nearest", mean=0.5)


def test_differences_are_of_the_same_seed_to_the_first_row_of_its_file(write, tmp_path):
    write_two_heads(write, tmp_path)
    (one,) = differences(over_seeds(tmp_path), tmp_path)
    assert (one.first.row["head"], one.other.row["head"]) == ("prototype", "nearest")
    assert one.each == pytest.approx({0: 4.5 / 75, 1: 1.5 / 75, 2: 3 / 75})
    half = stats.t.ppf(0.975, 2) * (1.5 / 75) / 3**0.5
    assert (one.over_seeds.mean, one.over_seeds.ci95) == pytest.approx((3 / 75, half))
    (line,) = [line for line in seeds_section(tmp_path).splitlines() if "`mine`, prototype" in line]
    assert "| nearest |" in line
    assert "| +4.00 ± 4.97 | 0, 1, 2 | +6.00, +2.00, +4.00 |" in line


def test_a_difference_may_lie_in_two_files_of_a_seed_if_another_seed_has_them_in_one(write, tmp_path):
    write("0", 0, 0.6, hits_per_episode=[30])
    write("1", 1, 0.6, hits_per_episode=[30])
    write("1_nearest", 1, 0.6, head="nearest", hits_per_episode=[36])
    write("0_nearest", 0, 0.6, head="nearest", hits_per_episode=[33])
    assert len(over_seeds(tmp_path)) == 2
    assert differences(over_seeds(tmp_path), tmp_path) == []
    (tmp_path / "0_nearest.json").unlink()
    add_row(tmp_path / "0.json", ([30], [33]), head="nearest")
    (one,) = differences(over_seeds(tmp_path), tmp_path)
    assert one.other.row["head"] == "nearest"
    assert one.each == pytest.approx({0: 3 / 75, 1: 6 / 75})


def test_one_seed_has_no_difference_over_seeds(write, tmp_path):
    write("0", 0, 0.6)
    write("1", 1, 0.6)
    add_row(tmp_path / "0.json", ([30], [33]), head="nearest")
    assert differences(over_seeds(tmp_path), tmp_path) == []


def test_rows_below_the_first_are_not_compared_with_each_other(write, tmp_path):
    write_two_heads(write, tmp_path)
    for seed in GAPS:
        add_row(tmp_path / f"{seed}.json", ([30, 60], [31, 61]), head="fusion")
    assert [one.other.row["head"] for one in differences(over_seeds(tmp_path), tmp_path)] == ["nearest", "fusion"]
    assert {one.first.row["head"] for one in differences(over_seeds(tmp_path), tmp_path)} == {"prototype"}
