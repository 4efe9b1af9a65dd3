"""A made-up list: photos whose classes differ in one bright bar, a backbone of pixels, a few heads."""

import numpy as np
import pytest
import yaml
from PIL import Image

from fieldmark.picks import load_list

HEADS = {
    "prototype": {"title": "the mean", "family": "pooled", "head": "prototype"},
    "centred": {
        "title": "the centred mean", "family": "pooled", "head": "prototype", "options": {"transform": "centre_l2"},
    },
    "fusion": {"title": "votes", "family": "votes", "head": "fusion"},
    "local_knn": {"title": "nearest places", "family": "aligned", "head": "local_knn"},
    "lsc": {
        "title": "brought together", "family": "aligned", "head": "spatial_alignment",
        "choose": {"temperature": [0.05, 1.0]},
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(4):
            folder = root / split / f"class {number}"
            folder.mkdir(parents=True)
            for image in range(8):
                array = rng.integers(0, 90, (8, 8, 3), dtype=np.uint8)
                array[2 * number : 2 * number + 2] += 120
                Image.fromarray(array).save(folder / f"{image}.png")
    return root


@pytest.fixture
def tree(photos):
    """The list as a file has it."""
    data = {"title": "bars", "name": "folder", "root": str(photos), "queries": 4}
    data |= {"test": "test", "base": "train", "val": "val"}
    return {
        "way": 4, "shots": [1, 3], "cost_episodes": 2, "base_images": 16,
        "validation": {"shot": 1, "episodes": 5, "images": 20},
        "heads": HEADS,
        "data": {"bars": data, "elsewhere": {**data, "title": "others", "root": None, "name": "cub-feat"}},
        "backbones": {"pixels": {"title": "pixels (8 x 8)", "model": "pixels"}},
        "comparisons": [
            {"data": "elsewhere", "backbone": "pixels", "episodes": [9, 9]},
            {"data": "bars", "backbone": "pixels", "episodes": [12, 9], "size": 8},
        ],
        "left_out": [{"what": "the rest", "why": "nobody asked"}],
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes a list and reads it."""

    def written(tree):
        path = tmp_path / "list.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path, load_list(path)

    return written


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("FIELDMARK_DATA", str(tmp_path_factory.getbasetemp() / "nothing"))
