"""The recipes of LSSA: the paper's phases, and every row of its tables as the head of lssa/cub_conv4 gives it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from fieldmark import methods
from fieldmark.training import list_recipes, load_recipe
from fieldmark.training.recipe import parse_overrides

RECIPES = {one.name: one for one in list_recipes() if one.name.startswith("lssa/")}
HEAD = RECIPES["lssa/cub_conv4"].head_comment
# What is on in each row: foreground, correspondence, g, manipulation.
ROWS = {
    "baseline": ("none", False, False, False),
    "LSC": ("none", True, True, False),
    "FOE": ("full", False, False, False),
    "LSC + SSM": ("none", True, True, True),
    "FOE + LSC": ("full", True, True, False),
    "phi, no mask": ("features", False, False, False),
    "mask, no phi": ("mask", False, False, False),
    "T without g": ("none", True, False, False),
    "FOE, T without g": ("full", True, False, False),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_ablations_switches_what_it_says(row):
    (line,) = (line for line in HEAD.splitlines() if re.search(rf"^(Table \d)?\s*{re.escape(row)}\s+\d\d\.\d\d", line))
    given = [yaml.safe_load(text) for text in re.findall(r'"(\{.*?\})"', line)]
    words = ["--stages.lsc.objective.options", str(given[0]), "--stages.ssm.objective.options", str(given[-1])]
    last = load_recipe("lssa/cub_conv4", [word.replace("'", "") for word in words]).stages[-1]
    head = methods.create(last.objective.name, **last.objective.options).head
    assert (head.foreground, head.correspondence, head.reduce, head.manipulation) == ROWS[row]


def test_the_example_of_freezing_names_modules_that_there_are():
    objective = methods.create("lssa")
    objective.setup(8, 2)
    names = {f"objective.{name}" for name, _ in objective.named_modules()}
    (found,) = re.findall(r"--stages\.ssm\.freeze\s+\"(\[.*?\])\"", HEAD)
    ((_, patterns),) = parse_overrides(["--stages.ssm.freeze", found])
    assert {one for one in patterns if one.startswith("objective")} <= names


def test_the_ablation_is_the_recipe_in_two_parts():
    whole, first, then = (load_recipe(f"lssa/grocery_{part}") for part in ("lssa", "pretrain", "ablation"))
    assert first.stages == whole.stages[:1]
    assert first.backbone == then.backbone == whole.backbone
    for stage, given in zip(then.stages, whole.stages[1:], strict=True):
        shorter = {"start": stage.start, "epochs": stage.epochs}
        assert stage == replace(given, **shorter)
    assert [stage.start for stage in then.stages] == [f"runs/{first.name}", "previous"]


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"lssa/grocery_pretrain", "lssa/grocery_ablation"}))
def test_the_phases_are_the_papers(name):
    pretrain, lsc, ssm = load_recipe(name).stages
    assert (pretrain.objective.name, lsc.objective.name, ssm.objective.name) == ("cross_entropy", "lssa", "lssa")
    assert lsc.objective.options == {"manipulation": False}
    assert ssm.objective.options == {}
    assert lsc.optimizer.lr == pytest.approx(10 * ssm.optimizer.lr)
    for stage in (lsc, ssm):
        assert stage.validation.head.name == "spatial_alignment"
        names = [one if isinstance(one, str) else one["name"] for one in stage.augmentation]
        assert "colour_jitter" in names
        assert stage.freeze == []
    if not name.endswith("_lssa"):
        assert [stage.epochs for stage in (pretrain, lsc, ssm)] == [200, 200, 50]
        assert pretrain.schedule.milestones == [85, 170]
        assert lsc.episodes.episodes_per_epoch == 200 * lsc.episodes.episodes_per_step == 800
        assert lsc.optimizer.lr == (0.0005 if "dogs" in name else 0.001)


def test_birds_of_the_other_data_set_are_named_or_left_out():
    evaluations = load_recipe("lssa/cub_to_nabirds_resnet12").evaluations
    assert [(one.shot, one.seen_classes) for one in evaluations] == [
        (1, "allow"), (1, "leave_out"), (5, "allow"), (5, "leave_out"),
    ]  # fmt: skip
    assert {one.data.name for one in evaluations} == {"nabirds-fieldmark"}
