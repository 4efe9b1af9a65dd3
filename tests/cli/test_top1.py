"""`fieldmark eval --task top1` and `--task robustness`, as a user would call them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, classifiers
from fieldmark.backbones import Encoder, save_model
from fieldmark.classifiers.trained import keep
from fieldmark.cli import main as cli

NAMES = ["low", "middle", "top"]


def run(capsys, *words):
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Three classes with one bright bar each, in train and test folders."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 5)):
        for c, name in enumerate(NAMES):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                array = rng.integers(0, 60, (36, 36, 3), dtype=np.uint8)
                array[12 * c : 12 * c + 12] += 150
                Image.fromarray(array).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    made = classifiers.create("linear")
    made.setup(8, 3)
    encoder = Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.3,) * 3, classifier=keep(made, NAMES))
    facts = {"manifest": {"name": "folder", "size": [32, 32], "split": "train"}}
    return save_model(tmp_path / "model.safetensors", encoder, facts)


def test_top1_by_classifier_and_heads_beside_a_baseline_that_has_no_classifier(model, photos, tmp_path, capsys):
    target = tmp_path / "r.json"
    status, out, err = run(
        capsys, "eval", model, "--task", "top1", "--root", photos, "--split", "test", "--head", "classifier,prototype",
        "--baseline", "pixels", "--worst", 2, "--json", target,
    )  # fmt: skip
    assert status == 0, err
    assert "15 images of 3 classes" in out
    assert "Classes recognised worst" in " ".join(out.split())
    assert "Classes confused most" in " ".join(out.split())
    record = json.loads(target.read_text())
    rows = [(row["model"], row["head"], row["task"]) for row in record["rows"]]
    assert rows == [
        (str(model), "classifier", "top1"), (str(model), "prototype", "top1"), ("pixels", "prototype", "top1")
    ]  # fmt: skip
    assert record["rows"][2]["mean"] == 1  # pixels solve what pixels show
    assert record["rows"][0]["head_options"] == {"name": "linear", "dropout": 0.0}
    assert record["rows"][1]["support"]["split"] == "train"
    assert set(record["rows"][0]["class_accuracies"]) == set(NAMES)
    twice = "mine=classifier,one=prototype,two=prototype"
    status, out, err = run(
        capsys, "eval", model, "--task", "top1", "--root", photos, "--split", "test", "--head", twice,
        "--head-option", "two.metric=cosine", "--baseline", "pixels", "--json", "-",
    )  # fmt: skip
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["head"], row["head_options"].get("metric")) for row in rows] == [
        ("classifier", None), ("prototype", None), ("prototype", "cosine"), ("prototype", None), ("prototype", "cosine")
    ]  # fmt: skip
    again = run(capsys, "eval", model, "--task", "top1", "--root", photos, "--split", "test", "--against", target)
    assert again[0] == 0
    assert "0.00 ± 0.00" in again[1]


def test_robustness_of_any_model_in_one_table_and_on_the_results_page(model, photos, tmp_path, capsys):
    from fieldmark.evaluation.table import results_page

    target = tmp_path / "results" / "r.json"
    target.parent.mkdir()
    status, out, err = run(
        capsys, "eval", "pixels", "--task", "robustness", "--root", photos, "--split", "test", "--size", 32,
        "--head", "prototype", "--change", "rotated,reduced", "--ratio", 0.5, "--baseline", model, "--json", target,
    )  # fmt: skip
    assert status == 0, err
    assert "reduced to 0.5 of the side" in out
    assert "Paired differences to the first row" in out
    row = json.loads(target.read_text())["rows"][0]
    assert list(row["columns"]) == ["plain", "rotated", "reduced"]
    assert row["columns"]["plain"]["mean"] == row["mean"] == 1
    assert [name for name, one in row["columns"].items() if "hits_per_image" not in one] == ["plain"]
    assert row["hits_per_episode"] == row["top5_hits_per_image"] == "1" * row["count"]
    rotated = row["columns"]["rotated"]
    assert rotated["hits_per_image"].count("1") == pytest.approx(rotated["mean"] * row["count"])
    lost = row["columns"]["rotated"]["lost"]["mean"]
    assert lost == pytest.approx(row["columns"]["rotated"]["mean"] - 1)
    assert lost < 0
    page = results_page(target.parent)
    assert "| pixels | prototype | 100.00 ± 0.00 | 100.00 ± 0.00 | 100.00 |" in page  # top-1, top-5, over classes
    assert "rotated by 90, 180 or 270 degrees" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--task", "top1", "--shot", "1"),
            "--shot is an option of --task few-shot and own-photos; leave it out for --task top1",
        ),
        (("--task", "top1", "--ratio", "0.5"), "--ratio is an option of --task robustness"),
        (
            ("--task", "retrieval", "--head", "emd"),
            "--head is an option of --task few-shot, top1, robustness and own-photos",
        ),
        (("--task", "top1", "--baseline", "pixels"), "pixels has no classifier of its own; fit a head"),
        (("--task", "top1", "--head", "logistc"), "did you mean 'logistic'"),
        (("--task", "top1", "--support-split", "train"), "--support-split is what a head is fitted on"),
        (("--task", "robustness", "--change", "turned"), "unknown change of images 'turned'"),
        (("--task", "robustness", "--ratio", "2"), "ratio is 2.0; expected a share"),
        (("--task", "top2"), "did you mean 'top1'"),
    ],
)
def test_bad_input_is_one_line_before_any_data_is_read(model, photos, capsys, monkeypatch, words, message):
    from fieldmark import data

    monkeypatch.setattr(data, "load", lambda *a, **k: pytest.fail("data was read"))
    status, _, err = run(capsys, "eval", model, "--root", photos, "--split", "test", *words)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_data_set_of_other_classes_is_refused_naming_some(model, capsys):
    status, _, err = run(capsys, "eval", model, "--task", "top1", "--data", "glyphs", "--split", "test")
    assert status == 2
    assert "only the model has 'low', 'middle', 'top'; only the data has 'armenian" in err
    assert len(err.strip().splitlines()) == 1
