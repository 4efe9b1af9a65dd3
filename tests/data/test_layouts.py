"""What each layout takes from its files beyond class folders."""

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark import data
from fieldmark.data.images import decode_image
from fieldmark.data.layouts import birds, cifar, imagenet, omniglot, vehicles
from fieldmark.data.sources import FolderSource
from fieldmark.data.splits import class_split
from fieldmark.errors import FieldmarkError

_spec = importlib.util.spec_from_file_location("data_mocks", Path(__file__).with_name("mocks.py"))
mocks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mocks)


def test_cub_boxes_are_left_top_width_height(tmp_path):
    root = mocks.cub(tmp_path)
    records = birds.read_cub(FolderSource(root))
    assert len(records) == 400
    assert {record.box for record in records} == {(2.0, 3.0, 7.0, 9.0)}
    assert sum(record.split == "train" for record in records) == 200
    store = data.load("cub-feat-cropped", root, "test", size=(6, 5))
    assert np.array_equal(store.images[0], np.asarray(decode_image(mocks.PNG, "x"))[3:9, 2:7])
    assert store.manifest.crop == "box"


def test_cropped_cub_without_boxes_is_refused(tmp_path):
    root = mocks.cub(tmp_path, boxes=False)
    assert len(data.load("cub-feat", root, size=8)) == 400
    with pytest.raises(FieldmarkError, match="has no box for 400 of 400 images"):
        data.load("cub-feat-cropped", root, size=8)


def test_cub_as_bare_class_folders_has_lists_but_no_official_split(tmp_path):
    mocks.class_folders(tmp_path / "images", class_split("cub-feat", "all"))
    assert len(data.load("cub-frn", tmp_path, "val", size=8).class_names) == 50
    with pytest.raises(FieldmarkError, match=r"does not say which images .*splits found: none"):
        data.load("cub", tmp_path, "train", size=8)


def test_cub_with_a_missing_image_and_a_wrong_label(tmp_path):
    root = mocks.cub(tmp_path)
    labels = root / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text(labels.read_text().replace("\n3 2\n", "\n3 9\n"))
    with pytest.raises(FieldmarkError, match=r"gives image 3 class 9, but it lies in '002\."):
        birds.read_cub(FolderSource(root))
    labels.unlink()
    next((root / "CUB_200_2011" / "images").rglob("*.jpg")).unlink()
    with pytest.raises(FieldmarkError, match="lacks 1 of 400 listed images"):
        birds.read_cub(FolderSource(root))


def test_nabirds_names_and_split(tmp_path):
    records = birds.read_nabirds(FolderSource(mocks.nabirds(tmp_path)))
    assert records[0].class_name == "0100.Bird 100 (Adult male)"
    assert records[0].name == "images/0100/0000-0-uuid.jpg"
    assert [record.split for record in records[:2]] == ["train", "test"]


@pytest.mark.parametrize("make", [mocks.cars, mocks.cars_merged])
def test_both_forms_of_the_cars_devkit(tmp_path, make):
    root = make(tmp_path)
    train = data.load("stanford_cars", root, "train", size=8)
    assert train.class_counts().tolist() == [1] * 196
    assert train.class_names[6] == "007.Make Model-006 2006"
    few = data.load("stanford_cars-dn4", root, "test", size=8)
    assert [vehicles.car_number(name) for name in few.class_names] == sorted(
        class_split("stanford_cars-dn4", "test"), key=int
    )


def test_dn4_cars_from_numbered_folders(tmp_path):
    mocks.class_folders(tmp_path, [str(i) for i in range(1, 197)])
    assert len(data.load("stanford_cars-dn4", tmp_path, "val", size=8).class_names) == 17


def test_dn4_cars_from_named_folders_is_refused(tmp_path):
    mocks.class_folders(tmp_path, [f"Make {i:03d}" for i in range(196)])
    assert len(data.load("stanford_cars-scl", tmp_path, "val", size=8).class_names) == 49
    with pytest.raises(FieldmarkError, match="lacks 17 of the 17 classes"):
        data.load("stanford_cars-dn4", tmp_path, "val", size=8)


def test_dogs_without_lists_have_classes_only(tmp_path):
    mocks.class_folders(tmp_path / "Images", class_split("stanford_dogs-dn4", "all"))
    assert len(data.load("stanford_dogs-dn4", tmp_path, "train", size=8).class_names) == 70
    with pytest.raises(FieldmarkError, match="does not say"):
        data.load("stanford_dogs", tmp_path, "train", size=8)


def test_dogs_official_split(tmp_path):
    records = imagenet.read_dogs(FolderSource(mocks.dogs(tmp_path)))
    assert {(r.name[-5], r.split) for r in records} == {("0", "train"), ("1", "test")}


def test_mini_imagenet_from_ravis_lists(tmp_path):
    for part in ("train", "val", "test"):
        rows = [(f"{name}00000001.jpg", name) for name in class_split("mini_imagenet", part)]
        for file, _ in rows:
            mocks.put(tmp_path / "images" / file)
        mocks.put(tmp_path / f"{part}.csv", "filename,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    for part in ("train", "val", "test"):
        store = data.load("mini_imagenet", tmp_path, part, size=8)
        assert store.class_names == class_split("mini_imagenet", part)
        assert (store.splits == part).all()
    (tmp_path / "images" / "n0153282900000001.jpg").unlink()
    with pytest.raises(FieldmarkError, match=r"lacks 1 of 100 listed images.*n0153282900000001"):
        data.load("mini_imagenet", tmp_path, "train", size=8)


def test_tiered_decodes_only_the_split_asked_for(tmp_path, monkeypatch):
    for part in ("train", "val", "test"):
        mocks.class_folders(tmp_path / part, class_split("tiered_imagenet", part))
    opened = []
    image = FolderSource.image
    monkeypatch.setattr(FolderSource, "image", lambda self, name: opened.append(name) or image(self, name))
    assert len(data.load("tiered_imagenet", tmp_path, "val", size=8)) == 97
    assert {name.split("/")[0] for name in opened} == {"val"}


def test_cifar_from_torchvisions_files(tmp_path):
    from torchvision.datasets import CIFAR100

    root = mocks.cifar_pickles(tmp_path)
    store = data.load("cifar_fs", root, "test")
    assert store.class_counts().tolist() == [4] * 20
    c = class_split("cifar_fs", "all").index(store.class_names[3])
    first = int(np.flatnonzero(store.labels == 3)[-1])
    assert store.images[first, 0, 0].tolist() == [c, c, 7]
    monkey = CIFAR100.__new__(CIFAR100)  # torchvision's own way from a row to an image
    source = cifar.open_cifar(root)
    row = source._load()[store.names[first]]
    monkey.data = np.vstack([row]).reshape(-1, 3, 32, 32).transpose((0, 2, 3, 1))
    assert np.array_equal(np.asarray(Image.fromarray(monkey.data[0])), store.images[first])
    assert len(data.load("fc100", root / "cifar-100-python", "val").class_names) == 20


def test_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch " + str(tmp_path / "ran"),))

    root = mocks.cifar_pickles(tmp_path)
    mocks.put(root / "cifar-100-python" / "train", pickle.dumps({b"data": Evil()}))
    with pytest.raises(FieldmarkError, match="which is no array"):
        data.load("cifar_fs", root, "test")
    assert not (tmp_path / "ran").exists()


def test_omniglot_takes_each_image_once(tmp_path):
    records = omniglot.read_omniglot(FolderSource(mocks.omniglot(tmp_path)))
    assert len(records) == len({(r.class_name, r.name.split("/")[-1]) for r in records}) == 16
    assert {(r.class_name.split("/")[0], r.split) for r in records} == {
        ("Greek", "background"), ("Latin", "background"), ("Korean", "small1"), ("Tibetan", "evaluation"),
    }  # fmt: skip
    store = data.load("omniglot", tmp_path, "evaluation")
    assert store.class_names == ["Tibetan/character01", "Tibetan/character02"]


def test_omniglot_runs_follow_their_label_files(tmp_path):
    store = data.load("omniglot_runs", mocks.omniglot_runs(tmp_path))
    episodes = omniglot.run_episodes(store)
    assert episodes["classes"].shape == episodes["support"].shape == (20, 20)
    for e in (0, 7, 19):
        for j in (0, 11):
            assert store.names[episodes["support"][e, j]] == f"run{e + 1:02d}/training/class{j + 1:02d}.png"
            item = ((j + 1) * 7) % 20 + 1
            assert store.names[episodes["query"][e, j]] == f"run{e + 1:02d}/test/item{item:02d}.png"


def test_aircraft_variants_may_hold_blanks_and_slashes(tmp_path):
    root = mocks.aircraft(tmp_path)
    store = data.load("aircraft", root, "trainval", size=8)
    assert len(store) == 200
    assert "F/A-5 Super" in store.class_names


def test_grocery_keeps_the_official_order(tmp_path):
    store = data.load("grocery", mocks.grocery(tmp_path), "val", size=8)
    assert store.class_names == class_split("grocery-fieldmark", "all")[::-1]
    assert store.labels.tolist() == list(range(81))


def test_grocery_with_split_classes_takes_the_images_of_all_official_parts(tmp_path):
    root = mocks.grocery(tmp_path)
    found = {part: data.load("grocery-fieldmark", root, part, size=8) for part in ("train", "val", "test")}
    assert [len(store.class_names) for store in found.values()] == [41, 15, 25]
    for part, store in found.items():
        assert sorted(store.class_names) == class_split("grocery-fieldmark", part)
        assert store.class_counts().tolist() == [3] * len(store.class_names)
        assert {name.split("/")[0] for name in store.names} == {"train", "val", "test"}
