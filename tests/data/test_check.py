"""The data doctor finds each planted fault, names it with the right severity, and finds nothing in sound folders."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.check import check_folder, render
from fieldmark.errors import FieldmarkError


def picture(seed, size=(64, 48)):
    """A smooth random photograph-like picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def kinds(report, severity=None):
    return {(p.code, p.file) for p in report.problems if severity in (None, p.severity)}


@pytest.fixture
def folder(tmp_path):
    for c, name in enumerate(("cat", "dog", "elk")):
        for i in range(3):
            save(tmp_path / name / f"{i}.png", picture(10 * c + i))
    return tmp_path


def test_a_sound_folder_has_no_finding(folder):
    report = check_folder(folder)
    assert report.ok
    assert report.problems == ()
    assert report.layout == "class folders"
    assert report.counts == {"": {"cat": 3, "dog": 3, "elk": 3}}
    assert (report.images, report.classes) == (9, ["cat", "dog", "elk"])


def test_files_that_cannot_be_used_are_errors_and_do_not_hide_each_other(folder, monkeypatch):
    (folder / "cat/empty.jpg").write_bytes(b"")
    (folder / "cat/text.png").write_text("this is no image")
    buffer = io.BytesIO()
    picture(1, (400, 300)).save(buffer, "jpeg")
    (folder / "dog/cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    save(folder / "elk/huge.png", Image.new("1", (2000, 1500)))
    monkeypatch.setattr("fieldmark.data.check.files.MAX_PIXELS", 2_000_000)
    report = check_folder(folder)
    assert not report.ok
    assert kinds(report, "error") == {
        ("unreadable", "cat/empty.jpg"),
        ("unreadable", "cat/text.png"),
        ("truncated", "dog/cut.jpg"),
        ("huge", "elk/huge.png"),
    }
    assert all("; replace or remove it" in p.message or "scale it down" in p.message for p in report.problems)


def test_animation_tiny_and_modes(folder):
    frames = [picture(100 + i) for i in range(3)]
    save(folder / "cat/moving.gif", frames[0], save_all=True, append_images=frames[1:])
    save(folder / "cat/tiny.png", picture(200, (31, 60)))
    save(folder / "dog/cmyk.jpg", picture(201).convert("CMYK"))
    save(folder / "dog/grey.png", picture(202).convert("L"))
    deep = np.asarray(picture(203).convert("L")).astype(np.uint16) * 257
    save(folder / "dog/deep.png", Image.fromarray(deep))
    save(folder / "elk/palette.png", picture(204).convert("P"))
    clear = picture(205).convert("RGBA")
    clear.putalpha(99)
    save(folder / "elk/alpha.png", clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "elk/turned.jpg", picture(206), exif=exif)
    report = check_folder(folder)
    assert report.ok
    assert kinds(report, "warning") == {("animated", "cat/moving.gif"), ("tiny", "cat/tiny.png")}
    assert kinds(report, "note") == {
        ("palette", "cat/moving.gif"),
        ("cmyk", "dog/cmyk.jpg"),
        ("grey", "dog/grey.png"),
        ("deep", "dog/deep.png"),
        ("palette", "elk/palette.png"),
        ("alpha", "elk/alpha.png"),
        ("exif-rotated", "elk/turned.jpg"),
    }
    assert "tiny" not in {p.code for p in check_folder(folder, tiny=31).problems}


def test_same_pixels_in_another_file_format_are_duplicates(folder):
    save(folder / "cat/again.bmp", picture(0))
    save(folder / "elk/wrong.tiff", picture(10))
    report = check_folder(folder)
    assert kinds(report) == {("duplicate", "cat/0.png"), ("duplicate-across-classes", "dog/0.png")}
    by_code = {p.code: p for p in report.problems}
    assert by_code["duplicate"].severity == "warning"
    assert by_code["duplicate"].others == ("cat/again.bmp",)
    assert by_code["duplicate-across-classes"].severity == "error"


def test_the_same_picture_on_its_side_by_exif_is_a_duplicate(folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    save(folder / "cat/side.png", picture(0).rotate(180), exif=exif)
    assert ("duplicate", "cat/0.png") in kinds(check_folder(folder))


@pytest.mark.parametrize("options", [{"quality": 80}, {"quality": 92, "scale": 0.75}])
def test_recompressed_and_rescaled_copies_are_near_duplicates(folder, options):
    scale = options.pop("scale", 1)
    copy = picture(0, (256, 192))
    save(folder / "cat/big.png", copy)
    save(folder / "dog/copy.jpg", copy.resize((int(256 * scale), int(192 * scale))), **options)
    report = check_folder(folder)
    across = [p for p in report.problems if p.code == "near-across-classes"]
    assert len(across) == 1
    assert {across[0].file, *across[0].others} >= {"cat/big.png", "dog/copy.jpg"}
    assert across[0].severity == "warning"


def test_copies_across_splits_are_the_worst(tmp_path):
    for split in ("support", "test"):
        for c, name in enumerate(("cat", "dog")):
            for i in range(2):
                save(tmp_path / split / name / f"{i}.png", picture(len(split) * 100 + 10 * c + i))
    save(tmp_path / "test/cat/copy.png", picture(700))
    report = check_folder(tmp_path)
    assert report.layout == "split folders"
    assert report.counts["test"] == {"cat": 3, "dog": 2}
    assert kinds(report, "error") == {("duplicate-across-splits", "support/cat/0.png")}


def test_query_classes_need_support_and_other_split_names_can_be_told(tmp_path):
    save(tmp_path / "support/cat/0.png", picture(0))
    save(tmp_path / "query/cat/0.png", picture(1))
    save(tmp_path / "query/dog/0.png", picture(2))
    assert kinds(check_folder(tmp_path)) == {("no-support", "query/dog")}
    save(tmp_path / "gallery/cat/0.png", picture(3))
    assert check_folder(tmp_path).layout == "class folders"
    assert check_folder(tmp_path, splits=["support", "query", "gallery"]).layout == "split folders"


def test_classes_without_enough_images_and_other_files(folder):
    (folder / "fox").mkdir()
    save(folder / "gnu/0.png", picture(300))
    save(folder / "loose.png", picture(301))
    (folder / "cat/notes.md").write_text("seen in May")
    report = check_folder(folder)
    assert kinds(report, "error") == {("empty-class", "fox")}
    assert kinds(report, "warning") == {("single-image", "gnu"), ("loose", "loose.png")}
    assert kinds(report, "note") == {("ignored", "cat/notes.md")}
    assert report.counts[""]["fox"] == 0


def test_zip_list_and_plain_heap(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with zipfile.ZipFile(other / "all.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, f"photos/{file.relative_to(folder)}")
    zipped = check_folder(other / "all.zip")
    assert (zipped.layout, zipped.counts, zipped.problems) == ("class folders", check_folder(folder).counts, ())
    (folder / "some.csv").write_text("path,label\ncat/0.png,feline\ncat/1.png,feline\ndog/0.png,canine\n")
    listed = check_folder(folder / "some.csv")
    assert (listed.layout, listed.counts) == ("list", {"": {"canine": 1, "feline": 2}})
    (folder / "bad.csv").write_text("path,label\ncat/9.png,feline\n")
    assert kinds(check_folder(folder / "bad.csv")) == {("list", "bad.csv")}
    save(other / "heap/1.png", picture(1))
    assert ("no-classes", str(other / "heap")) in kinds(check_folder(other / "heap"))


def test_a_heap_of_blank_images_does_not_explode(tmp_path, monkeypatch):
    monkeypatch.setattr("fieldmark.data.check.copies._MOST_PAIRS", 100)
    for i in range(20):
        save(tmp_path / f"c{i % 2}" / f"{i}.png", Image.new("RGB", (40 + i, 40 + i), (255, 255, 255)))
    assert "near-skipped" in {p.code for p in check_folder(tmp_path).problems}


def test_report_is_json_and_readable(folder):
    for i in range(30):
        (folder / f"cat/broken{i:02d}.jpg").write_bytes(b"")
    (folder / "cat/[red]odd.jpg").write_bytes(b"")
    report = check_folder(folder)
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["found"] == {"unreadable": 31}
    assert len(facts["problems"]) == 31
    from rich.console import Console

    console = Console(width=160, file=io.StringIO())
    console.print(render(report))
    text = console.file.getvalue()
    assert "3 classes" in text
    assert "16 more" in text
    assert "[red]odd.jpg" in text
    assert "31 errors, 0 warnings, 0 notes" in text


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(FieldmarkError, match="no such file or folder"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(FieldmarkError, match="tiny is -1"):
        check_folder(tmp_path, tiny=-1)
