"""`fieldmark explain --head spatial_alignment`: picture, table, JSON, and what is refused before a model is loaded."""

import json
import os

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from fieldmark import backbones, heads
from fieldmark.cli import main as cli


@pytest.fixture
def photos(tmp_path):
    """Two images of different shape."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "query.png", tmp_path / "support.jpg"]
    for path, size in zip(paths, ((60, 50, 3), (70, 90, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


def explain(capsys, photos, out, *more, head="spatial_alignment", model="conv4"):
    words = ["explain", *photos, "--out", out, "--head", head, "--model", model, "--size", 64, *more]
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def refused(capsys, photos, out, *more, **how):
    status, printed, err = explain(capsys, photos, out, *more, **how)
    assert status == 2, err
    assert err.count("\n") == 1
    assert printed == ""
    return err


def test_picture_and_table(photos, tmp_path, capsys):
    status, out, err = explain(capsys, photos, tmp_path / "new" / "alignment.png")
    assert status == 0, err
    assert "LSC without g (temperature 0.05), not trained" in " ".join(out.split())
    assert "row " in out
    with Image.open(tmp_path / "new" / "alignment.png") as picture:
        width, height = picture.size
    assert width == 1560
    assert height > width  # three parts below each other


def test_json_adds_up_and_says_how_it_was_made(photos, tmp_path, capsys):
    status, out, err = explain(
        capsys, photos, tmp_path / "a.svg", "--json", "-", "--what", "correlations,foreground", "--fit", "pad",
        "--heat", "norm", "--head-option", "foreground=mask", "--head-option", "distance=pooled", "--head-option",
        "temperature=0.2",
    )  # fmt: skip
    assert status == 0, err
    record = json.loads(out)
    assert record["score"] == pytest.approx(sum(one["contribution"] for one in record["places"]), abs=1e-12)
    assert (record["head"], record["what"]) == ("spatial_alignment", ["correlations", "foreground"])
    assert (record["size"], record["fit"], record["heat_of"]) == ([64, 64], "pad", "norm")
    chosen = record["head_options"]
    assert (chosen["foreground"], chosen["distance"], chosen["temperature"]) == ("mask", "pooled", 0.2)
    assert (record["query"]["name"], record["support"]["name"]) == ("query.png", "support.jpg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_trained_head_is_used_as_it_was_trained(photos, tmp_path, capsys):
    head = heads.create("spatial_alignment", foreground="full", reduce=True, manipulation=True, temperature=0.5)
    head.setup(64)
    kept = backbones.TrainedHead("spatial_alignment", head.made_as[1], head.state_dict())
    encoder = backbones.Encoder(backbones.create("conv4", last_pool=False), (0.5,) * 3, (0.25,) * 3, head=kept)
    backbones.save_model(tmp_path / "model.safetensors", encoder, {"manifest": {"size": [48, 48], "fit": "pad"}})
    status, out, err = explain(capsys, photos, tmp_path / "a.png", "--json", "-", model=tmp_path)
    assert status == 0, err
    record = json.loads(out)
    assert record["trained_head"] is True
    assert record["head_options"]["temperature"] == 0.5
    assert record["what"] == ["contributions", "heat_maps", "foreground", "correlations"]
    assert list(record["heat"]) == ["query", "support", "correspondence", "manipulation"]
    status, out, err = explain(
        capsys, photos, tmp_path / "b.png", "--json", "-", "--head-option", "manipulation=false", model=tmp_path
    )
    assert status == 0, err
    assert list(json.loads(out)["heat"]) == ["query", "support", "correspondence"]
    status, out, err = explain(capsys, photos, tmp_path / "c.png", model=tmp_path)
    assert status == 0, err
    assert "after SSM" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "a.jpg"], ".png, .pdf or .svg"),
        (["--head", "prototype"], "unknown head to explain 'prototype'"),
        (["--head", "spatial_alignmnt"], "did you mean 'spatial_alignment'"),
        (["--what", "heat_maps,corelations"], "did you mean 'correlations'"),
        (["--what", "flows"], "flows is a part of --head emd"),
        (["--what", ","], "without parts"),
        (["--heat", "norms"], "did you mean 'norm'"),
        (["--weights", "equal"], "--weights is an option of --head emd"),
        (["--variant", "paper"], "--variant is an option of --head emd"),
        (["--descriptors", "grid"], "--descriptors is an option of --head emd"),
        (["--descriptor-option", "levels=[2]"], "--descriptor-option is an option of --head emd"),
        (["--top", "3"], "--top is an option of --head emd"),
        (["--head-option", "temprature=1"], "did you mean 'temperature'"),
        (["--head-option", "temperature=-1"], "above 0"),
        (["--head-option", "distance=sums"], "unknown distance"),
        (["--head-option", "temperature"], "expected KEY=VALUE"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(photos, tmp_path, capsys, monkeypatch, more, said):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, photos, "a.png", *more, model="no_such_model")
    assert sorted(os.listdir()) == ["query.png", "support.jpg"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--head-option", "manipulation=true"], "this model brings none"),
        (["--what", "foreground"], "no foreground mask to draw"),
        (["--model", "conv5"], "did you mean 'conv4'"),
        (["--size", "0"], "1 to 4096"),
        (["--size", "640"], "at most 1,024"),
    ],
)
def test_what_the_model_cannot_show_is_refused(photos, tmp_path, capsys, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, photos, "a.png", *more)
    assert sorted(os.listdir()) == ["query.png", "support.jpg"]


@pytest.mark.parametrize("option", [["--head-option", "temperature=1"], ["--heat", "norm"]])
def test_options_of_the_alignment_are_refused_for_the_matching(photos, tmp_path, capsys, option):
    err = refused(capsys, photos, tmp_path / "a.png", *option, head="emd")
    assert f"{option[0]} is an option of --head spatial_alignment; leave it out for --head emd" in err


def test_parts_of_the_alignment_are_refused_for_the_matching(photos, tmp_path, capsys):
    err = refused(capsys, photos, tmp_path / "a.png", "--what", "heat_maps", head="emd")
    assert "heat_maps is a part of --head spatial_alignment" in err


def test_no_file_of_the_command_is_overwritten(photos, tmp_path, capsys):
    before = [path.read_bytes() for path in photos]
    assert "would overwrite" in refused(capsys, photos, photos[0])
    assert "would overwrite" in refused(capsys, photos, tmp_path / "a.png", "--json", photos[1])
    assert [path.read_bytes() for path in photos] == before


@pytest.mark.parametrize("kind", ["missing", "text"])
def test_bad_images_are_named(photos, tmp_path, capsys, kind):
    bad = tmp_path / "bad.png"
    if kind == "text":
        bad.write_text("not an image")
    assert "bad.png" in refused(capsys, [photos[0], bad], tmp_path / "out.png", model="no_such_model")
    assert not (tmp_path / "out.png").exists()
