"""Every kind of image that real folders hold, through the command line: used rightly, or named in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from fieldmark import data
from fieldmark.cli import main as cli


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Three classes of four plain images."""
    rng = np.random.default_rng(0)
    for name in "abc":
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


EVALUATE = ("--way", 3, "--shot", 1, "--queries", 2, "--episodes", 3, "--size", 32)


def evaluate(capsys, root, *more):
    return run(capsys, "eval", "pixels", "--root", root, *EVALUATE, *more, "--json", "-")


def test_plain_images_pass(photos, capsys):
    status, out, err = evaluate(capsys, photos)
    assert status == 0, err
    assert json.loads(out)["rows"][0]["manifest"]["images"] == 12


@pytest.mark.parametrize("kind", ["corrupt", "truncated", "empty", "huge", "text"])
def test_unreadable_images_are_named_by_eval_and_by_check(photos, capsys, kind):
    bad = photos / "a" / ("bad.jpg" if kind != "huge" else "bad.png")
    whole = photos / "b" / "0.png"
    if kind == "corrupt":
        content = bytearray(whole.read_bytes())
        content[60:200] = bytes(140)
        bad.write_bytes(content)
    elif kind == "truncated":
        Image.open(whole).save(bad, quality=95)
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    elif kind == "empty":
        bad.write_bytes(b"")
    elif kind == "text":
        bad.write_text("not an image")
    else:
        # A few kilobytes that claim 400 million pixels.
        Image.new("1", (20000, 20000)).save(bad)
    status, out, err = evaluate(capsys, photos)
    assert status == 2
    assert bad.name in err
    assert err.count("\n") == 1
    assert out == ""
    status, out, _ = run(capsys, "data", "check", photos, "--json", "-")
    assert status == 1
    assert any(bad.name in json.dumps(problem) for problem in json.loads(out)["problems"])


@pytest.mark.parametrize(
    "kind", ["animated", "16-bit", "cmyk", "rotated", "grey", "palette", "alpha", "grey with alpha", "1-bit"]
)
def test_unusual_images_are_used_rightly_and_reported(photos, capsys, kind):
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20] = 255  # white above, black below
    path = photos / "a" / "odd.png"
    image = Image.fromarray(picture)
    if kind == "animated":
        path = path.with_suffix(".gif")
        image.save(path, save_all=True, append_images=[Image.fromarray(255 - picture)], duration=100)
    elif kind == "16-bit":
        Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(path)
    elif kind == "cmyk":
        path = path.with_suffix(".jpg")
        image.convert("CMYK").save(path, quality=95)
    elif kind == "rotated":
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise to be upright
        image.rotate(90, expand=True).save(path, quality=95, exif=exif)
    else:
        modes = {"grey": "L", "palette": "P", "alpha": "RGBA", "grey with alpha": "LA", "1-bit": "1"}
        image.convert(modes[kind]).save(path)
    status, _, err = evaluate(capsys, photos)
    assert status == 0, err
    store = data.load("folder", photos, size=40)
    decoded = store.gather([store.names.index(f"a/{path.name}")])[0].float()
    assert decoded[:, 2:18].mean() > 240
    assert decoded[:, 22:38].mean() < 15
    status, out, _ = run(capsys, "data", "check", photos, "--json", "-")
    assert status == 0
    assert any(path.name in json.dumps(problem) for problem in json.loads(out)["problems"])


def test_empty_class_is_named(photos, capsys):
    (photos / "nothing here").mkdir()
    status, _, err = evaluate(capsys, photos)
    assert status == 2
    assert "nothing here" in err
    status, out, _ = run(capsys, "data", "check", photos)
    assert status == 1
    assert "nothing here" in out


def test_one_image_a_class(photos, capsys):
    for path in photos.glob("a/[123].png"):
        path.unlink()
    status, _, err = evaluate(capsys, photos)
    assert status == 2
    assert "class 'a' has 1 image" in err
    _, out, _ = run(capsys, "data", "check", photos)
    assert "a" in out


def test_more_shots_than_images(photos, capsys):
    status, _, err = evaluate(capsys, photos, "--shot", 9)
    assert status == 2
    assert "shot + queries = 11" in err


@pytest.mark.parametrize("text", ["a/0.png,a\nb/none.png,b\n", "a/0.png,a\n../outside.png,b\n"])
def test_list_with_a_missing_or_outside_file(photos, capsys, text):
    (photos / "list.csv").write_text(text)
    status, _, err = evaluate(capsys, photos / "list.csv")
    assert status == 2
    assert "none.png" in err or "outside.png" in err


def test_missing_folder_says_the_path(capsys, tmp_path):
    for command in (["eval", "pixels", "--root"], ["data", "check"]):
        status, _, err = run(capsys, *command, tmp_path / "no such place")
        assert status == 2
        assert "no such place" in err


def test_duplicates_across_classes_are_found(photos, capsys):
    (photos / "b" / "copy.png").write_bytes((photos / "a" / "0.png").read_bytes())
    _, out, _ = run(capsys, "data", "check", photos, "--json", "-")
    assert any("copy.png" in json.dumps(p) and "0.png" in json.dumps(p) for p in json.loads(out)["problems"])
