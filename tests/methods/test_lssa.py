"""The objective lssa: its loss is the head's, and its parts are built for the backbone."""

import jaxtyping
import pytest
import torch

from fieldmark import methods
from fieldmark.errors import FieldmarkError
from fieldmark.methods import EpisodeBatch


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(2, 1)
    images = [torch.rand(2, count, 3, 8, 8, generator=generator) for count in (3, 6)]
    return EpisodeBatch(images[0], labels, images[1], labels.repeat(1, 2), 3)


def test_the_loss_is_equation_9(batch):
    torch.manual_seed(0)
    objective = methods.create("lssa")
    objective.setup(channels=5, classes=10)
    encode = torch.nn.Conv2d(3, 5, 3, stride=2)
    objective.eval()  # statistics that do not depend on the batch
    found = objective(encode, batch)
    total = 0.0
    for episode in range(2):
        support, query = (encode(images[episode]) for images in (batch.support, batch.query))
        head = objective.head
        for number, label in enumerate(batch.query_labels[episode].tolist()):
            target, distances = head.enhance(query[number : number + 1]), []
            for image in support:
                other = head.enhance(image.unsqueeze(0))
                moved = head.manipulate(head.correspond(target, other), target)
                distances.append(-(moved - target).square().sum(1).mean())
            total -= torch.stack(distances).log_softmax(0)[label].item()
    assert found["loss"].item() == pytest.approx(total / 12, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"enhance", "correspond", "manipulate"}),
        ({"manipulation": False}, {"enhance", "correspond"}),
        ({"foreground": "none"}, {"correspond", "manipulate"}),
        ({"foreground": "mask", "correspondence": False, "manipulation": False}, set()),
        ({"foreground": "features", "reduce": False, "manipulation": False}, {"enhance"}),
    ],
)
def test_each_part_can_be_switched_off(options, parts, batch):
    objective = methods.create("lssa", **options)
    objective.setup(channels=3, classes=10)
    assert {name.split(".")[1] for name in objective.state_dict()} == parts
    assert objective.head.learned == bool(parts)
    assert torch.isfinite(objective(lambda images: images, batch)["loss"])


def test_wrong_options_are_refused_where_it_is_made(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match="did you mean 'full'"):
        methods.create("lssa", foreground="ful")
    with pytest.raises(FieldmarkError, match="did you mean 'manipulation'"):
        methods.create("lssa", manipulations=True)
