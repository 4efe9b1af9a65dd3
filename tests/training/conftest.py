"""Small made-up data: every class is a pattern under noise, so that a few steps teach something."""

from __future__ import annotations

import numpy as np
import pytest

RECIPE = {
    "name": "tiny",
    "data": {"name": "glyphs"},
    "backbone": {"name": "conv4", "options": {"channels": 8}},
    "augmentation": ["flip"],
    "stages": [
        {
            "name": "classify",
            "objective": "cross_entropy",
            "epochs": 2,
            "batch_size": 16,
            "schedule": {"name": "cosine"},
            "validation": {"queries": 4, "episodes": 10},
        },
        {
            "name": "episodes",
            "objective": "protonet",
            "epochs": 2,
            "episodes": {"queries": 3, "episodes_per_epoch": 4},
            "optimizer": {"name": "adam", "lr": 0.001},
        },
    ],
    "evaluations": [{"queries": 4, "episodes": 20, "heads": ["prototype"]}],
    "trainer": {"accelerator": "cpu"},
}


def make_store(split: str, seed: int, classes: int = 6, images: int = 12, size: int = 16):
    from fieldmark.data import ImageStore, Manifest

    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 255, (classes, size, size, 3))
    labels = np.repeat(np.arange(classes), images)
    noisy = 0.6 * patterns[labels] + rng.normal(50, 30, (len(labels), size, size, 3))
    names = [f"{split} {number}" for number in range(classes)]
    manifest = Manifest("patterns", split=split, size=(size, size))
    return ImageStore.from_arrays(noisy.clip(0, 255).astype(np.uint8), labels, names, manifest)


def make_stores(**options):
    return {split: make_store(split, seed, **options) for seed, split in enumerate(("train", "val", "test"))}


@pytest.fixture
def tiny():
    """A function: the tiny recipe with overrides."""
    from fieldmark.training import make_recipe

    return lambda *overrides, **changes: make_recipe({**RECIPE, **changes}, overrides)


@pytest.fixture
def stores():
    return make_stores()


@pytest.fixture
def values():
    """The tiny recipe as plain values, to be changed at will."""
    import copy

    return copy.deepcopy(RECIPE)


@pytest.fixture
def make_data():
    """A function: made-up train, val and test images."""
    return make_stores
