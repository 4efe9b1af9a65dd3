"""Every trained model that comes with fieldmark: offline, by name as by file, with what belongs to it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fieldmark import backbones, data, evaluate_few_shot, explain, training
from fieldmark.backbones import Encoder, as_encoder, load_model, save_model, zoo
from fieldmark.backbones.checkpoint import read_header
from fieldmark.cli import main as cli
from fieldmark.cli.models import find_model, image_size
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import load_record
from fieldmark.evaluation.leakage import require_new_classes

ROOT = Path(__file__).resolve().parents[2]
CARDS = [pytest.param(card, id=card.name) for card in zoo.cards()]
GLYPHS = "conv4/protonet-glyphs"
MOST = 40 * 2**20  # bytes of the whole repository


@pytest.fixture
def offline(monkeypatch):
    """Any look at the network is an error."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def images(card, count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *card.facts["size"]), generator=generator, dtype=torch.uint8)


def test_there_are_models():
    assert {"conv4/scl-cifar_fs", "conv4/ce-fc100", GLYPHS} <= set(zoo.names())


@pytest.mark.parametrize("card", CARDS)
def test_name_says_architecture_method_and_data(card):
    header = read_header(card.file)
    facts = json.loads(header["facts"])
    method, _, trained_on = card.name.partition("/")[2].partition("-")
    assert card.name.startswith(f"{header['backbone']}/")
    assert trained_on == facts["manifest"]["name"]
    last = card.facts["objectives"][-1]
    assert method == {"cross_entropy": "ce"}.get(last, last)
    assert f"objective:\n    name: {last}" in facts["recipe_yaml"]


@pytest.mark.parametrize("card", CARDS)
def test_weights_are_float16_and_small(card):
    with safe_open(card.file, framework="pt") as file:
        kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 (not a dict)
    assert kinds <= {"F16", "I64"}
    assert sum(one.file.stat().st_size for one in zoo.cards()) < MOST


@pytest.mark.parametrize("card", CARDS)
def test_by_name_as_by_file_without_a_network(card, offline):
    by_file, facts = load_model(card.file)
    by_name, same = load_model(card.name)
    assert same == facts
    backbone = backbones.create(card.name)
    found, known = find_model(card.name, torch.device("cpu"))
    given = images(card)
    with torch.no_grad():
        expected = by_file(given)
        assert torch.isfinite(expected).all()
        assert expected.std() > 0
        assert tuple(expected.shape[1:]) == tuple(card.facts["map"])
        for encoder in (by_name, Encoder(backbone).eval(), found, as_encoder(backbone, (0.5,) * 3, (0.5,) * 3)):
            assert torch.equal(encoder(given), expected)
    assert image_size(found, known) == card.facts["size"][0] == backbone.default_size
    assert known["training_classes"] == facts["training_classes"]
    assert known["trained"] is True


@pytest.mark.parametrize("card", CARDS)
def test_created_backbone_is_as_every_other(card):
    backbone = backbones.create(card.name)
    assert backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.facts["model"] == card.name
    assert backbone.facts["pretrained"] is True
    rebuilt = backbones.create(backbone.name, **backbone.options)  # the architecture alone
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in backbone.state_dict().items()
    }
    fresh = backbones.create(card.name, pretrained=False)
    assert fresh.facts["pretrained"] is False
    assert (fresh.mean, fresh.std, fresh.default_size) == (backbone.mean, backbone.std, backbone.default_size)
    weight = next(iter(backbone.state_dict()))
    assert not torch.equal(fresh.state_dict()[weight], backbone.state_dict()[weight])
    facts = backbones.describe(card.name)
    assert list(facts.output_shape) == card.facts["map"]
    assert facts.parameters == card.facts["parameters"] == sum(p.numel() for p in backbone.parameters())
    assert facts.pretraining == card.facts["data"]
    assert card.facts["licence_of_data"] in facts.licence


def test_glyphs_give_the_recorded_accuracy():
    record = load_record(ROOT / "results" / "glyphs_conv4_1shot.json")
    row = next(
        row for row in record["rows"] if record["models"][row["model"]]["trained"] and row["head"] == "prototype"
    )
    encoder, facts = load_model(GLYPHS)
    test = data.load("glyphs", split="test")
    result = evaluate_few_shot(encoder, test, episodes=row["count"], seed=row["protocol"]["seed"], facts=facts)
    assert result.episodes.hash == row["episode_hash"]
    # A query on the border between two classes may fall to the other side on another processor.
    assert result.accuracy == pytest.approx(row["mean"], abs=1e-3)


def test_command_takes_the_name(tmp_path, capsys):
    target = tmp_path / "result.json"
    words = ["eval", GLYPHS, "--data", "glyphs", "--episodes", "20", "--baseline", "untrained", "--json", str(target)]
    assert cli.main(words) == 0, capsys.readouterr().err
    rows = json.loads(target.read_text())["rows"]
    assert rows[0]["model"] == GLYPHS
    assert rows[0]["mean"] > 0.85 > rows[1]["mean"] + 0.1
    assert cli.main(["eval", GLYPHS, "--data", "glyphs", "--split", "train", "--episodes", "5"]) == cli.EXIT_BAD_INPUT
    assert "test classes were in the model's training" in capsys.readouterr().err


def test_backbones_are_listed_with_their_cards(capsys):
    assert cli.main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert cli.main(["backbones", "--json", "-"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    for name in zoo.names():
        assert name in out
        assert rows[name]["card"]["measured"]
        assert set(rows["conv4"]) <= set(rows[name])
        assert rows[name]["card"]["commit"][:12] in out


def test_explanations_take_it(tmp_path):
    rng = np.random.default_rng(0)
    query, support = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    found = explain.match(backbones.create("conv4/scl-cifar_fs").eval(), query, support)
    assert found.flow.shape == (16, 16)


@pytest.mark.parametrize("ask", [backbones.create, load_model, lambda name: find_model(name, torch.device("cpu"))])
def test_unknown_names_suggest_the_nearest(ask):
    with pytest.raises(
        FieldmarkError, match=r"^unknown trained model 'conv4/scl-cifarfs'; did you mean 'conv4/scl-cifar_fs'"
    ):
        ask("conv4/scl-cifarfs")


def test_paths_are_still_paths(tmp_path, monkeypatch):
    with pytest.raises(FieldmarkError, match="no model at runs/nothing; expected a run folder"):
        find_model("runs/nothing", torch.device("cpu"))
    with pytest.raises(FieldmarkError, match="no model at"):
        load_model("conv4/model.safetensors")
    monkeypatch.chdir(tmp_path)
    own = Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.5,) * 3)
    save_model(f"{GLYPHS}/model.safetensors", own)
    assert load_model(GLYPHS)[0].channels == 8  # what lies here comes first
    run = Path(GLYPHS).parent / "own"
    run.mkdir()
    with pytest.raises(FieldmarkError, match=rf"a path; fieldmark.load_model\('{run}'\) reads it$"):
        backbones.create(str(run))


def test_the_nearest_of_a_plain_name_may_be_a_trained_model():
    with pytest.raises(FieldmarkError, match=r"did you mean 'conv4/scl-fc100'\?"):
        backbones.create("conv4_scl-fc100")


def test_options_are_the_files(tmp_path):
    assert backbones.create("conv4/ce-fc100", last_pool=False).options == {"last_pool": False}
    with pytest.raises(FieldmarkError, match=r"^last_pool of trained model 'conv4/ce-fc100' is False, not True; leave"):
        backbones.create("conv4/ce-fc100", last_pool=True)
    with pytest.raises(FieldmarkError, match="did you mean 'last_pool'"):
        backbones.create("conv4/ce-fc100", last_pol=True)
    projected = backbones.create("conv4/ce-fc100", project=8)
    assert (projected.name, projected.options) == ("conv4", {"last_pool": False, "project": 8})
    assert projected.mean == backbones.create("conv4/ce-fc100").mean
    path = save_model(tmp_path / "model.safetensors", Encoder(projected))
    given = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(load_model(path)[0](given), Encoder(projected).eval()(given))


def test_a_recipe_starts_from_it_and_knows_its_classes(tmp_path):
    overrides = {
        "backbone": {"name": "conv4/ce-fc100"}, "data.size": 32, "stages.classify.epochs": 1,
        "stages.classify.steps_per_epoch": 1, "stages.classify.batch_size": 8, "stages.classify.optimizer.lr": 1e-30,
        "stages.classify.validation": None, "stages.episodes.epochs": 1, "stages.episodes.steps_per_epoch": 1,
        "stages.episodes.optimizer.lr": 1e-30, "stages.episodes.validation": None, "evaluations": [],
    }  # fmt: skip
    run = training.train(training.load_recipe("baseline/glyphs_conv4", overrides), tmp_path)
    encoder, facts = load_model(run)
    start = backbones.create("conv4/ce-fc100")
    assert (encoder.backbone.name, encoder.backbone.options) == ("conv4", {"last_pool": False})
    assert torch.equal(encoder.backbone.layer1[0].weight, start.layer1[0].weight)
    assert encoder.mean.flatten().tolist() == pytest.approx(start.mean)
    assert set(facts["training_classes"]) == {"glyphs", "fc100"}
    assert facts["pretraining"] == "none"
    known = facts["training_classes"]["fc100"]
    store = data.ImageStore.from_arrays(
        np.zeros((2, 4, 4, 3), np.uint8), [0, 1], [known[0], "never seen"], data.Manifest("fc100")
    )
    assert require_new_classes(facts, store, allow=True) == [known[0]]


@pytest.mark.slow
def test_a_wheel_brings_them(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="setuptools cannot build the wheel here")
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".git", ".venv", "data", "build", "*.egg-info", "episodes", "__pycache__", "runs")
    shutil.copytree(
        ROOT, source, symlinks=True, ignore=lambda at, names: left_out(at, names) if Path(at) == ROOT else []
    )
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = {name: file.getinfo(name).file_size for name in file.namelist()}
        file.extractall(tmp_path / "installed")
    for card in zoo.cards():
        assert held[f"fieldmark/models/{card.file.name}"] == card.file.stat().st_size
        assert f"fieldmark/models/cards/{card.file.stem}.json" in held
    assert sum(name.endswith(f"{zoo.cards()[0].file.name}") for name in held) == 1
    code = (
        "from fieldmark import backbones as b; print(b.zoo.models_folder(), *b.zoo.names()); b.create(b.zoo.names()[0])"
    )
    installed = str(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": installed},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(Path(installed, "fieldmark", "models")), *zoo.names()]
