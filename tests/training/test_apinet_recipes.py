"""Every row of API-Net's Tables 1 to 6 is an override of one recipe that is read, checked and made."""

from __future__ import annotations

import pytest

from fieldmark import methods
from fieldmark.training import load_recipe

STAGE = "--stages.pairs"
MUTUAL = ("individual", "compact_bilinear", "subtract_square", "sum", "product", "weight_attention", "mlp")
KINDS = ("similar", "dissimilar", "none")
SIZES = ((40, 4), (80, 4), (120, 4), (60, 2), (90, 3), (120, 5), (120, 3))


def stage(*overrides):
    recipe = load_recipe("apinet/cub_resnet50", overrides=[*overrides, "--backbone.name", "resnet101.tv_in1k"])
    return recipe.stages[0]


def option(name, value):
    return f"{STAGE}.objective.options.{name}", value


@pytest.mark.parametrize("mutual", MUTUAL)
def test_table_2(mutual):
    found = stage(*option("mutual", mutual)).objective
    assert methods.create(found.name, **found.options).mutual == mutual


@pytest.mark.parametrize(("name", "value"), [("gate", "single"), ("gate", "pair"), ("rank_weight", "0")])
def test_table_3(name, value):
    found = stage(*option(name, value)).objective
    made = methods.create(found.name, **found.options)
    assert str(getattr(made, name)).startswith(value)


@pytest.mark.parametrize("intra", KINDS)
@pytest.mark.parametrize("inter", KINDS)
def test_table_4(intra, inter):
    found = stage(*option("intra", intra), *option("inter", inter)).objective
    made = methods.create(found.name, **found.options)
    assert (made.intra, made.inter) == (intra, inter)


@pytest.mark.parametrize(("batch", "images"), SIZES)
def test_table_5(batch, images):
    found = stage(f"{STAGE}.batch_size", str(batch), f"{STAGE}.images_per_class", str(images))
    assert (found.batch_size, found.images_per_class) == (batch, images)


@pytest.mark.parametrize("name", ["cross_entropy", "triplet"])
def test_baselines(name):
    assert stage(f"{STAGE}.objective", name).objective.name == name


@pytest.mark.parametrize("name", ["cub", "aircraft", "cars", "dogs", "nabirds"])
def test_selection_by_the_test_images_and_caching_are_keys(name):
    recipe = load_recipe(
        f"apinet/{name}_resnet50",
        overrides=[
            "--data.held_out", "null", f"{STAGE}.validation.select", "best-test-epoch",
            *option("gradient_cache", "20"),
        ],
    )  # fmt: skip
    assert recipe.stages[0].validation.select == "best-test-epoch"
    assert recipe.stages[0].objective.options["gradient_cache"] == 20
