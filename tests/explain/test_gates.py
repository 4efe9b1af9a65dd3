"""Pictures of gates: the channels against the equations, a run's own interaction, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, data
from fieldmark.backbones import Encoder, load_model
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError
from fieldmark.explain import gates, gates_picture, interaction_of
from fieldmark.methods.pairwise_interaction import PairwiseInteraction
from fieldmark.training import make_recipe, train
from fieldmark.training.checkpoints import load_state

RECIPE = {
    "name": "pairs",
    "data": {"name": "glyphs"},
    "backbone": {"name": "conv4", "options": {"channels": 8}},
    "stages": [
        {
            "name": "pairs", "objective": {"name": "apinet", "options": {"hidden": 4}}, "epochs": 1, "batch_size": 8,
            "images_per_class": 2, "steps_per_epoch": 3,
        }
    ],
    "trainer": {"accelerator": "cpu"},
}  # fmt: skip


def encoder(seed=0, channels=8):
    torch.manual_seed(seed)
    return Encoder(backbones.create("conv4", channels=channels), mean=(0.5,) * 3, std=(0.25,) * 3).eval()


def images(size=32):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short training."""
    return train(make_recipe(RECIPE), tmp_path_factory.mktemp("runs"))


def test_channels_and_maps_are_those_of_the_gates():
    model, plain = encoder(), encoder(1)
    torch.manual_seed(2)
    interaction = PairwiseInteraction(8, "mlp", hidden=4)
    found = gates(model, interaction, *images(), baseline=plain, channels=3, size=32)
    batch = torch.from_numpy(images()).permute(0, 3, 1, 2)
    with torch.no_grad():
        maps, others = model(batch), plain(batch)
    x = maps.mean((2, 3))
    with torch.no_grad():
        mutual = interaction.layers(torch.cat([x[0], x[1]]))
    for number, view in enumerate(found.views):
        gate = 1 / (1 + torch.exp(-mutual * x[number]))
        order = sorted(range(8), key=lambda c: -float(gate[c]))[:3]
        assert view.channels == order
        assert view.gate == pytest.approx([float(gate[c]) for c in order])
        assert np.allclose(view.maps, maps[number, order].numpy(), atol=1e-6)
        assert np.allclose(view.baseline, others[number, order].numpy(), atol=1e-6)
    assert found.views[0].guess is None


def test_the_image_shown_is_what_the_model_sees():
    model = encoder()
    model.crop = 32
    found = gates(model, PairwiseInteraction(8, "sum"), *images(48), size=48)
    assert np.array_equal(found.views[1].image, images(48)[1, 8:40, 8:40])


def test_a_run_has_its_interaction(run):
    interaction = interaction_of(run)
    kept = load_state(run / "stages" / "pairs" / "last.ckpt")["model"]
    for key, value in interaction.state_dict().items():
        assert torch.equal(value, kept[f"objective.interaction.{key}"])
    assert not interaction.training
    found = gates(load_model(run)[0], interaction, *images())
    assert 0 < found.views[0].guess.probability <= 1
    assert found.views[0].guess.name in data.load("glyphs", split="train").class_names


def test_command(run, tmp_path, capsys):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, images(), strict=True):
        Image.fromarray(image).save(path)
    out = tmp_path / "gates.png"
    words = ["explain", *map(str, paths), "--gates", "--model", str(run), "--out", str(out)]
    assert cli.main([*words, "--baseline", str(run), "--channels", "4"]) == 0
    assert "channels that the gates open most" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.size[0] == 1560
    assert cli.main([*words, "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [len(one["channels"]) for one in record["images"]] == [5, 5]
    assert cli.main([*words, "--channels", "0"]) == 2
    assert "--channels is 0; expected 1 to 8" in capsys.readouterr().err
    words[words.index(str(run))] = str(run / "model.safetensors")
    assert cli.main(words) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_the_baseline_makes_a_second_row():
    heights = []
    for baseline in (None, encoder(1)):
        found = gates(encoder(), PairwiseInteraction(8, "sum"), *images(), baseline=baseline, size=32)
        heights.append(gates_picture(found).get_size_inches()[1])
    assert heights[1] > heights[0] + 1


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(FieldmarkError, match="the interaction is for 4 channels and the model has 8"):
        gates(encoder(), PairwiseInteraction(4, "sum"), *images(), size=32)
    with pytest.raises(FieldmarkError, match="the baseline has 4 channels and the model 8"):
        gates(encoder(), PairwiseInteraction(8, "sum"), *images(), baseline=encoder(channels=4), size=32)
    with pytest.raises(FieldmarkError, match="channels is 0"):
        gates(encoder(), PairwiseInteraction(8, "sum"), *images(), channels=0, size=32)
    stage = {"name": "c", "objective": "cross_entropy", "epochs": 1, "batch_size": 8, "steps_per_epoch": 1}
    other = train(make_recipe({**RECIPE, "stages": [stage]}), tmp_path)
    with pytest.raises(FieldmarkError, match="its last stage 'c' trains cross_entropy; expected apinet"):
        interaction_of(other)
