"""`fieldmark eval` on the embedded data set and on folders, as a user would call it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.cli import main as cli

_spec = importlib.util.spec_from_file_location("data_mocks", Path(__file__).parents[1] / "data" / "mocks.py")
mocks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mocks)


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def photos(tmp_path):
    """Four classes of ten images that differ in one bright bar."""
    rng = np.random.default_rng(0)
    for c in range(4):
        folder = tmp_path / "photos" / f"class {c}"
        folder.mkdir(parents=True)
        for i in range(10):
            array = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            array[10 * c : 10 * c + 10] += 150
            Image.fromarray(array).save(folder / f"{i}.png")
    return tmp_path / "photos"


BASE = ("--way", 4, "--shot", 1, "--queries", 4, "--episodes", 20, "--size", 32)


def test_numbers_with_an_exponent_are_numbers(photos, capsys):
    arguments = ("eval", "conv4", "--root", photos, *BASE, "--head", "emd", "--json", "-")
    status, out, err = run(capsys, *arguments, "--head-option", "temperature=1e-2")
    assert status == 0, err
    assert json.loads(out)["rows"][0]["head_options"] == {"temperature": 0.01}


def test_json_has_all_that_a_result_needs(photos, tmp_path, capsys):
    target = tmp_path / "result.json"
    status, out, err = run(
        capsys, "eval", "conv4", "--root", photos, *BASE, "--head", "prototype,logistic", "--json", target
    )
    assert status == 0, err
    assert "prototype" in out
    record = json.loads(target.read_text())
    assert [row["head"] for row in record["rows"]] == ["prototype", "logistic"]
    assert len({row["episode_hash"] for row in record["rows"]}) == 1
    row = record["rows"][0]
    assert row["manifest"]["checksum"]
    assert row["protocol"]["seed"] == 0
    assert np.mean(row["hits_per_episode"]) / row["queries_per_episode"] == pytest.approx(row["mean"])


def test_pixels_solve_what_pixels_show_and_baselines_share_episodes(photos, capsys):
    status, out, err = run(capsys, "eval", "pixels", "--root", photos, *BASE, "--baseline", "conv4", "--json", "-")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [row["model"] for row in rows] == ["pixels", "conv4"]
    assert rows[0]["mean"] > 0.95
    assert rows[0]["episode_hash"] == rows[1]["episode_hash"]


def test_saved_episodes_give_the_same_numbers_again(photos, tmp_path, capsys):
    first = json.loads(
        run(
            capsys,
            "eval",
            "pixels",
            "--root",
            photos,
            *BASE,
            "--save-episodes",
            tmp_path / "e.npz",
            "--json",
            "-",
        )[1]
    )
    second = json.loads(
        run(
            capsys,
            "eval",
            "pixels",
            "--root",
            photos,
            "--size",
            32,
            "--episodes-file",
            tmp_path / "e.npz",
            "--json",
            "-",
        )[1]
    )
    for key in ("hits_per_episode", "episode_hash", "mean"):
        assert first["rows"][0][key] == second["rows"][0][key]


def test_against_an_earlier_result(photos, tmp_path, capsys):
    old = tmp_path / "old.json"
    assert run(capsys, "eval", "conv4", "--root", photos, *BASE, "--json", old)[0] == 0
    status, out, err = run(capsys, "eval", "pixels", "--root", photos, *BASE, "--against", old)
    assert status == 0, err
    assert "Paired differences" in out
    status, _, err = run(capsys, "eval", "pixels", "--root", photos, *BASE, "--seed", 1, "--against", old)
    assert status == 2
    assert "different episodes" in err
    other_size = [*BASE[:-1], 48]
    status, _, err = run(capsys, "eval", "pixels", "--root", photos, *other_size, "--against", old)
    assert status == 2
    assert "size" in err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--shot", "50"), "shot + queries"),
        (("--way", "9"), "9-way episodes need 9 classes"),
        (("--way", "many"), "expected a number or `all`"),
        (("--head", "prototyp"), "did you mean 'prototype'"),
        (("--head-option", "metric"), "expected KEY=VALUE"),
        (("--head-option", "metrik=cosine"), "did you mean 'metric'"),
        (("--head", ","), "--head is ','; expected a name"),
        (("--head", "logistic,emd,logistic"), "--head names 'logistic' twice; give a label to each"),
        (("--head", "prototype,a="), "--head 'a='; expected NAME, or LABEL=NAME"),
        (("--head", "a=prototyp"), "did you mean 'prototype'"),
        (("--head", "one=prototype,two=prototype", "--head-option", "tow.metric=cosine"), "did you mean 'two'"),
        (("--head", "emd", "--head-option", "temperature=abc"), "expected a number"),
        (("--head", "emd", "--head-option", "solver=[simplex"), "is not valid YAML"),
        (("--data", "grocry"), "did you mean 'grocery'"),
        (("--split", "tset"), "unknown split"),
        (("--task", "few_shot"), "did you mean 'few-shot'"),
        (("--device", "cuda:99"), "not available"),
        (("--root", "nowhere/at/all"), "nowhere/at/all"),
        (("--queries", "all"), "support split"),
        (("--against", "none.json"), "no result file"),
        (("--episodes-file", "none.npz"), "no episode file"),
    ],
)
def test_bad_options_are_one_line(photos, capsys, extra, message):
    status, out, err = run(capsys, "eval", "conv4", "--root", photos, *BASE, *extra)
    assert status == 2
    assert err.count("\n") == 1, err
    assert message in err
    assert out == ""


def test_one_head_twice_with_other_options(photos, tmp_path, capsys):
    target = tmp_path / "r.json"
    status, out, err = run(
        capsys, "eval", "conv4", "--root", photos, *BASE, "--head", "far=prototype,near=prototype,nearest",
        "--head-option", "near.metric=cosine", "--json", target, "--cost", 2,
    )  # fmt: skip
    assert status == 0, err
    rows = json.loads(target.read_text())["rows"]
    assert [(row["head"], row["head_options"]) for row in rows] == [
        ("prototype", {}), ("prototype", {"metric": "cosine"}), ("nearest", {})
    ]  # fmt: skip
    assert len({row["episode_hash"] for row in rows}) == 1
    assert "".join(out.split()).count("prototype(metriccosine)") == 2  # in both tables
    for row, options in zip(rows, ([], ["--head-option", "metric=cosine"]), strict=False):
        alone = run(capsys, "eval", "conv4", "--root", photos, *BASE, "--head", "prototype", *options, "--json", "-")
        assert json.loads(alone[1])["rows"][0]["hits_per_episode"] == row["hits_per_episode"]
    status, out, err = run(
        capsys, "eval", "conv4", "--root", photos, *BASE, "--head", "a=prototype", "--head-option", "a.metric=cosine",
        "--against", target,
    )  # fmt: skip
    assert status == 0, err
    assert "".join(out.split()).count("prototype(metriccosine)") == 5  # accuracy; three differences; one is to its like


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("cnv4", "did you mean 'conv4'"),
        ("runs/none", "no model at runs/none"),
        ("x.safetensors", "no model at"),
    ],
)
def test_unknown_models(photos, capsys, model, message):
    status, _, err = run(capsys, "eval", model, "--root", photos, *BASE)
    assert status == 2
    assert message in err


@pytest.mark.slow
def test_descriptors_of_the_training_are_the_default(tmp_path, capsys):
    """A model is evaluated on what it was trained with, unless other descriptors are asked for."""
    from fieldmark import backbones
    from fieldmark.backbones import Encoder, save_model

    encoder = Encoder(backbones.create("conv4"), mean=(0.5,) * 3, std=(0.25,) * 3)
    known = {"descriptors": {"name": "feature_pyramid", "options": {"levels": [1]}}}
    model = save_model(tmp_path / "model.safetensors", encoder, known)
    common = ["eval", str(model), "--data", "glyphs", "--head", "emd", "--queries", "3", "--episodes", "3"]
    common += ["--json", "-"]
    found = []
    for more in ([], ["--descriptors", "dense"]):
        assert cli.main([*common, *more]) == 0
        found.append(json.loads(capsys.readouterr().out)["rows"][0]["descriptors"]["name"])
    assert found == ["feature_pyramid", "dense"]


def test_runs_are_reported_with_their_median(photos, tmp_path, capsys):
    target = tmp_path / "runs.json"
    options = ("eval", "conv4", "--root", photos, *BASE, "--head", "logistic", "--head-option", "features=sum")
    status, out, err = run(capsys, *options, "--runs", 3, "--interval", "student", "--json", target)
    assert status == 0, err
    assert "median of 3 runs with seeds 0 to 2" in " ".join(out.split())
    row = json.loads(target.read_text())["rows"][0]
    assert row["mean"] == np.median([one["mean"] for one in row["runs"]])
    assert row["descriptors"]["name"] == "spatial"
    status, out, err = run(capsys, *options, "--runs", 3, "--interval", "student", "--against", target)
    assert status == 0, err
    assert "0.00 ± 0.00" in out


@pytest.mark.parametrize("option", ["--save-episodes", "--episodes-file"])
def test_runs_and_fixed_episodes_are_refused_together(photos, tmp_path, capsys, option):
    status, _, err = run(capsys, "eval", "conv4", "--root", photos, *BASE, "--runs", 3, option, tmp_path / "e.npz")
    assert status == 2
    assert f"{option} is for one set of episodes, --runs 3" in err
    assert err.count("\n") == 1


# Where SCL tests its models from miniImageNet (Tseng et al. 2020), in the layouts that are read, and any folder.
@pytest.mark.parametrize("domain", ["cub-closerlook", "stanford_cars-scl", "places", "plantae", "folder"])
def test_a_model_is_evaluated_in_other_domains(domain, tmp_path, capsys):
    # The mocks of Places and Plantae hold one image a class; an episode needs two.
    folders = {"places": 365, "plantae": 200, "folder": 7}
    if domain in folders:
        root = mocks.class_folders(tmp_path / "images", [f"class-{i:03d}" for i in range(folders[domain])], images=2)
    else:
        root = mocks.mock(domain, tmp_path / "images")
    split = ("--split", "all") if domain == "folder" else ()
    status, out, err = run(
        capsys, "eval", "conv4", "--data", domain, "--root", root, *split, "--way", 5, "--shot", 1, "--queries", 1,
        "--episodes", 4, "--size", 32, "--head", "logistic", "--head-option", "features=sum", "--support-copies", 2,
        "--json", "-",
    )  # fmt: skip
    assert status == 0, err
    row = json.loads(out)["rows"][0]
    assert row["manifest"]["name"].startswith(domain.split("-")[0])
    assert row["count"] == 4
    assert row["support_copies"] == 2


def test_cost_is_told_and_written(photos, tmp_path, capsys):
    target = tmp_path / "result.json"
    arguments = ("eval", "pixels", "--root", photos, *BASE, "--head", "prototype,logistic", "--json", target)
    status, out, err = run(capsys, *arguments, "--cost", 2)
    assert status == 0, err
    assert "ms a query" in out
    rows = json.loads(target.read_text())["rows"]
    assert all(row["cost"]["episodes"] == 2 and row["cost"]["milliseconds_per_query"] > 0 for row in rows)
    status, _, err = run(capsys, *arguments, "--cost", -1)
    assert (status, err.count("\n")) == (2, 1)
    assert "--cost is -1" in err
    status, _, err = run(capsys, "eval", "pixels", "--root", photos, "--task", "retrieval", "--cost", 2)
    assert (status, err.count("\n")) == (2, 1)
    assert "--cost is an option of --task few-shot" in err
