"""Every recipe is built and run for two steps a stage, on made-up images."""

from __future__ import annotations

import json

import pytest

from fieldmark.backbones import load_model
from fieldmark.training import list_recipes, load_recipe, train


def _recipes():
    """Every recipe; one of the same parts as one before it (other data, schedule, rates) is marked slow."""
    seen = set()
    for name in (one.name for one in list_recipes()):
        given = load_recipe(name)
        heads = [head.name for evaluation in given.evaluations for head in evaluation.heads]
        stages = [
            (stage.objective, bool(stage.second_view), stage.accumulate > 1, stage.images_per_class is None)
            for stage in given.stages
        ]
        parts = repr((given.backbone.name, given.descriptors.name, sorted(set(heads)), stages))
        yield pytest.param(name, marks=[pytest.mark.slow] if parts in seen else [])
        seen.add(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_a_recipe_runs_in_mixed_precision(name, tmp_path, make_data):
    _run(name, tmp_path, make_data, precision="bf16-mixed")


@pytest.mark.parametrize("name", list(_recipes()))
def test_a_recipe_runs(name, tmp_path, make_data):
    _run(name, tmp_path, make_data)


def _run(name, tmp_path, make_data, **trainer):
    given = load_recipe(name)
    stages = given.stages
    few = {
        "evaluations": [{"way": 3, "queries": 3, "episodes": 5, "split": "test"}],
        "trainer": {"accelerator": "cpu", **trainer},
    }
    if given.backbone.options.get("pretrained"):
        few["backbone.options.pretrained"] = False  # the weights may be out of reach
    if given.backbone.name.partition(".")[0] in ("resnet50", "resnet101"):
        few["backbone.name"] = "resnet18"  # of the same parts, and a tenth of the work
    if given.data.crop or given.descriptors.options.get("size"):  # small images, and so small windows of them
        few |= {"data.size": 32, "data.crop": None, "augmentation": ["flip"]}
    if given.descriptors.options.get("size"):
        few["descriptors.options"] = {
            "size": 32,
            **{"grid": {"sizes": [2]}, "sampling": {"patches": 3}}[given.descriptors.name],
        }
    if given.descriptors.name == "feature_pyramid":
        few["descriptors.options.levels"] = [1]  # ResNet-12's map of these is 2 x 2
    if given.backbone.options.get("drop_block"):
        few["backbone.options.drop_block"] = 2  # ResNet-12's map of these images is 2 x 2
    if (given.data.size or 0) > 100:
        few["data.size"] = 64
    for number, stage in enumerate(stages):
        few[f"stages.{number}.epochs"] = 1
        few[f"stages.{number}.steps_per_epoch"] = 2
        few[f"stages.{number}.batch_size"] = 4
        if stage.start != "previous":
            few[f"stages.{number}.start"] = "scratch"  # the run that it starts from is another recipe's
        if stage.objective.options.get("features") == "reextract":
            few[f"stages.{number}.objective.options.part_size"] = 32
        if stage.accumulate > 1:
            few[f"stages.{number}.accumulate"] = 2
        if stage.images_per_class:
            few[f"stages.{number}.images_per_class"] = 2
        if stage.freeze_epochs:
            few[f"stages.{number}.freeze_epochs"] = 1
        few[f"stages.{number}.episodes.way"] = 3
        few[f"stages.{number}.episodes.queries"] = 3
        few[f"stages.{number}.episodes.episodes_per_epoch"] = 2 * stage.episodes.episodes_per_step
        if stage.validation is not None:
            few[f"stages.{number}.validation.way"] = 3
            few[f"stages.{number}.validation.queries"] = 3
            few[f"stages.{number}.validation.episodes"] = 3
    recipe = load_recipe(name, few)
    images = {"size": recipe.data.size or 32, "images": 10, "classes": 4}
    data = make_data(**images)
    if any(stage.validation is not None and stage.validation.task == "top1" for stage in stages):
        data["val"] = data["train"]  # of the same classes
    folder = train(recipe, tmp_path, data={**data, recipe.data.train: data["train"], recipe.data.val: data["val"]})
    assert [stage["steps"] for stage in load_model(folder)[1]["stages"]] == [2] * len(stages)
    (record,) = (folder / "results").glob("*.json")
    assert 0 <= json.loads(record.read_text())["rows"][0]["mean"] <= 1
