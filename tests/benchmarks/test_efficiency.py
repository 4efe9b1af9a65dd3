"""The floor counts what the layers multiply, and the rows come out on a processor too."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from fieldmark.benchmarks import efficiency
from fieldmark.benchmarks.efficiency import Classifier, Network, Setting
from fieldmark.cli import main as cli

TINY = Setting(torch.device("cpu"), batch=2, matrix=64)


@pytest.mark.parametrize(("backbone", "size"), [("resnet12", 32), ("resnet12", 84), ("conv4", 32)])
def test_operations_are_those_of_the_layers(backbone, size):
    forward, of_images = 0, 0

    def count(layer, given, out):
        nonlocal forward, of_images
        done = 2 * layer.weight.numel() * (out[0, 0].numel() if out.ndim == 4 else 1)
        forward += done
        of_images += done if given[0].shape[1] == 3 else 0

    with torch.device("meta"):
        model = Classifier(backbone).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        model(torch.empty(1, 3, size, size))
    counted = efficiency.operations(backbone, size)
    assert counted["forward"] == forward
    # The gradient of the weights and that of what goes in cost as much as the layer; images need none.
    assert counted["forward and backward"] == 3 * forward - of_images


def test_rows_on_a_processor(monkeypatch):
    monkeypatch.setattr("fieldmark.benchmarks.timing.BLOCK", 0.0)
    found = efficiency.run(1, "conv4", (16,), TINY)
    assert found["skipped"] == []
    rows = found["rows"]
    assert [row["what"].split(",")[1].strip() for row in rows] == [
        "forward", "forward and backward", "loading", "loading alone",
    ]  # fmt: skip
    assert all("cpu, float32, as it is" in row["what"] and "target" not in row for row in rows)
    for row in rows[:3]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
    counted = efficiency.operations("conv4", 16)
    assert rows[0]["peer"] == pytest.approx(rows[0]["matrix_operations_per_second"] / counted["forward"])
    assert rows[1]["peer"] < rows[0]["peer"]  # more to do
    assert rows[3]["peer"] == pytest.approx(rows[1]["ours"])


def test_a_training_step_leaves_all_gradients_and_a_forward_none():
    network = Network("conv4", 16, TINY)
    network.forward()
    assert all(parameter.grad is None for parameter in network.parameters)
    images, labels = next(efficiency.loading(16, TINY))
    assert images.shape == (2, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    first = network.train(images, labels)
    gradients = [parameter.grad.clone() for parameter in network.parameters]
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:1])
    assert network.train(images, labels) == first  # weights stay, gradients do not add up
    for parameter, before in zip(network.parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, before)


def test_command_by_its_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fieldmark.benchmarks.timing.BLOCK", 0.0)
    monkeypatch.setattr(efficiency, "run", partial(efficiency.run, backbone="conv4", sizes=(16,), setting=TINY))
    target = tmp_path / "efficiency.json"
    assert cli.main(["bench", "efficiency", "--repeats", "1", "--json", str(target)]) == 0
    assert "on the processor, for comparison alone" in capsys.readouterr().out
    assert len(json.loads(target.read_text())["benchmarks"]["efficiency"]["rows"]) == 4
