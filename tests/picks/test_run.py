"""Measuring: a file a number of shots, nothing twice, images encoded once, and what cannot run is named."""

import json
import math

import pytest

from fieldmark.backbones import pixels
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import compare_rows, load_record
from fieldmark.picks import __main__ as command
from fieldmark.picks import find
from fieldmark.picks import run as running
from fieldmark.picks.run import hindrance, is_measured, measure, overview, some_of
from fieldmark.reproduce.state import Places


@pytest.fixture
def bars(tree, write):
    return find(write(tree)[1], ["bars"])[0]


def quiet(_):
    pass


def test_each_number_of_shots_is_a_whole_result(bars, tmp_path):
    said = []
    written = measure(bars, Places(), tmp_path, say=said.append)
    assert [path.name for path in written] == ["bars-pixels-1shot.json", "bars-pixels-3shot.json"]
    for path, shot, episodes in zip(written, (1, 3), (12, 9), strict=True):
        record = load_record(path)
        assert [row["pick"] for row in record["rows"]] == list(bars.heads)
        for row in record["rows"]:
            compare_rows(row, record["rows"][0])  # refuses other images or episodes
            assert (row["protocol"]["shot"], row["count"]) == (shot, episodes)
            assert row["cost"]["milliseconds_per_query"] > 0
            assert row["cost"]["support_bytes_per_class"] == shot * 4 * math.prod(row["cost"]["descriptors"])
        assert record["provenance"]["command"] == "python -m fieldmark.picks bars/pixels --run"
        assert record["pick"]["settings"] == bars.settings(shot)
        chosen = record["pick"]["chosen"]["lsc"]
        best = max(chosen["candidates"], key=lambda one: one["mean"])
        assert chosen["options"] == best["options"]
        lsc = next(row for row in record["rows"] if row["pick"] == "lsc")
        assert lsc["head_options"] == best["options"]
    assert any("chosen on val" in text for text in said)


def test_what_is_measured_is_not_measured_again(bars, tmp_path, tree, write):
    first = measure(bars, Places(), tmp_path, say=quiet)
    hits = load_record(first[1])["rows"][0]["hits_per_episode"]
    assert measure(bars, Places(), tmp_path, say=quiet) == []
    first[1].unlink()
    assert measure(bars, Places(), tmp_path, say=quiet) == [first[1]]
    assert load_record(first[1])["rows"][0]["hits_per_episode"] == hits
    changed = find(write({**tree, "seed": 1})[1], ["bars"])[0]
    assert not is_measured(changed, 1, tmp_path)
    assert overview([changed], Places(), tmp_path)[0][2] == "1, 3 with other settings"
    assert measure(changed, Places(), tmp_path, say=quiet) == first


def test_an_interruption_costs_one_file_at_most(bars, tmp_path, monkeypatch):
    save = running._save

    def stop(comparison, shot, *arguments):
        if shot == 3:
            raise KeyboardInterrupt
        return save(comparison, shot, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(running, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            measure(bars, Places(), tmp_path, say=quiet)
    assert is_measured(bars, 1, tmp_path)
    assert not is_measured(bars, 3, tmp_path)
    assert [path.name for path in measure(bars, Places(), tmp_path, say=quiet)] == ["bars-pixels-3shot.json"]


def test_images_are_encoded_once_for_all_numbers_of_shots(bars, tmp_path, monkeypatch):
    seen, forward = [], pixels.Pixels.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(pixels.Pixels, "forward", counted)
    measure(bars, Places(), tmp_path, say=quiet)
    singly = [count for count in seen if count == 1]  # timing the encoder
    test, base, val = 32, 16, 20
    assert sum(seen) - len(singly) == test + base + (base + val)  # the choice encodes the base images as well


def test_some_images_are_as_many_of_each_class(bars):
    from fieldmark import data

    store = data.load("folder", bars.data.root, "train", size=8)
    few = some_of(store, 10, seed=0)
    assert few.class_counts().tolist() == [3] * 4
    assert some_of(store, 10, seed=0).names == few.names
    assert some_of(store, 10, seed=1).names != few.names
    assert some_of(store, 10, seed=0, least=5).class_counts().tolist() == [5] * 4
    assert some_of(store, 100, seed=0) is store


def test_what_is_missing_is_named(tree, write, tmp_path):
    listed = write(tree)[1]
    missing = find(listed, ["elsewhere"])[0]
    assert hindrance(missing, Places(folders=[tmp_path])).startswith("data set 'cub-feat' is not here: looked in")
    with pytest.raises(FieldmarkError, match="elsewhere/pixels: data set 'cub-feat' is not here"):
        measure(missing, Places(folders=[tmp_path]), tmp_path)
    tree["backbones"]["pixels"]["model"] = "runs/nowhere.safetensors"
    assert hindrance(find(write(tree)[1], ["bars"])[0], Places()).startswith("no model at runs/nowhere.safetensors")
    tree["data"]["bars"]["root"] = str(tmp_path / "gone")
    assert "no such file or folder" in hindrance(find(write(tree)[1], ["bars"])[0], Places())


def test_the_command_measures_what_it_can_and_says_what_it_cannot(tree, write, tmp_path, capsys):
    path, _ = write(tree)
    arguments = ["--list", str(path), "--out", str(tmp_path / "results")]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "can be measured" in out
    assert "cub-feat" in out
    assert command.main([*arguments, "--run", "--page", str(tmp_path / "docs" / "page.md")]) == 2
    done = capsys.readouterr()
    assert done.err.count("\n") == 1
    assert "left out: elsewhere/pixels: data set 'cub-feat' is not here" in done.err
    assert (tmp_path / "docs" / "images" / "what_to_pick" / "bars-pixels.webp").stat().st_size < 60_000
    assert command.main([*arguments, "bars", "--run"]) == 0
    assert "measured already" in capsys.readouterr().out
    assert json.loads((tmp_path / "results" / "bars-pixels-3shot.json").read_text())["pick"]["shot"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["glyph"], "unknown comparison 'glyph'; did you mean 'glyphs'"),
        (["--root", "photos"], "expected DATA=PATH"),
        (["--root", "glyph=photos"], "unknown data set in --root 'glyph'; did you mean 'glyphs'"),
        (["--list", "nowhere.yaml"], "cannot read the list of comparisons nowhere.yaml"),
        (["--pages", "x"], "unrecognized arguments: --pages"),
        (["--device", "gpu", "--run"], "device 'gpu' is not available here"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys):
    assert command.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
