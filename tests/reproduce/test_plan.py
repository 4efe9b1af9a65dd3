"""The same training is planned once; what decides an outcome decides the name."""

from __future__ import annotations

import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.reproduce import find
from fieldmark.reproduce.plan import Changes, cost_of, plan_of


def plan(address: str, column: str, **options):
    (row,) = find(address)
    return plan_of(row, row.cells[column], **options)


def test_rows_of_one_model_share_its_training():
    names = [
        plan(address, "cifar_fs-1shot").training.recipe.name
        for address in ("scl/4/global", "scl/4/sum", "scl/1/ce-sc", "scl/7/ours", "scl/B.2/spatial")
    ]
    assert len(set(names)) == 1
    assert plan("scl/4/global", "cifar_fs-1shot").name != plan("scl/4/sum", "cifar_fs-1shot").name
    assert plan("scl/4/global", "cifar_fs-1shot").name == plan("scl/1/ce-sc", "cifar_fs-1shot").name


@pytest.mark.parametrize(
    ("address", "column"),
    [
        ("scl/1/ce", "cifar_fs-1shot"),
        ("scl/1/ce-sc", "mini_imagenet-1shot"),
        ("scl/B.1/resnet12-trainval", "cifar_fs-1shot"),
    ],
)
def test_other_trainings_have_other_names(address, column):
    assert plan(address, column).training.recipe.name != plan("scl/1/ce-sc", "cifar_fs-1shot").training.recipe.name


def test_seed_is_of_the_training_and_in_its_name():
    first, second = (plan("lssa/3/all", "cub", seed=seed) for seed in (0, 1))
    assert (first.training.recipe.seed, second.training.recipe.seed) == (0, 1)
    assert second.training.recipe.name.endswith("-seed1")
    assert first.evaluation == second.evaluation


def test_a_teacher_is_the_row_that_is_named_and_is_part_of_the_name():
    student = plan("scl/B.1/resnet12-distill-trainval", "fc100-1shot")
    (teacher,) = student.training.teachers.values()
    assert teacher.recipe.name == plan("scl/B.1/resnet12-trainval", "fc100-5shot").training.recipe.name
    assert student.training.recipe.stages[0].teacher == teacher.recipe.name
    assert student.training.recipe.data.train == "trainval"
    assert student.training.recipe.second_view == []


def test_protocol_is_the_papers():
    one = plan("scl/9/ours", "cars-5shot")
    assert one.data == ("mini_imagenet", "stanford_cars-scl")
    spec = one.evaluation
    assert (spec.runs, spec.support_copies, spec.shot, spec.episodes) == (3, 10, 5, 600)
    assert spec.heads[0].options == {"features": "sum"}
    spec = plan("deepemd/8/snr-deepemd-g", "map-at-r").evaluation
    assert (spec.metric, spec.descriptors.options) == ("emd", {"sizes": [3, 2]})
    assert plan("deepemd/7b/deepemd-grid", "fc100-5shot").evaluation.heads[0].name == "structured_fc"
    assert plan("ssanet/2/ssanet", "reduced").evaluation.task == "robustness"


def test_lssa_without_a_part_is_trained_as_long_as_with_it():
    whole, bare = (plan(f"lssa/3/{name}", "cars").training.recipe for name in ("all", "baseline"))
    assert [stage.epochs for stage in whole.stages] == [stage.epochs for stage in bare.stages]
    assert bare.stages[2].objective.options == {"foreground": "none", "correspondence": False, "manipulation": False}


def test_changes_make_another_experiment_and_settings_of_the_trainer_do_not():
    same = Changes(settings={"trainer.accelerator": "cpu", "data.root": "x"})
    assert not same
    assert same.label == ""
    other = Changes(on="grocery-fieldmark", settings={"stages.lsc.epochs": 2, "trainer.devices": 1})
    assert other
    assert other.label.startswith("-on-grocery-fieldmark-changed-")
    assert other.to_dict()["settings"] == {"stages.lsc.epochs": 2}
    plain, changed = (plan("lssa/3/all", "cub", changes=one) for one in (same, other))
    assert plain.training.recipe.name == plan("lssa/3/all", "cub").training.recipe.name
    assert changed.data == ("grocery-fieldmark",)
    assert changed.training.recipe.stages[1].epochs == 2


def test_quick_has_the_recipes_quick_values_and_few_episodes():
    one = plan("lssa/3/all", "cub", changes=Changes(quick=True))
    assert one.training.recipe.stages[0].epochs == 1
    assert (one.evaluation.episodes, one.evaluation.queries, one.evaluation.runs) == (20, 5, 1)


@pytest.mark.parametrize(
    ("address", "why"), [("scl/6/maml", "copied from others"), ("deepemd/6/qpth-3x3-256", "a time, not an accuracy")]
)
def test_rows_that_are_not_run_say_why(address, why):
    (row,) = find(address)
    with pytest.raises(FieldmarkError, match=why):
        plan_of(row, next(iter(row.cells.values())))


def test_every_own_row_says_what_it_costs():
    recipes = {cell.recipe for row in find(None) for cell in row.cells.values() if cell.recipe}
    assert [name for name in recipes if not cost_of(name)] == []
    assert cost_of("lssa/cub_conv4").startswith("estimated half a day")
