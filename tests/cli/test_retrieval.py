"""`fieldmark eval --task retrieval`, as a user would call it."""

import json

import numpy as np
import pytest
from PIL import Image

from fieldmark.cli import main as cli


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Four classes of five images with one bright bar each, and a class of one image."""
    rng = np.random.default_rng(0)
    for c in range(4):
        for i in range(5 if c < 3 else 1):
            folder = tmp_path / "photos" / f"class {c}"
            folder.mkdir(parents=True, exist_ok=True)
            array = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            array[10 * c : 10 * c + 10] += 150
            Image.fromarray(array).save(folder / f"{i}.png")
    return tmp_path / "photos"


BASE = ("--task", "retrieval", "--size", 32)


def test_both_metrics_and_a_baseline_in_one_table_and_one_record(photos, tmp_path, capsys):
    target = tmp_path / "r.json"
    status, out, err = run(
        capsys, "eval", "conv4", "--root", photos, *BASE, "--metric", "pooled,emd", "--shortlist", 3,
        "--descriptors", "grid", "--descriptor-option", "sizes=[2]", "--baseline", "pixels",
        "--metric-option", "weights=equal", "--published", "emd:DeepEMD=66.39", "--worst", 2, "--json", target,
    )  # fmt: skip
    assert status == 0, err
    assert "15 queries among 16 images" in out
    assert "1 images have no other image of their class" in out
    assert "more relevant images than the shortlist of 3" in out
    assert "Classes found worst" in out
    record = json.loads(target.read_text())
    rows = record["rows"]
    assert [(row["model"], row["head"]) for row in rows] == [
        ("conv4", "pooled"), ("conv4", "emd"), ("pixels", "pooled"), ("pixels", "emd")
    ]  # fmt: skip
    assert {row["task"] for row in rows} == {"retrieval"}
    assert (rows[1]["descriptors"]["name"], rows[1]["descriptors"]["options"]["sizes"]) == ("grid", [2])
    assert rows[1]["head_options"] == {"weights": "equal"}
    assert rows[1]["protocol"]["shortlist"] == 3
    assert rows[2]["mean"] == 1  # pixels solve what pixels show
    assert record["published"] == [{"label": "DeepEMD", "mean": 0.6639, "head": "emd"}]


def test_the_whole_gallery_and_an_earlier_result(photos, tmp_path, capsys):
    old = tmp_path / "old.json"
    assert run(capsys, "eval", "conv4", "--root", photos, *BASE, "--json", old)[0] == 0
    options = ("--metric", "emd", "--shortlist", "all", "--against", old)
    status, out, err = run(capsys, "eval", "conv4", "--root", photos, *BASE, *options)
    assert status == 0, err
    assert "Paired differences" in out
    status, out, err = run(capsys, "eval", "conv4", "--root", photos, *BASE, *options[:-2], "--json", "-")
    assert json.loads(out)["rows"][0]["protocol"]["shortlist"] == 15


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--way", "5"), "--way is an option of --task few-shot"),
        (("--shot=1",), "--shot is an option of --task few-shot"),
        (("--head-option", "k=1"), "--head-option is an option of --task few-shot"),
        (("--episodes-file", "x.npz"), "--episodes-file is an option of --task few-shot"),
        (("--metric", "emdd"), "did you mean 'emd'"),
        (("--metric", "emd", "--metric-option", "varient=paper"), "did you mean 'variant'"),
        (("--metric", "emd", "--metric-option", "temperature=0.0"), "temperature is 0.0; expected a number above 0"),
        (("--metric-option", "variant=paper"), "--metric-option is for metrics on local descriptors"),
        (("--metric", ""), "--metric is ''; expected a name"),
        (("--shortlist", "many"), "expected a number or `all`"),
        (("--shortlist", "0"), "shortlist is 0"),
        (("--descriptors", "grit"), "did you mean 'grid'"),
    ],
)
def test_bad_options_are_one_line(photos, capsys, extra, message):
    status, out, err = run(capsys, "eval", "conv4", "--root", photos, *BASE, *extra)
    assert status == 2
    assert err.count("\n") == 1, err
    assert message in err
    assert out == ""


@pytest.mark.parametrize("extra", [("--metric", "emd"), ("--shortlist=200",), ("--metric-option", "variant=paper")])
def test_options_of_retrieval_are_refused_for_few_shot(photos, capsys, extra):
    status, _, err = run(capsys, "eval", "conv4", "--root", photos, *extra)
    assert status == 2
    assert "is an option of --task retrieval; leave it out for --task few-shot" in err
