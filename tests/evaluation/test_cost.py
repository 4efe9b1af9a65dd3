"""Cost of a head and an encoder: sane, measured on the side, and counted as said."""

import time

import numpy as np
import pytest
import torch

from fieldmark import backbones, data, heads
from fieldmark.data import draw_episodes
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import evaluate_few_shot, evaluate_heads
from fieldmark.evaluation.cost import _peak, head_cost
from fieldmark.heads.base import Head


@pytest.fixture(scope="module")
def index():
    return draw_episodes(np.repeat(np.arange(6), 12), way=5, shot=2, queries=4, episodes=6, seed=0)


class Slow(Head):
    """Works for a known time to fit, and for a known time a query; holds a known amount of memory."""

    descriptors = "pooled"
    fit, each, held = 0.02, 0.003, 1_000_000

    def scores(self, support, labels, query, way):
        threads = torch.get_num_threads()
        assert threads == 1
        end = time.process_time() + self.fit + self.each * query.shape[1]
        while time.process_time() < end:
            pass
        first = torch.zeros(self.held)  # float32
        second = first + 1
        del first
        third = second + 1
        return third[0] * torch.zeros(len(query), query.shape[1], way)


def test_time_and_memory_are_those_of_the_head(index):
    torch.set_num_threads(2)
    try:
        cost = head_cost(Slow(), index, torch.zeros(72, 1, 16), episodes=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    queries = 20
    assert cost.queries == queries
    assert cost.milliseconds_per_query == pytest.approx(1e3 * (Slow.fit / queries + Slow.each), rel=0.4)
    assert cost.milliseconds_one_query == pytest.approx(1e3 * (Slow.fit + Slow.each), rel=0.4)
    assert 8 * Slow.held <= cost.peak_bytes_one_query < 8 * Slow.held + 10_000  # two tensors at once, never three
    assert (cost.support_bytes_per_class, cost.descriptors, cost.episodes) == (2 * 16 * 4, (1, 16), 3)


def test_what_was_there_before_is_not_counted():
    given = torch.zeros(100_000)
    assert _peak(lambda: given.view(10, -1)) == 0
    assert _peak(lambda: given[:1000] + 1) >= 4000


def test_support_in_copies_is_all_kept(index):
    copies = torch.randn(3, 72, 9, 8)
    cost = head_cost(heads.create("local_knn"), index, torch.randn(72, 9, 8), copies, episodes=1)
    assert cost.support_bytes_per_class == 3 * 2 * 9 * 8 * 4
    assert cost.descriptors == (9, 8)


def test_no_episodes_are_refused(index):
    with pytest.raises(FieldmarkError, match="0 episodes; expected at least 1"):
        head_cost(heads.create("prototype"), index, torch.zeros(72, 1, 4), episodes=0)


def test_cost_stands_beside_accuracy_and_changes_nothing():
    glyphs = data.load("glyphs", split="test")
    glyphs = glyphs.subset(np.flatnonzero(glyphs.labels < 8))
    model = backbones.create("conv4").eval()
    how = {"way": 5, "shot": 1, "queries": 3, "episodes": 10}
    found = evaluate_heads(model, glyphs, {"a": "prototype", "b": "local_knn"}, cost_episodes=2, **how)
    for key, name in (("a", "prototype"), ("b", "local_knn")):
        plain = evaluate_few_shot(model, glyphs, head=name, **how)
        np.testing.assert_array_equal(found[key].predicted, plain.predicted)
        assert "cost" not in plain.to_dict()
        cost = found[key].to_dict()["cost"]
        assert cost["milliseconds_per_query"] > 0
        assert cost["milliseconds_one_query"] > cost["milliseconds_per_query"]
        assert cost["encoder_milliseconds_per_image"] > 0
        assert cost["peak_bytes_one_query"] > 0
    assert found["b"].cost["support_bytes_per_class"] == 4 * found["a"].cost["support_bytes_per_class"]  # 2 x 2 places
