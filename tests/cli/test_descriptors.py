"""`fieldmark eval --descriptors` on the embedded data set."""

import json

import pytest

from fieldmark.cli import main as cli

BASE = ("eval", "pixels", "--data", "glyphs", "--episodes", "5", "--queries", "3")


def run(capsys, *words):
    status = cli.main([*BASE, *words])
    return status, *capsys.readouterr()


def test_they_are_used_and_recorded(capsys, tmp_path):
    target = tmp_path / "result.json"
    words = ("--head", "prototype,local_knn", "--descriptors", "grid", "--descriptor-option", "sizes=[2, 1]")
    status, out, err = run(capsys, *words, "--descriptor-option", "ratio=1.5", "--json", str(target))
    assert status == 0, err
    assert "local descriptors grid (sizes [2, 1], ratio 1.5" in " ".join(out.split())
    rows = json.loads(target.read_text())["rows"]
    assert rows[0]["descriptors"]["name"] == "pooled"
    assert rows[1]["descriptors"]["name"] == "grid"
    assert rows[1]["descriptors"]["options"]["sizes"] == [2, 1]
    assert rows[1]["descriptors"]["options"]["ratio"] == 1.5


def test_random_windows_are_repeated_by_the_seed(capsys):
    words = ("--head", "local_knn", "--descriptors", "sampling", "--descriptor-option", "patches=4", "--json", "-")
    rows = [json.loads(run(capsys, *words)[1])["rows"][0] for _ in range(2)]
    assert rows[0]["hits_per_episode"] == rows[1]["hits_per_episode"]
    assert rows[0]["descriptors"]["options"]["patches"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--descriptors", "gird"), "unknown extractor 'gird'; did you mean 'grid'"),
        (("--descriptors", "grid", "--descriptor-option", "ratios=2"), "did you mean 'ratio'"),
        (("--descriptors", "grid", "--descriptor-option", "sizes"), "--descriptor-option 'sizes'; expected KEY=VALUE"),
        (("--descriptor-option", "sizes=[3]"), "unknown option of extractor 'dense'"),
    ],
)
def test_mistakes_are_one_line_before_any_data_is_read(capsys, monkeypatch, words, message):
    from fieldmark import data

    monkeypatch.setattr(data, "load", lambda *a, **k: pytest.fail("data was read"))
    status, out, err = run(capsys, *words)
    assert status == 2
    assert err.count("\n") == 1, err
    assert message in err
    assert out == ""
