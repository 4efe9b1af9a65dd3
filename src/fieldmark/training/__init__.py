"""Training: a recipe in, a run folder with a model, its measurements and its results out.

Example:
    >>> recipe = load_recipe("baseline/glyphs_conv4", quick=True)
    >>> [stage.name for stage in recipe.stages]
    ['classify', 'episodes']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fieldmark.training.recipe import Recipe, RecipeFile, find_recipe, list_recipes, load_recipe, make_recipe

if TYPE_CHECKING:
    from fieldmark.training.callbacks import TrainingInterrupted
    from fieldmark.training.run import is_main_process, train

__all__ = [
    "Recipe",
    "RecipeFile",
    "TrainingInterrupted",
    "find_recipe",
    "is_main_process",
    "list_recipes",
    "load_recipe",
    "make_recipe",
    "train",
]

# Lightning is imported by what trains, not by what reads recipes.
_LATER = {"train": "run", "is_main_process": "run", "TrainingInterrupted": "callbacks"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"fieldmark.training.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fieldmark.training' has no attribute {name!r}")
