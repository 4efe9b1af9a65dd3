"""Training on episodes gives its head what evaluation gives it."""

import pytest
import torch

from fieldmark import descriptors, heads
from fieldmark.methods import EpisodeBatch
from fieldmark.methods.episodic import EpisodicObjective


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 1]])
    return EpisodeBatch(
        torch.rand(1, 2, 3, 12, 12, generator=generator), labels,
        torch.rand(1, 4, 3, 12, 12, generator=generator), labels.repeat(1, 2), 2,
    )  # fmt: skip


@pytest.fixture
def encode():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 5, 3)


@pytest.mark.parametrize("name", ["dense", "feature_pyramid", "grid"])
def test_the_loss_is_the_heads_on_these_descriptors(batch, encode, name):
    extractor = descriptors.create(name).eval()
    head = heads.create("local_knn")
    sets = [extractor(encode, images[0])[None] for images in (batch.support, batch.query)]
    scores = head(sets[0], batch.support_labels, sets[1], 2)[0]
    expected = -sum(torch.log_softmax(row, 0)[label] for row, label in zip(scores, batch.query_labels[0], strict=True))
    objective = EpisodicObjective(head, descriptors=name).eval()
    torch.testing.assert_close(objective(encode, batch)["loss"], expected / 4)


def test_cells_are_enlarged_at_random_while_the_objective_trains(batch, encode):
    objective = EpisodicObjective(heads.create("local_knn"), descriptors="grid")
    assert len({objective(encode, batch)["loss"].item() for _ in range(3)}) == 3
    objective.eval()
    assert len({objective(encode, batch)["loss"].item() for _ in range(3)}) == 1


def test_heads_on_pooled_vectors_encode_the_images_alone(batch, encode):
    seen = []
    objective = EpisodicObjective(heads.create("prototype"), descriptors="grid")
    objective(lambda images: seen.append(len(images)) or encode(images), batch)
    assert seen == [6]
