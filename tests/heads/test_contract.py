"""What every registered head keeps, whatever its name."""

import pytest
import torch

from fieldmark import heads
from fieldmark.errors import FieldmarkError

E, WAY, SHOT, Q, N, C = 3, 4, 2, 5, 4, 12


def names():
    return heads.names()


@pytest.fixture
def episodes():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(E, WAY, 1, C, generator=generator, dtype=torch.float64)
    labels = torch.arange(WAY).repeat(SHOT).expand(E, -1)
    support = centres[:, labels[0]] + torch.randn(E, WAY * SHOT, N, C, generator=generator, dtype=torch.float64)
    query = centres[:, :1] + torch.randn(E, Q, N, C, generator=generator, dtype=torch.float64)
    return support, labels, query


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("local", [False, True])
class TestEveryHead:
    def sets(self, episodes, local):
        support, labels, query = episodes
        return (support, labels, query) if local else (support[:, :, :1], labels, query[:, :, :1])

    def test_shape_and_type(self, episodes, name, local):
        head = heads.create(name)
        assert head.descriptors in ("pooled", "local")
        support, labels, query = self.sets(episodes, local)
        scores = head(support, labels, query, WAY)
        assert scores.shape == (E, Q, WAY)
        assert scores.dtype == torch.float64
        assert head(support.float(), labels, query.float(), WAY).dtype == torch.float32

    def test_order_of_support(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        order = torch.randperm(WAY * SHOT, generator=torch.Generator().manual_seed(1))
        head = heads.create(name)
        close(head(support[:, order], labels[:, order], query, WAY), head(support, labels, query, WAY))

    def test_names_of_classes(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        renamed = torch.tensor([2, 0, 3, 1])
        head = heads.create(name)
        close(head(support, renamed[labels], query, WAY)[..., renamed], head(support, labels, query, WAY))

    def test_order_of_queries(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        order = torch.tensor([3, 0, 4, 1, 2])
        head = heads.create(name)
        close(head(support, labels, query[:, order], WAY), head(support, labels, query, WAY)[:, order])

    def test_order_of_descriptors(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        head = heads.create(name)
        close(head(support.flip(2), labels, query.roll(1, 2), WAY), head(support, labels, query, WAY))

    def test_one_by_one(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        head = heads.create(name)
        single = [head(support[e : e + 1], labels[e : e + 1], query[e : e + 1], WAY) for e in range(E)]
        close(torch.cat(single), head(support, labels, query, WAY))

    def test_unequal_shots(self, episodes, name, local):
        support, _, query = self.sets(episodes, local)
        labels = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 3], [3, 2, 1, 0, 3, 3, 2, 2], [0, 1, 2, 3, 0, 1, 2, 3]])
        assert torch.isfinite(heads.create(name)(support, labels, query, WAY)).all()

    def test_finds_the_class(self, episodes, name, local):
        """A support image as query is recognised, with a probability above chance."""
        support, labels, _ = self.sets(episodes, local)
        scores = heads.create(name)(support, labels, support, WAY)
        probability = torch.softmax(scores, -1).gather(-1, labels.unsqueeze(-1))
        assert (scores.argmax(-1) == labels).double().mean() > 0.7
        assert probability.mean() > 1 / WAY

    def test_gradient_reaches_the_query(self, episodes, name, local):
        support, labels, query = (t.clone() for t in self.sets(episodes, local))
        query.requires_grad_()
        support.requires_grad_()
        heads.create(name)(support, labels, query, WAY)[..., 0].sum().backward()
        assert torch.isfinite(query.grad).all()
        assert query.grad.abs().sum() > 0
        if name != "logistic":
            assert torch.isfinite(support.grad).all()
            assert support.grad.abs().sum() > 0

    def test_works_without_autograd(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        head = heads.create(name)
        expected = head(support, labels, query, WAY)
        with torch.inference_mode():
            close(head(support, labels, query, WAY), expected)

    def test_empty_class_is_refused(self, episodes, name, local):
        support, labels, query = self.sets(episodes, local)
        with pytest.raises(FieldmarkError, match="class 3 of episode 0 has no support image"):
            heads.create(name)(support, labels.clamp(max=2), query, WAY)


@pytest.mark.parametrize("entry", list(heads.HEADS), ids=names())
def test_entry_says_what_it_is(entry):
    assert entry.summary
    assert entry.source


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 8), (2, 4), (2, 3, 8)), "expected .episodes, images"),
        (((2, 4, 1, 8), (2, 4), (2, 3, 1, 7)), "differ in"),
        (((2, 4, 1, 8), (2, 5), (2, 3, 1, 8)), "support labels .2, 5.; expected .2, 4."),
        (((2, 0, 1, 8), (2, 0), (2, 3, 1, 8)), "the support set is empty"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    support, labels, query = shapes
    with pytest.raises(FieldmarkError, match=message):
        heads.check_episodes(torch.ones(support), torch.zeros(labels, dtype=torch.long), torch.ones(query), 1)
