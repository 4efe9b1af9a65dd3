"""The contract of every registered data set, on small copies of the published structures and on real files."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fieldmark import data
from fieldmark.data.images import fit_image
from fieldmark.data.layouts.omniglot import run_episodes
from fieldmark.data.sources import Source, ZipSource
from fieldmark.data.splits import class_split
from fieldmark.errors import FieldmarkError

_spec = importlib.util.spec_from_file_location("data_mocks", Path(__file__).with_name("mocks.py"))
mocks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mocks)


@pytest.fixture(scope="module")
def mock_root(tmp_path_factory):
    made = {}

    def root(name):
        key = name if name in mocks.MOCKS or name == "glyphs" else name.split("-")[0]
        if key not in made:
            made[key] = mocks.mock(key, tmp_path_factory.mktemp(key))
        return made[key]

    return root


@pytest.mark.parametrize("name", data.names())
def test_contract(name, mock_root):
    facts = data.DATASETS.get(name).facts
    assert data.DATASETS.get(name).source
    assert facts["licence"]
    root = mock_root(name)
    whole = data.load(name, root, progress=False)
    assert whole.manifest.name == name
    assert whole.manifest.split == "all"
    assert whole.size == (facts["size"],) * 2
    assert whole.manifest.mean == tuple(facts["mean"])
    assert whole.manifest.std == tuple(facts["std"])
    if facts["classes"] and name != "omniglot":
        assert len(whole.class_names) == facts["classes"]
    assert (whole.class_counts() > 0).all()
    parts = {}
    for split, kind in facts["splits"].items():
        if split == "all" or name == "omniglot":
            continue
        part = parts[split] = data.load(name, root, split, progress=False)
        assert part.manifest.split == split
        assert part.manifest.identity != whole.manifest.identity
        assert 0 < len(part) < len(whole)
        assert part.labels.max() < len(part.class_names)
        if kind == "image":
            assert part.class_names == whole.class_names
        else:
            assert (part.class_counts() > 0).all()
        assert tuple(part.gather([0, len(part) - 1]).shape) == (2, 3, *whole.size)
    for a in parts:
        for b in parts:
            if a < b and "trainval" not in (a, b):
                key = "class_names" if facts["splits"][a] == "class" else "names"
                assert not set(getattr(parts[a], key)) & set(getattr(parts[b], key))
    if name in data.names() and facts["class_list"]:
        sizes = [len(parts[s].class_names) for s in ("train", "val", "test") if s in parts]
        assert sum(sizes) == facts["classes"]


@pytest.mark.parametrize("name", data.names())
def test_bad_split_and_missing_root_are_refused(name, mock_root, tmp_path):
    with pytest.raises(FieldmarkError, match=r"unknown split of data set .*Known"):
        data.load(name, mock_root(name), "tests")
    if data.DATASETS.get(name).facts["needs_root"]:
        with pytest.raises(FieldmarkError, match="needs a root"):
            data.load(name)
        with pytest.raises(FieldmarkError, match="no such file or folder"):
            data.load(name, tmp_path / "nothing")
    else:
        with pytest.raises(FieldmarkError, match="built in"):
            data.load(name, tmp_path)


@pytest.mark.parametrize("name", [n for n in data.names() if n != "glyphs"])
def test_foreign_folder_is_refused_in_one_line(name, tmp_path):
    mocks.put(tmp_path / "notes" / "readme.md", "nothing here")
    with pytest.raises(FieldmarkError) as caught:
        data.load(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_unknown_data_set_suggests_the_nearest():
    with pytest.raises(FieldmarkError, match="did you mean 'cifar_fs'"):
        data.load("cifarfs")


def test_few_shot_lists_share_one_store(mock_root, monkeypatch):
    data.load("cub-feat", mock_root("cub"), "test", progress=False)
    monkeypatch.setattr(Source, "image", lambda *_: pytest.fail("decoded again"))
    for name in ("cub-frn", "cub-closerlook", "cub-dn4"):
        store = data.load(name, mock_root("cub"), "test", progress=False)
        assert store.class_names == class_split(name, "test")


def test_missing_classes_are_named(tmp_path):
    names = class_split("mini_imagenet", "all")
    mocks.class_folders(tmp_path, [name for name in names if name != "n02110063"])
    with pytest.raises(FieldmarkError, match=r"lacks 1 of the 20 classes .*'n02110063'"):
        data.load("mini_imagenet", tmp_path, "test", size=16)
    assert len(data.load("mini_imagenet", tmp_path, "train", size=16).class_names) == 64


def test_folder_with_class_split_relabels_and_with_image_split_keeps_classes(tmp_path):
    mocks.class_folders(tmp_path / "few" / "train", ["ant", "bee"])
    mocks.class_folders(tmp_path / "few" / "test", ["cat"])
    assert data.load("folder", tmp_path / "few", "test", size=8).class_names == ["cat"]
    mocks.class_folders(tmp_path / "top1" / "train", ["ant", "bee"])
    mocks.class_folders(tmp_path / "top1" / "test", ["bee"])
    assert data.load("folder", tmp_path / "top1", "test", size=8).class_names == ["ant", "bee"]


def test_changed_folder_is_read_again(tmp_path):
    mocks.class_folders(tmp_path, ["cat", "dog"])
    assert len(data.load("folder", tmp_path, size=8)) == 2
    mocks.put(tmp_path / "cat" / "new.png")
    assert len(data.load("folder", tmp_path, size=8)) == 3


def test_skip_and_raise_share_the_cache(tmp_path):
    mocks.class_folders(tmp_path, ["cat", "dog"], 2)
    mocks.put(tmp_path / "dog" / "0.jpg", b"broken")
    for _ in range(2):
        with pytest.raises(FieldmarkError, match=r"dog/0\.jpg is not an image"):
            data.load("folder", tmp_path, size=8)
        assert data.load("folder", tmp_path, size=8, on_error="skip").manifest.skipped == ("dog/0.jpg",)


def test_listing_needs_no_torch():
    import subprocess

    code = "import sys; from fieldmark import data; list(data.DATASETS); data.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
@pytest.mark.slow
def test_cifar_fs_reopens_in_under_a_second(shared_file, tmp_path):
    path = shared_file("data/cifar100.zip")
    first = data.load("cifar_fs", path, split="test", progress=False, cache=tmp_path)
    started = time.perf_counter()
    again = data.load("cifar_fs", path, split="test", progress=False, cache=tmp_path)
    assert time.perf_counter() - started < 1
    assert again.manifest == first.manifest
    assert first.class_counts().tolist() == [600] * 20
    from PIL import Image

    source = ZipSource(path)
    for i in (0, 5000, 11_999):
        import io

        image = Image.open(io.BytesIO(source.read(first.names[i]))).convert("RGB")
        assert np.array_equal(first.gather([i])[0].permute(1, 2, 0).numpy(), np.asarray(image))
        assert first.names[i].split("/")[0] == first.class_names[first.labels[i]]
    fc100 = data.load("fc100", path, split="test", progress=False, cache=tmp_path)
    assert fc100.class_counts().tolist() == [600] * 20


@pytest.mark.data
def test_grocery(shared_file):
    path = shared_file("data/grocery.zip")
    parts = {split: data.load("grocery", path, split, progress=False) for split in ("train", "val", "test", "trainval")}
    assert [len(parts[split]) for split in ("train", "val", "test")] == [2640, 296, 2485]
    assert len(parts["trainval"]) == 2936
    assert parts["test"].class_names[0] == "Golden-Delicious"
    assert parts["test"].class_names[80] == "Zucchini"
    source = ZipSource(path)
    for i in (0, 1000, 2484):
        name = parts["test"].names[i]
        assert np.array_equal(parts["test"].images[i], fit_image(source.image(name), 224))


@pytest.mark.data
def test_grocery_with_split_classes(shared_file, tmp_path):
    path = shared_file("data/grocery.zip")
    parts = [data.load("grocery-fieldmark", path, split, size=16, progress=False, cache=tmp_path)
             for split in ("train", "val", "test")]  # fmt: skip
    assert sum(len(part) for part in parts) == 5421
    assert min(int(part.class_counts().min()) for part in parts) == 35  # an episode takes 20 of a class


@pytest.mark.data
def test_omniglot_background_sets_together(shared_file):
    folder = shared_file("data/omniglot_small1.zip").parent
    store = data.load("omniglot", folder, progress=False)
    assert len(store.class_names) == 242
    assert set(store.class_counts()) == {20}
    second = data.load("omniglot", shared_file("data/omniglot_small2.zip"), progress=False)
    assert len(second.class_names) == 156


@pytest.mark.data
def test_omniglot_runs_give_lakes_pixel_baseline(shared_file):
    store = data.load("omniglot_runs", shared_file("data/omniglot_runs.zip"), progress=False)
    episodes = data.EpisodeIndex(**run_episodes(store), facts={})
    assert (len(episodes), episodes.way) == (20, 20)
    pixels = store.images.reshape(len(store), -1).astype(float)
    support, query = pixels[episodes.support], pixels[episodes.query]
    nearest = ((query[:, :, None] - support[:, None]) ** 2).sum(-1).argmin(-1)
    accuracy = (nearest == episodes.query_labels).mean()
    assert 0.15 < accuracy < 0.3  # Lake et al. report 21.7% for pixels
