"""Folder and zip give the same names, contents and errors."""

import os
import zipfile

import numpy as np
import pytest

from fieldmark.data.sources import FolderSource, JoinedSource, ZipSource, open_source
from fieldmark.errors import FieldmarkError

FILES = {"b/2.png": b"two", "a/1.png": b"one", "a/deep/3.png": b"three", "top.txt": b"top"}
HIDDEN = {".DS_Store": b"x", "__MACOSX/a/._1.png": b"x", "a/.hidden.png": b"x"}


@pytest.fixture
def folder(tmp_path):
    for name, data in {**FILES, **HIDDEN}.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "set" / "empty").mkdir()
    return tmp_path / "set"


@pytest.fixture
def archive(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for name, data in {**FILES, **HIDDEN}.items():
            file.writestr(name, data)
        file.mkdir("empty")
    return tmp_path / "set.zip"


def test_folder_and_zip_agree(folder, archive):
    for source in (open_source(folder), open_source(str(archive))):
        assert source.names() == sorted(FILES)
        assert source.folders() == ["a", "a/deep", "b", "empty"]
        assert {name: source.read(name) for name in source.names()} == FILES
    names = sorted(FILES)
    assert np.array_equal(open_source(folder).contents(names), open_source(archive).contents(names))


@pytest.mark.parametrize("change", ["content", "new", "gone"])
def test_fingerprint_follows_the_files(folder, change):
    before = FolderSource(folder).fingerprint()
    assert FolderSource(folder).fingerprint() == before
    if change == "content":
        stat = os.stat(folder / "a/1.png")
        (folder / "a/1.png").write_bytes(b"eno")
        os.utime(folder / "a/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    elif change == "new":
        (folder / "a/9.png").write_bytes(b"new")
    else:
        (folder / "b/2.png").unlink()
    assert FolderSource(folder).fingerprint() != before


def test_missing_path_is_named_with_the_place_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FieldmarkError, match="no such file or folder: no/where") as caught:
        open_source("no/where")
    assert str(tmp_path / "no" / "where") in str(caught.value)


def test_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"tar")
    with pytest.raises(FieldmarkError, match="neither a folder nor a zip"):
        open_source(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/passwd", "a/../../x.png", "C:/x.png"])
def test_names_that_lead_out_are_refused(tmp_path, folder, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(name, b"x")
    with pytest.raises(FieldmarkError, match="lies outside"):
        open_source(tmp_path / "evil.zip").names()
    with pytest.raises(FieldmarkError, match="lies outside"):
        FolderSource(folder).read(name)


def test_damaged_zip_entry_is_named(archive):
    data = bytearray(archive.read_bytes())
    data[data.index(b"three")] ^= 255
    archive.write_bytes(data)
    with pytest.raises(FieldmarkError, match=r"set\.zip!a/deep/3\.png cannot be read"):
        ZipSource(archive).read("a/deep/3.png")


def test_unknown_file_is_named(folder, archive):
    for source in (open_source(folder), open_source(archive)):
        with pytest.raises(FieldmarkError, match=r"nothing\.png"):
            source.read("nothing.png")


def test_several_sources_as_one(folder, archive):
    joined = open_source(f"{folder}{os.pathsep}{archive}")
    assert isinstance(joined, JoinedSource)
    assert joined.read("set/a/1.png") == b"one"
    assert len(joined.names()) == 2 * len(FILES)
    assert joined.contents(["set/a/1.png"]) == open_source(folder).contents(["a/1.png"])


def test_linked_folders_are_followed_once(folder):
    os.symlink(folder / "a", folder / "link")
    os.symlink(folder, folder / "b" / "loop")
    assert {"link", "b/loop"} <= set(FolderSource(folder).folders())
    assert sum(name.endswith("2.png") for name in FolderSource(folder).names()) == 1
