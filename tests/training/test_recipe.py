"""Recipes: every mistake is one line that names the key, before anything is loaded."""

from __future__ import annotations

import pytest
import yaml

from fieldmark.errors import FieldmarkError
from fieldmark.training import load_recipe, make_recipe
from fieldmark.training.recipe import find_recipe, list_recipes, recipes_folder


def change(values, key, value):
    """Plain values with one key changed, without the override machinery."""
    place, *rest = [values, *key.split(".")]
    for part in rest[:-1]:
        place = place[int(part) if part.isdigit() else part]
    place[rest[-1]] = value
    return values


MISTAKES = {
    "misspelt key": ("stages.0.epoch", 3, r"'stages\.0\.epoch'; did you mean 'stages\.0\.epochs'\?"),
    "misspelt top key": ("evaluation", [], r"unknown recipe key 'evaluation'; did you mean 'evaluations'\?"),
    "text for a number": ("stages.0.epochs", "many", r"stages\.0\.epochs is 'many'; expected a whole number"),
    "fraction for a count": ("stages.0.epochs", 1.5, r"stages\.0\.epochs is 1\.5; expected a whole number"),
    "truth for a number": ("stages.0.optimizer", {"lr": True}, r"stages\.0\.optimizer\.lr is True; expected a number"),
    "number for a list": ("augmentation", 3, r"recipe key augmentation is 3; expected a list of text or a mapping"),
    "unknown objective": ("stages.0.objective", "protonett", r"unknown objective 'protonett'; did you mean 'protonet'"),
    "objective's option": (
        "stages.0.objective",
        {"name": "cross_entropy", "options": {"rotations": "none"}},
        r"unknown option of objective 'cross_entropy' 'rotations'; did you mean 'rotation'",
    ),
    "unknown backbone": ("backbone.name", "conv5", r"'conv5'; did you mean 'conv4'"),
    "backbone's option": ("backbone.options", {"chanels": 3}, r"'chanels'; did you mean 'channels'"),
    "unknown data": ("data.name", "glyph", r"'glyph'; did you mean 'glyphs'"),
    "unknown head": ("evaluations.0.heads", ["prototyp"], r"unknown head 'prototyp'; did you mean 'prototype'"),
    "unknown augmentation": ("augmentation", ["flipp"], r"unknown augmentation 'flipp'; did you mean"),
    "unknown optimiser": ("stages.0.optimizer", {"name": "sdg"}, r"'sdg'; did you mean 'sgd'"),
    "trainer's keyword": ("trainer", {"device": 2}, r"'trainer\.device'; did you mean 'trainer\.devices'"),
    "ours, not the user's": ("trainer", {"max_epochs": 2}, r"unknown recipe key 'trainer\.max_epochs'"),
    "unknown logger": ("loggers", ["WanDB"], r"unknown logger 'WanDB'"),
    "no stages": ("stages", [], r"stages is empty"),
    "no epochs": ("stages.0.epochs", 0, r"stages\.classify\.epochs is 0; expected at least 1"),
    "one way": ("evaluations.0.way", 1, r"evaluations\.0\.way is 1; expected at least 2"),
    "name outside": ("name", "../elsewhere", r"expected a plain folder name"),
    "stage outside": ("stages.0.name", "..", r"stage name '\.\.'"),
    "falling milestones": ("stages.0.schedule", {"milestones": [3, 2]}, r"milestones must rise"),
    "nesterov": ("stages.0.optimizer", {"momentum": 0}, r"nesterov is true, which needs a momentum"),
    "quick": ("quick", {"stages.clasify.epochs": 1}, r"'stages\.clasify'; did you mean 'stages\.classify'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_on_one_line(case, values):
    key, value, message = MISTAKES[case]
    with pytest.raises(FieldmarkError, match=message) as caught:
        make_recipe(change(values, key, value), quick=case == "quick")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(values):
    values = {key: value for key, value in values.items() if key != "backbone"}
    with pytest.raises(FieldmarkError, match="recipe key backbone is missing"):
        make_recipe(values)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--stages.classify.epochs", "7"], lambda r: r.stages[0].epochs == 7),
        (["--stages.1.epochs=7"], lambda r: r.stages[1].epochs == 7),
        (["--stages.classify.optimizer.lr", "5e-4"], lambda r: r.stages[0].optimizer.lr == 5e-4),
        (["--trainer.devices", "2", "--trainer.strategy", "ddp"], lambda r: r.trainer["devices"] == 2),
        (["--backbone.options.last_pool", "false"], lambda r: r.backbone.options["last_pool"] is False),
        (["--stages.episodes.validation.way", "3"], lambda r: r.stages[1].validation.way == 3),
        (["--stages.classify.validation", "null"], lambda r: r.stages[0].validation is None),
        (["--evaluations.0.heads.0.options.scale", "1e1"], lambda r: r.evaluations[0].heads[0].options["scale"] == 10),
        (["--augmentation", "[]"], lambda r: r.augmentation == []),
        (["--data.root", "12"], lambda r: r.data.root == "12"),
    ],
)
def test_overrides(words, found, values):
    assert found(make_recipe(values, words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages.clasify.epochs", "7"], r"'stages\.clasify'; did you mean 'stages\.classify'"),
        (["--stages.9.epochs", "7"], r"unknown recipe key 'stages\.9'"),
        (["--sed", "7"], r"unknown recipe key 'sed'; did you mean 'seed'"),
        (["--seed"], "--seed has no value"),
        (["seed", "7"], "unexpected argument 'seed'"),
        (["--seed.x", "7"], r"seed\.x does not exist: seed is 0"),
        (["--seed", "[1"], "--seed, line 1 is not valid YAML"),
    ],
)
def test_wrong_overrides(words, message, values):
    with pytest.raises(FieldmarkError, match=message):
        make_recipe(values, words)


def test_the_resolved_recipe_reads_back_as_itself(values):
    recipe = make_recipe(values, ["--seed", "3"])
    again = make_recipe(yaml.safe_load(recipe.to_yaml()))
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_the_command_line_wins_over_the_quick_variant_and_the_name_tells_them_apart(values):
    changed = {**values, "quick": {"stages.classify.epochs": 5, "seed": 9}}
    recipe = make_recipe(changed, ["--seed", "4"], quick=True)
    assert (recipe.name, recipe.seed, recipe.stages[0].epochs) == ("tiny-quick", 4, 5)
    with pytest.raises(FieldmarkError, match="has no quick variant"):
        make_recipe(values, quick=True)


def test_no_code_is_run_by_a_recipe(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch " + str(tmp_path / "owned") + "']\n")
    with pytest.raises(FieldmarkError, match="not valid YAML"):
        load_recipe(path)
    assert not (tmp_path / "owned").exists()


def test_recipes_are_found_by_path_name_and_last_part():
    one = list_recipes()[0]
    for name in (one.path, one.name, one.name.rsplit("/", 1)[-1], f"recipes/{one.name}.yaml"):
        assert find_recipe(name).samefile(one.path)
    with pytest.raises(FieldmarkError, match="did you mean"):
        find_recipe(one.name[:-1])
    with pytest.raises(FieldmarkError, match="no recipe file at"):
        find_recipe("elsewhere/none.yaml")


@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_every_recipe_says_what_it_costs_expects_gives_and_its_command(name):
    one = next(one for one in list_recipes() if one.name == name)
    for part in ("Cost:", "Paper:", "Ours:", "Command: fieldmark train"):
        assert part in one.head_comment, f"{name} lacks {part!r}"
    recipe, quick = load_recipe(name), load_recipe(name, quick=True)
    assert recipe.name == one.path.stem
    assert quick.name == f"{recipe.name}-quick"
    assert recipes_folder() in one.path.parents
