"""`fieldmark enroll`, `predict`, `search` and `gallery` from end to end on drawn pictures, and what can be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from fieldmark.cli import main as cli

sys.path.insert(0, str(Path(__file__).parents[1] / "gallery"))
from drawn import class_folders, write

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def as_json(capsys, *arguments):
    status, out, _ = run(capsys, *arguments, "--json", "-")
    return status, json.loads(out)


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", {"red": 4, "green": 4, "blue": 4})


@pytest.fixture
def gallery(tmp_path, photos, capsys):
    place = tmp_path / "gallery"
    status, out, err = run(capsys, "enroll", photos, "--gallery", place, "--backbone", "pixels", "--licence", "CC0")
    assert status == 0, err
    assert "12 photos added, 0 changed, 0 unchanged, 0 left out; 3 new classes" in out
    return place


def test_enroll_again_adds_only_what_is_new(gallery, photos, capsys):
    write(photos, "grey", 0)
    status, report = as_json(capsys, "enroll", photos, "--gallery", gallery)
    assert status == 0
    assert (report["added"], report["unchanged"], report["classes"]) == (1, 12, ["grey"])
    assert (report["photos"], report["classes_in_all"]) == (13, 4)


def test_predict_names_the_class_and_one_bad_image_does_not_stop_it(gallery, tmp_path, capsys):
    asked = [write(tmp_path / "asked", name, 50) for name in ("red", "green", "blue")]
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    status, report = as_json(capsys, "predict", *asked, "--gallery", gallery, "--always", "--top", 2)
    assert status == 0
    assert [one["label"] for one in report["predictions"]] == ["red", "green", "blue"]
    for one in report["predictions"]:
        assert 1 / 3 < one["confidence"] <= 1
        assert len(one["top"]) == 2
        assert one["top"][0]["probability"] == one["confidence"]
    status, out, err = run(capsys, "predict", asked[0], bad, asked[1], "--gallery", gallery, "--always")
    assert status == 1
    assert err.count("\n") == 1
    assert "bad.jpg is not an image" in err
    assert " red " in out
    assert " green " in out
    status, report = as_json(capsys, "predict", bad, "--gallery", gallery)
    assert status == 1
    assert report["predictions"] == []
    assert report["problems"][0]["image"] == str(bad)


def test_predict_takes_folders_heads_and_their_options(gallery, tmp_path, capsys):
    for number in range(3):
        write(tmp_path / "asked", "red", 60 + number)
    folder = tmp_path / "asked" / "red"
    for head in (["nearest", "--head-option", "metric=euclidean"], ["prototype"], ["emd"]):
        status, report = as_json(capsys, "predict", folder, "--gallery", gallery, "--always", "--head", *head)
        assert status == 0
        assert report["head"] == head[0]
        assert [one["label"] for one in report["predictions"]] == ["red"] * 3


def test_predict_says_none_of_these(gallery, tmp_path, capsys):
    stranger = write(tmp_path / "asked", "grey", 50)
    status, report = as_json(capsys, "predict", stranger, "--gallery", gallery, "--head", "nearest")
    assert status == 0
    assert report["predictions"][0]["label"] == "none of these"
    assert report["predictions"][0]["rejected"] is True
    _, out, _ = run(capsys, "predict", stranger, "--gallery", gallery, "--head", "nearest")
    assert "none of these (nearest: " in " ".join(out.split())
    _, report = as_json(capsys, "predict", stranger, "--gallery", gallery, "--head", "nearest", "--always")
    assert report["predictions"][0]["label"] in ("red", "green", "blue")


def test_predict_writes_a_page_of_reasons_for_each_image(gallery, tmp_path, capsys):
    asked = [write(tmp_path / "asked", name, 50) for name in ("red", "green")]
    status, report = as_json(
        capsys, "predict", *asked, "--gallery", gallery, "--head", "emd", "--explain", tmp_path / "why"
    )
    assert status == 0
    pages = [Path(one["explanation"]) for one in report["predictions"]]
    assert [page.name for page in pages] == ["50.html", "50-2.html"]
    assert all("<html" in page.read_text().lower() for page in pages)
    assert "0.png" in pages[0].read_text()  # enrolled photos go by the names of their files
    with Image.open(pages[1].with_suffix(".png")) as picture:
        assert picture.width > 300
    numbers = json.loads(pages[0].with_suffix(".json").read_text())
    assert numbers["prediction"]["score"] == pytest.approx(report["predictions"][0]["score"], abs=1e-4)
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, "predict", asked[0], "--gallery", gallery, "--explain", tmp_path / "file")
    assert status == 2
    assert "is a file; expected a folder" in err


def test_search_finds_the_photo_itself(gallery, photos, capsys):
    path = photos / "green" / "2.png"
    status, report = as_json(capsys, "search", path, "--gallery", gallery, "--top", 3)
    assert status == 0
    assert report["found"][0]["path"] == str(path)
    assert report["found"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    status, out, _ = run(capsys, "search", path, "--gallery", gallery, "--top", 3, "--rerank", "emd")
    assert status == 0
    assert "emd score" in out
    assert "green" in out


def test_gallery_actions(gallery, tmp_path, capsys):
    def counts():
        return {
            one["name"]: one["photos"] for one in as_json(capsys, "gallery", "list", "--gallery", gallery)[1]["classes"]
        }

    status, out, _ = run(capsys, "gallery", "list", "--gallery", gallery)
    assert status == 0
    assert "12 photos with thumbnails, 3 classes" in out
    assert "model pixels" in out
    assert "CC0" in out
    _, listed = as_json(capsys, "gallery", "list", "--gallery", gallery, "--class", "red")
    assert [one["class_name"] for one in listed] == ["red"] * 4
    status, out, _ = run(capsys, "gallery", "list", "--gallery", gallery, "--photos")
    assert out.count("24 x 24") == 12
    assert run(capsys, "gallery", "rename", "red", "crimson", "--gallery", gallery)[0] == 0
    assert counts() == {"blue": 4, "crimson": 4, "green": 4}
    assert run(capsys, "gallery", "move", listed[0]["id"], "--into", "pink", "--gallery", gallery)[0] == 0
    assert run(capsys, "gallery", "merge", "crimson", "pink", "--into", "green", "--gallery", gallery)[0] == 0
    assert counts() == {"blue": 4, "green": 8}
    assert run(capsys, "gallery", "remove", "--photo", listed[0]["id"], "--gallery", gallery)[0] == 0
    status, out, _ = run(capsys, "gallery", "remove", "blue", "--gallery", gallery)
    assert "4 photos removed; 1 classes are left" in out
    assert run(capsys, "gallery", "export", tmp_path / "out.zip", "--gallery", gallery)[0] == 0
    status, report = as_json(capsys, "gallery", "import", tmp_path / "out.zip", "--gallery", tmp_path / "other")
    assert (status, report["added"]) == (0, 7)
    assert run(capsys, "gallery", "compact", "--all", "--gallery", gallery)[0] == 0
    status, report = as_json(capsys, "gallery", "reembed", "--backbone", "pixels", "--size", 16, "--gallery", gallery)
    assert (status, report["files"]) == (0, 7)
    assert counts() == {"green": 7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x.jpg", "--gallery", "nowhere"], "no gallery at nowhere; make one: fieldmark enroll"),
        (["predict", "x.jpg", "--gallery", "GALLERY", "--head", "prototyp"], "did you mean 'prototype'"),
        (["predict", "x.jpg", "--gallery", "GALLERY", "--top", "0"], "--top is 0"),
        (["predict", "x.jpg", "--gallery", "GALLERY", "--head-option", "k"], "KEY=VALUE"),
        (["predict", "EMPTY", "--gallery", "GALLERY"], "holds no image"),
        (["search", "x.jpg", "--gallery", "GALLERY"], "x.jpg"),
        (["search", "x.jpg", "--gallery", "GALLERY", "--rerank", "edm"], "did you mean 'emd'"),
        (["enroll", "nowhere", "--gallery", "GALLERY"], "nowhere"),
        (["enroll", "EMPTY", "--gallery", "GALLERY"], "holds no folders"),
        (
            ["enroll", "EMPTY", "--gallery", "GALLERY", "--backbone", "pixels", "--size", "16"],
            "made with another model",
        ),
        (["enroll", "EMPTY", "--gallery", "GALLERY", "--backbone", "conv4"], "no pretrained weights"),
        (["gallery", "rename", "red", "blue", "--gallery", "GALLERY"], "fieldmark gallery merge"),
        (["gallery", "remove", "--gallery", "GALLERY"], "name classes, or photos by --photo"),
        (["gallery", "list", "--galery", "GALLERY"], "required: --gallery"),
        (["gallery", "list", "--gallery", "GALLERY", "--photo"], "did you mean '--photos'"),
        (["gallery", "lst", "--gallery", "GALLERY"], "invalid choice: 'lst'"),
        (["gallery", "import", "GALLERY", "--gallery", "GALLERY"], "expected a zip"),
    ],
)
def test_bad_input_is_one_line(gallery, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"GALLERY": str(gallery), "EMPTY": str(tmp_path / "empty")}
    status, out, err = run(capsys, *[places.get(word, word) for word in arguments])
    if arguments[:2] == ["predict", "x.jpg"] and status == 1:  # the image itself is what is wrong
        pytest.fail("an option should have been refused first")
    assert status == 2, err
    assert err.count("\n") == 1, err
    assert message in err
    assert out == ""


def test_bad_photos_are_lines_and_nothing_is_changed(gallery, photos, capsys):
    (photos / "red" / "bad.png").write_bytes(b"")
    write(photos, "grey", 0)
    status, out, err = run(capsys, "enroll", photos, "--gallery", gallery)
    assert status == 2
    assert out == ""
    assert [("bad.png is empty" in line) for line in err.splitlines()] == [True, True]
    assert "nothing was changed" in err.splitlines()[-1]
    assert as_json(capsys, "gallery", "list", "--gallery", gallery)[1]["photos"] == 12
    status, out, err = run(capsys, "enroll", photos, "--gallery", gallery, "--skip-bad")
    assert status == 0
    assert "1 photos added, 0 changed, 12 unchanged, 1 left out" in out
    assert "left out: " in err
