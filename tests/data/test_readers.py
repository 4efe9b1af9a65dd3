"""Class folders and lists become records; what is missing is named."""

import zipfile

import pytest
from PIL import Image

from fieldmark import data
from fieldmark.data.readers import open_list, read_class_folders, read_list
from fieldmark.data.sources import FolderSource, open_source
from fieldmark.errors import FieldmarkError


def fill(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".JPG"):
            Image.new("RGB", (6, 6)).save(path, "png")
        else:
            path.write_text("text")
    return root


def zipped(folder, target):
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return target


def pairs(records):
    return [(record.name, record.class_name) for record in records]


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders(tmp_path, packed):
    root = fill(
        tmp_path / "set", "dog/1.png", "cat/2.JPG", "cat/more/3.png", "cat/notes.txt", "readme.md", ".git/x.png"
    )
    source = open_source(zipped(root, tmp_path / "set.zip") if packed else root)
    assert pairs(read_class_folders(source)) == [("cat/2.JPG", "cat"), ("cat/more/3.png", "cat"), ("dog/1.png", "dog")]


def test_wrapping_folder_is_entered(tmp_path):
    root = fill(tmp_path, "download/set/cat/1.png", "download/set/dog/1.png", "download/readme.txt")
    assert [r.class_name for r in read_class_folders(FolderSource(root))] == ["cat", "dog"]


def test_single_class_is_a_class(tmp_path):
    assert pairs(read_class_folders(FolderSource(fill(tmp_path, "cat/1.png")))) == [("cat/1.png", "cat")]


def test_train_and_test_folders_are_splits(tmp_path):
    root = fill(tmp_path, "train/cat/1.png", "validation/dog/1.png", "test/cat/2.png")
    found = {(r.class_name, r.split) for r in read_class_folders(FolderSource(root))}
    assert found == {("cat", "train"), ("dog", "val"), ("cat", "test")}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "train/"])
def test_empty_class_is_refused_by_name(tmp_path, packed, below):
    root = fill(
        tmp_path / "set", f"{below}cat/1.png", f"{below}dog/notes.txt", "test/owl/1.png" if below else "owl/1.png"
    )
    (root / below / "emu").mkdir()
    source = open_source(zipped(root, tmp_path / "set.zip") if packed else root)
    with pytest.raises(
        FieldmarkError, match=r"class folder \S*dog holds no image \(only \.txt files.*2 of [34] classes"
    ):
        read_class_folders(source)


def test_no_class_folder_is_refused(tmp_path):
    with pytest.raises(FieldmarkError, match="holds 2 images but no folders; expected one folder of images"):
        read_class_folders(FolderSource(fill(tmp_path / "loose", "1.png", "2.png")))
    (tmp_path / "none").mkdir()
    with pytest.raises(FieldmarkError, match="holds no folders"):
        read_class_folders(FolderSource(tmp_path / "none"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.csv", "path,label\na/1.png,cat\nb.png,dog\n"),
        ("labels.csv", "a/1.png,cat\nb.png,dog\n"),
        ("labels.csv", "label;file\ncat;a/1.png\ndog;./b.png\n"),
        ("list.tsv", "a/1.png\tcat\nb.png\tdog\n"),
        ("list.txt", "a/1.png cat\n\nb.png   dog\n"),
        ("labels.csv", '\ufeffimage,id,class_name\n"a/1.png",7,cat\nb.png,8,dog\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lists(tmp_path, file, text, packed):
    root = fill(tmp_path / "set", "a/1.png", "b.png", "unlisted.png")
    (root / file).write_text(text, encoding="utf-8")
    source = open_source(zipped(root, tmp_path / "set.zip") if packed else root)
    assert pairs(read_list(source, file)) == [("a/1.png", "cat"), ("b.png", "dog")]
    store = data.load("folder", tmp_path / "set.zip" if packed else root / file, size=8)
    assert store.class_names == ["cat", "dog"]
    assert len(store) == 2


def test_list_with_blanks_in_names(tmp_path):
    root = fill(tmp_path, "my cat.png")
    (root / "list.txt").write_text("my cat.png cat")
    assert pairs(read_list(FolderSource(root), "list.txt")) == [("my cat.png", "cat")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cat\nno.png,cat\nnot.png,dog", r"lists 2 files that do not exist; the first is 'no\.png'"),
        ("a.png,cat\na.png", r"line 2 has no label"),
        ("", "lists no image"),
        ("path,label\n", "lists no image"),
        ("path,size\na.png,3", "no column for the class"),
        ("../a.png,cat", "lies outside"),
        ("/etc/passwd,cat", "lies outside"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, message):
    root = fill(tmp_path / "set", "a.png")
    (root / "labels.csv").write_text(text)
    with pytest.raises(FieldmarkError, match=message) as caught:
        open_list(root / "labels.csv")
    assert "\n" not in str(caught.value)


def test_list_with_a_split_column(tmp_path):
    root = fill(tmp_path, "a.png", "b.png")
    (root / "labels.csv").write_text("path,label,split\na.png,cat,train\nb.png,cat,test\n")
    store = data.load("folder", root / "labels.csv", "test", size=8)
    assert store.names == ["b.png"]
