"""A gallery leaves as one file and comes back whole; a damaged file changes nothing."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fieldmark.errors import FieldmarkError
from fieldmark.gallery import Gallery

sys.path.insert(0, str(Path(__file__).parent))
from drawn import class_folders, embedder, picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")


@pytest.fixture
def gallery(tmp_path):
    made = Gallery.open(tmp_path / "gallery", create=True)
    made.enroll(class_folders(tmp_path / "photos", {"red": 3, "green": 2}), embedder=embedder())
    return made


def counts(gallery: Gallery) -> dict[str, int]:
    return {one.name: one.photos for one in gallery.list()}


def test_export_and_import_keep_everything(gallery, tmp_path):
    gallery.remove(ids=[gallery.photos("red")[0].id])
    assert gallery.export(tmp_path / "out.zip") == {"photos": 4, "classes": 2}
    other = Gallery.open(tmp_path / "other", create=True)
    assert other.import_(tmp_path / "out.zip").added == 4
    assert other.photos() == gallery.photos()
    assert other.identity == gallery.identity
    for mine, theirs in zip(gallery.descriptors(), other.descriptors(), strict=True):
        if isinstance(mine, dict):
            assert all(np.array_equal(mine[kind], theirs[kind]) for kind in mine)
        else:
            assert np.array_equal(mine, theirs)
    ids = [photo.id for photo in gallery.photos()]
    assert other.thumbnails(ids) == gallery.thumbnails(ids)
    # New ids go on where the first gallery was, and a second import adds nothing.
    assert min(other.enroll([picture("blue", 3)], "blue", embedder=embedder()).ids) > max(ids)
    assert other.import_(tmp_path / "out.zip").added == 0


def test_import_into_a_gallery_with_classes(gallery, tmp_path):
    other = Gallery.open(tmp_path / "other", create=True)
    other.enroll([picture("blue", 0), picture("red", 50)], ["blue", "red"], embedder=embedder())
    other.export(tmp_path / "other.zip")
    red = next(one.id for one in gallery.list() if one.name == "red")
    done = gallery.import_(tmp_path / "other.zip")
    assert (done.added, done.classes) == (2, ["blue"])
    assert counts(gallery) == {"blue": 1, "green": 2, "red": 4}
    assert {photo.class_id for photo in gallery.photos("red")} == {red}
    assert len({photo.id for photo in gallery.photos()}) == 7


def test_an_export_can_be_enrolled_with_another_model(gallery, tmp_path):
    gallery.export(tmp_path / "out.zip")
    other = Gallery.open(tmp_path / "other", create=True)
    assert other.enroll(tmp_path / "out.zip", embedder=embedder(24)).added == 5
    assert counts(other) == counts(gallery)


def test_damaged_exports_are_refused_in_one_line(gallery, tmp_path):
    gallery.export(tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    facts = json.loads(members["gallery.json"])
    picture_name = facts["photos"][0]["file"]
    row = {**facts["photos"][0], "id": -1}
    bad = {
        "no description": {**members, "gallery.json": None},
        "broken description": {**members, "gallery.json": b"{"},
        "newer": {**members, "gallery.json": json.dumps({**facts, "format": 99}).encode()},
        "twice": {**members, "gallery.json": json.dumps({**facts, "photos": facts["photos"] * 2}).encode()},
        "a negative id": {**members, "gallery.json": json.dumps({**facts, "photos": [row]}).encode()},
        "no descriptors": {**members, "pooled.npy": None},
        "cut descriptors": {**members, "local.npy": members["local.npy"][:-10]},
        "a pickle": {**members, "local.npy": b"\x93NUMPY\x01\x00" + members["local.npy"][8:].replace(b"<f2", b"|O8")},
        "no picture": {**members, picture_name: None},
        "no JPEG": {**members, picture_name: b"MZ"},
    }
    for what, contents in bad.items():
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            for name, data in contents.items():
                if data is not None:
                    archive.writestr(name, data)
        with pytest.raises(FieldmarkError) as caught:
            Gallery.open(tmp_path / "new", create=True).import_(tmp_path / "bad.zip")
        assert "\n" not in str(caught.value), what
        assert not Gallery.open(tmp_path / "new", create=True).table.exists, what
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(FieldmarkError, match="no export of a gallery"):
        gallery.import_(tmp_path / "bad.zip")
