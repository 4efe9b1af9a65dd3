"""A head that was trained with a model, on the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fieldmark import backbones, heads
from fieldmark.backbones import Encoder, load_model, save_model
from fieldmark.cli import main as cli
from fieldmark.heads.trained import keep

BASE = ("--data", "glyphs", "--split", "test", "--way", "3", "--queries", "3", "--episodes", "8")
NAME = "spatial_alignment"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    head = heads.create(NAME, foreground="features", reduce=True, temperature=0.2)
    head.setup(8)
    backbone = backbones.create("conv4", channels=8, last_pool=False)
    encoder = Encoder(backbone, (0.5,) * 3, (0.3,) * 3, head=keep(head))
    return save_model(tmp_path / "model.safetensors", encoder, {"manifest": {"size": [32, 32]}})


def run(capsys, *words):
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_eval_tests_what_was_trained(model, capsys):
    status, out, err = run(capsys, "eval", model, *BASE, "--head", f"{NAME},prototype", "--json", "-")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert rows[0]["head_options"] == load_model(model)[0].head.options
    assert rows[0]["head_options"]["temperature"] == 0.2
    assert rows[1]["head_options"] == {}
    status, out, err = run(
        capsys, "eval", model, *BASE, "--head", NAME, "--head-option", "foreground=none", "--json", "-"
    )
    assert status == 0, err
    assert json.loads(out)["rows"][0]["head_options"]["foreground"] == "none"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head-option", "manipulation=true"), "has a part 'manipulate' that was not trained with this model"),
        (("--head-option", "reduce=true", "--baseline", "untrained"), "untrained: head 'spatial_alignment' with these"),
    ],
)
def test_what_was_not_trained_is_one_line_before_any_data_is_read(model, capsys, monkeypatch, words, message):
    from fieldmark import data

    monkeypatch.setattr(data, "load", lambda *a, **k: pytest.fail("data was read"))
    status, _, err = run(capsys, "eval", model, *BASE, "--head", NAME, *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_the_untrained_model_has_no_head_and_is_aligned_without_one(model, capsys):
    status, out, err = run(capsys, "eval", model, *BASE, "--head", NAME, "--baseline", "untrained", "--json", "-")
    assert status == 0, err
    first, second = json.loads(out)["rows"]
    assert first["head_options"]["reduce"] is True
    assert second["head_options"] == {}


def test_half_a_model_keeps_its_head(model, tmp_path, capsys):
    out = tmp_path / "half.safetensors"
    assert run(capsys, "convert", model, "--from", "fieldmark", "--half", "--out", out)[0] == 0
    one, two = load_model(model)[0].head, load_model(out)[0].head
    assert (one.name, one.options, set(one.weights)) == (two.name, two.options, set(two.weights))
    for key, value in one.weights.items():
        torch.testing.assert_close(two.weights[key], value, rtol=1e-3, atol=1e-4)
    halves = {
        value.dtype for key, value in load_file(out).items() if key.startswith("head.") and value.is_floating_point()
    }
    assert halves == {torch.float16}
