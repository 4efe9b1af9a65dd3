"""The image store: right pixels, found again by content, never half-written."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.data import cache
from fieldmark.data.images import fit_image
from fieldmark.data.manifest import Manifest
from fieldmark.data.readers import ImageRecord, read_class_folders
from fieldmark.data.sources import FolderSource, Source, open_source
from fieldmark.data.store import ImageStore
from fieldmark.errors import FieldmarkError


@pytest.fixture
def folder(tmp_path):
    """Three classes of 70, 71 and 72 images: more than a block, classes unequal."""
    random = np.random.default_rng(0)
    for c, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(70 + c):
            pixels = random.integers(0, 256, (random.integers(5, 20), random.integers(5, 20), 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i:03d}.png")
    return tmp_path / "set"


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def build(root, cache_dir, size=8, **options):
    source = open_source(root)
    return ImageStore.build(source, read_class_folders(source), size=size, cache=cache_dir, **options)


def stores(cache_dir):
    return sorted(path.name for path in (cache_dir / "stores").iterdir() if path.is_dir())


@pytest.mark.parametrize("workers", [1, 3])
def test_pixels_labels_and_names(folder, cache_dir, workers):
    store = build(folder, cache_dir, workers=workers)
    assert store.class_names == ["ant", "bee", "cat"]
    assert store.class_counts().tolist() == [70, 71, 72]
    assert store.labels.dtype == np.int64
    assert isinstance(store.images, np.memmap)
    for i in (0, 63, 64, 128, 212):
        assert store.names[i].startswith(store.class_names[store.labels[i]])
        assert np.array_equal(store.images[i], fit_image(Image.open(folder / store.names[i]), 8))


def test_gather_is_fancy_indexing(folder, cache_dir):
    store = build(folder, cache_dir)
    chosen = np.random.default_rng(1).integers(0, len(store), 50)
    expected = torch.from_numpy(np.stack([store.images[i] for i in chosen])).permute(0, 3, 1, 2)
    for indices in (chosen, chosen.tolist(), torch.from_numpy(chosen)):
        batch = store.gather(indices)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, expected)
    batch.add_(1)  # a batch is a copy
    assert torch.equal(store.gather(chosen), expected)


def test_views_are_views(folder, cache_dir):
    store = build(folder, cache_dir)
    view = store.select_classes(["cat", "ant"], split="test")
    assert view.class_names == ["cat", "ant"]
    assert view.class_counts().tolist() == [72, 70]
    assert all(name.startswith(view.class_names[label]) for name, label in zip(view.names, view.labels, strict=True))
    assert torch.equal(view.gather([0]), store.gather([0]))
    part = view.subset(view.labels == 0).subset([3, 5])
    assert part.class_names == ["cat", "ant"]
    assert part.names == [store.names[141 + 3], store.names[141 + 5]]
    assert np.array_equal(part.images, store.images[[144, 146]])
    assert part.manifest.split == "test"
    assert (part.manifest.images, part.manifest.classes) == (2, 2)


def test_unknown_and_double_classes_are_refused(folder, cache_dir):
    store = build(folder, cache_dir)
    with pytest.raises(FieldmarkError, match="did you mean 'bee'"):
        store.select_classes(["ant", "bees"])
    with pytest.raises(FieldmarkError, match="twice"):
        store.select_classes(["ant", "ant"])


def test_second_build_decodes_nothing(folder, cache_dir, monkeypatch):
    first = build(folder, cache_dir)
    monkeypatch.setattr(Source, "image", lambda *_: pytest.fail("decoded again"))
    again = build(folder, cache_dir)
    assert again.manifest == first.manifest
    assert np.array_equal(again.images, first.images)


def test_moved_folder_and_zip_have_the_same_checksum(folder, cache_dir, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            file.write(path, f"wrapped/{path.relative_to(folder)}")
    packed = build(tmp_path / "set.zip", cache_dir)
    plain = build(folder, cache_dir)
    assert packed.manifest.checksum == plain.manifest.checksum
    built = stores(cache_dir)
    folder.rename(tmp_path / "elsewhere")
    build(tmp_path / "elsewhere", cache_dir)
    assert stores(cache_dir) == built


@pytest.mark.parametrize("change", ["pixel", "size", "fit", "class"])
def test_what_changes_the_images_changes_the_store(folder, cache_dir, change):
    before = build(folder, cache_dir)
    options = {"size": {"size": 9}, "fit": {"fit": "squash"}}.get(change, {})
    if change == "pixel":
        Image.new("RGB", (9, 9)).save(folder / "ant" / "000.png")
    if change == "class":
        (folder / "ant").rename(folder / "aunt")
    after = build(folder, cache_dir, **options)
    assert after.manifest.identity != before.manifest.identity
    assert len(stores(cache_dir)) == 2


def test_unreadable_files_are_counted_and_the_first_named(folder, cache_dir):
    for name in ("ant/003.png", "cat/001.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:30])
    (folder / "bee" / "070.png").write_bytes(b"")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(FieldmarkError, match=r"ant/003\.png is .*3 of 213 files cannot be read.*skip") as caught:
            build(folder, cache_dir)
        assert "\n" not in str(caught.value)
    store = build(folder, cache_dir, on_error="skip")
    assert store.class_counts().tolist() == [69, 70, 71]
    assert store.manifest.skipped == ("ant/003.png", "bee/070.png", "cat/001.png")
    assert np.array_equal(store.images[3], fit_image(Image.open(folder / "ant/004.png"), 8))
    for name in store.manifest.skipped:
        (folder / name).unlink()
    assert build(folder, cache_dir).manifest.checksum == store.manifest.checksum


def test_class_without_a_readable_image_is_refused(folder, cache_dir):
    for path in (folder / "bee").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(FieldmarkError, match="no image of class 'bee' can be read"):
        build(folder, cache_dir, on_error="skip")


def test_bad_box_names_the_file(folder, cache_dir):
    records = [ImageRecord("ant/000.png", "ant", (900, 900, 950, 950))]
    with pytest.raises(FieldmarkError, match=r"ant/000\.png: box .* holds no pixel"):
        ImageStore.build(FolderSource(folder), records, size=8, cache=cache_dir)


@pytest.mark.parametrize("when", ["before", "during"])
def test_full_disk_is_one_line_and_leaves_nothing(folder, cache_dir, monkeypatch, when):
    if when == "before":
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(100, 99, 1))
    else:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(FieldmarkError, match="the disk is full") as caught:
        build(folder, cache_dir)
    assert "\n" not in str(caught.value)
    assert stores(cache_dir) == []
    monkeypatch.undo()
    assert len(build(folder, cache_dir)) == 213


def test_cache_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FieldmarkError, match="cannot write"):
        build(folder, tmp_path / "file")


SLOW = """
import sys, time
from fieldmark.data import cache, sources
from fieldmark.data.readers import read_class_folders
from fieldmark.data.store import ImageStore
image = sources.Source.image
def slow(self, name):
    print("decoding", flush=True)
    time.sleep(0.02)
    return image(self, name)
sources.Source.image = slow
source = sources.FolderSource(sys.argv[1])
ImageStore.build(source, read_class_folders(source), size=8, cache=sys.argv[2], workers=1)
"""


def test_kill_9_leaves_nothing_that_looks_whole(folder, cache_dir):
    child = subprocess.Popen([sys.executable, "-c", SLOW, folder, cache_dir], stdout=subprocess.PIPE)
    for _ in range(80):  # the second block is under way: the first is on disk
        child.stdout.readline()
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [name for name in stores(cache_dir) if not name.endswith(".partial")] == []
    assert len(stores(cache_dir)) == 1
    store = build(folder, cache_dir)
    assert len(store) == 213
    assert len(stores(cache_dir)) == 1
    assert np.array_equal(store.images[150], fit_image(Image.open(folder / store.names[150]), 8))


def test_concurrent_builders_decode_once(folder, cache_dir, monkeypatch):
    decoded = []
    image = Source.image
    monkeypatch.setattr(Source, "image", lambda self, name: decoded.append(name) or image(self, name))
    results = []
    threads = [threading.Thread(target=lambda: results.append(build(folder, cache_dir))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(decoded) == 213
    assert len({store.manifest.identity for store in results}) == 1
    assert len(stores(cache_dir)) == 1


def test_builder_that_loses_without_a_lock_takes_the_winners(folder, cache_dir, monkeypatch):
    source = FolderSource(folder)
    records = read_class_folders(source)
    build(folder, cache_dir)
    (place,) = (path for path in (cache_dir / "stores").iterdir() if path.is_dir())
    digests = source.contents([record.name for record in records])
    cache._build(source, records, digests, place, (8, 8), "crop", "bicubic", 1, False)
    assert stores(cache_dir) == [place.name]


def test_damaged_store_is_named(folder, cache_dir):
    store = build(folder, cache_dir)
    place = store._part.place
    with open(place / "images.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(FieldmarkError, match=r"damaged .*remove that folder"):
        build(folder, cache_dir)


def test_store_crosses_processes_without_its_pixels(folder, cache_dir):
    store = build(folder, cache_dir, size=64)
    view = store.select_classes(["cat"])
    data = pickle.dumps(view)
    assert len(data) < 20_000 < view.images.nbytes
    again = pickle.loads(data)
    assert torch.equal(again.gather([1, 2]), view.gather([1, 2]))
    assert again.manifest == view.manifest


def test_from_arrays_and_pickle():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    store = ImageStore.from_arrays(images, [1, 0, 1, 1], ["a", "b"], Manifest("mine", split="train"))
    assert store.manifest.size == (6, 5)
    assert (store.manifest.classes, store.manifest.images) == (2, 4)
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.images, images)
    order = [2, 0, 3, 1]
    same = ImageStore.from_arrays(images[order], store.labels[order], ["a", "b"], Manifest("mine", split="train"))
    assert same.manifest.identity == store.manifest.identity
    images[0, 0, 0, 0] ^= 1
    other = ImageStore.from_arrays(images, [1, 0, 1, 1], ["a", "b"], Manifest("mine", split="train"))
    assert other.manifest.identity != store.manifest.identity
    json.dumps(store.manifest.to_dict())


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 0], ["a"], r"shape \(2, 4, 4, 1\).*height, width, 3"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 0], ["a"], "expected uint8 of shape"),
        (np.zeros((2, 4, 4, 3), np.float32), [0, 0], ["a"], "float32"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], ["a"], "expected 2 whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ["a"], "there are 1 classes"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 0.5], ["a"], "whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ["a", "a"], "twice"),
    ],
)
def test_wrong_arrays_are_refused(images, labels, names, message):
    with pytest.raises(FieldmarkError, match=message):
        ImageStore.from_arrays(images, labels, names, Manifest("x"))


def test_default_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
    assert cache.cache_folder(None) == tmp_path
    monkeypatch.delenv("FIELDMARK_CACHE")
    assert cache.cache_folder(None) == cache.Path(os.path.expanduser("~/.cache/fieldmark"))


def test_no_records_are_refused(folder, cache_dir):
    with pytest.raises(FieldmarkError, match="holds no image"):
        ImageStore.build(FolderSource(folder), [], size=8, cache=cache_dir)
