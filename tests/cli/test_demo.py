"""The demo: the whole line, and its end with and without the packages of a gallery."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
import torch

from fieldmark import backbones, data
from fieldmark.backbones import Encoder, save_model
from fieldmark.cli import demo_gallery
from fieldmark.cli import main as cli
from fieldmark.data.glyphs import MEAN, STD

needs_gallery = pytest.mark.skipif(
    importlib.util.find_spec("lancedb") is None, reason="lancedb is not installed (extra: gallery)"
)
SEEN = {"manifest": {"size": [32, 32], "fit": "crop"}}  # images at its training


@pytest.fixture(scope="module")
def glyphs():
    return data.load("glyphs", split="test")


@pytest.fixture
def model(tmp_path):
    """A file of a model that was not trained: the way is the same, only the answers are worse."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(backbones.create("conv4"), MEAN, STD)
    path = tmp_path / "model.safetensors"
    save_model(path, encoder, SEEN)
    return path


def check(found: demo_gallery.NewScript, out) -> None:
    facts = found.facts
    assert facts["enrolled"] == 16
    assert facts["strangers"] == demo_gallery.STRANGERS
    assert facts["right"] + facts["wrong"] + facts["turned_away"] == pytest.approx(1)
    assert facts["right"] > 1 / 16  # better than guessing, even untrained
    assert facts["turned_away"] < 0.3
    assert str(facts["asked"]) in found.line
    html = demo_gallery.section(found, out)
    links = re.findall(r"href='([^']+)'", html)
    assert links
    assert all((out / link).read_text(encoding="utf-8").startswith("<!doctype html>") for link in links)
    assert "http" not in html
    for one in found.examples:
        assert one.answer.rejected == (one.page.stem == "stranger")
        assert (one.answer.top[0][0] == one.truth) == (one.page.stem == "recognised")


@needs_gallery
def test_a_new_script_in_a_gallery(model, glyphs, tmp_path):
    from fieldmark.gallery import Gallery

    found = demo_gallery.enroll_new_script(model, tmp_path, glyphs, seed=0)
    check(found, tmp_path)
    assert found.gallery == tmp_path / "gallery"
    assert f"--gallery {found.gallery}" in demo_gallery.section(found, tmp_path)
    assert len(Gallery.open(found.gallery)) == 16 * demo_gallery.PHOTOS
    # Once more: nothing is enrolled twice, and the answers are the same.
    again = demo_gallery.enroll_new_script(model, tmp_path, glyphs, seed=0)
    assert len(Gallery.open(found.gallery)) == 16 * demo_gallery.PHOTOS
    assert {**again.facts, "seconds_to_enroll": 0} == {**found.facts, "seconds_to_enroll": 0}


@needs_gallery
def test_the_gallery_of_another_model_is_made_anew(model, glyphs, tmp_path):
    demo_gallery.enroll_new_script(model, tmp_path, glyphs, seed=0)
    other = tmp_path / "other.safetensors"
    save_model(other, Encoder(backbones.create("conv4"), MEAN, STD), SEEN)
    check(demo_gallery.enroll_new_script(other, tmp_path, glyphs, seed=0), tmp_path)


def test_without_the_packages_of_a_gallery(model, glyphs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    found = demo_gallery.enroll_new_script(model, tmp_path, glyphs, seed=0)
    check(found, tmp_path)
    assert found.gallery is None
    assert not (tmp_path / "gallery").exists()
    assert "fieldmark predict" not in demo_gallery.section(found, tmp_path)
    err = capsys.readouterr().err
    assert "fieldmark[gallery]" in err
    assert err.count("\n") == 1


@needs_gallery
def test_memory_and_gallery_answer_alike(model, glyphs, tmp_path, monkeypatch):
    stored = demo_gallery.enroll_new_script(model, tmp_path / "a", glyphs, seed=0)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    kept = demo_gallery.enroll_new_script(model, tmp_path / "b", glyphs, seed=0)
    for name in ("right", "wrong", "turned_away", "strangers_turned_away"):
        assert kept.facts[name] == pytest.approx(stored.facts[name], abs=0.02), name


def test_the_example_is_a_typical_one():
    confidence = [0.9, 0.1, 0.5, 0.7, 0.3]
    assert demo_gallery._typical(confidence, np.ones(5, bool)) == 2
    assert demo_gallery._typical(confidence, np.array([True, False, False, True, False])) == 0


@pytest.mark.slow
def test_the_whole_demo(tmp_path, capsys):
    assert cli.main(["demo", "--quick", "--out", str(tmp_path), "--episodes", "20"]) == 0
    out = capsys.readouterr().out
    assert "characters of a new script (armenian) enrolled" in out
    record = json.loads((tmp_path / "demo.json").read_text())
    assert record["new_script"]["asked"] == 160
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A new script, enrolled" in page
    for link in re.findall(r"href='(evidence/[^']+)'", page):
        assert (tmp_path / link).exists()
