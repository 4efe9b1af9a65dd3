"""The structured layer against the official code's numbers, and its written-out descent against torch's."""

import jaxtyping
import numpy as np
import ot
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from fieldmark import heads
from fieldmark.errors import FieldmarkError
from fieldmark.functional.transport import SOLVERS
from fieldmark.heads.structured_fc import Descent, fit, in_order_of_content

OPTIONS = {"variant": "code", "centre": True, "weights": "cross_reference", "temperature": 12.5}


def sets(maps):
    return torch.tensor(maps).flatten(2).mT.contiguous().unsqueeze(0)


@pytest.mark.parametrize(
    ("name", "lr", "weight_gradient"),
    [("opencv_lr0p1", 0.1, False), ("opencv_lr100", 100.0, False), ("qpth_lr100", 100.0, True)],
)
def test_official_layer(golden, name, lr, weight_gradient):
    arrays = golden(f"deepemd_sfc_{name}")
    support, start = sets(arrays["support"]), sets(arrays["init"])
    batches = [batch for order in torch.tensor(arrays["perms"]) for batch in order.split(4)]
    descent = Descent(lr, weight_gradient=weight_gradient)
    options = {**OPTIONS, "solver": SOLVERS.create("simplex")}
    for key, count in (("after_first_sgd_step", 1), ("after_first_pass", 7), ("sfc", len(batches))):
        ours = fit(support, torch.arange(25).unsqueeze(0) % 5, start, batches[:count], descent, **options)
        expected = sets(arrays[key])
        assert (ours - expected).norm() / (expected - start).norm() < 1e-4, key


@pytest.fixture
def episodes():
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2, 2], [2, 2, 1, 0, 1, 0, 0]])
    draw = torch.randn(2, 12, 3, 6, generator=generator, dtype=torch.float64)
    return draw[:, :7], labels, draw[:, 7:]


def flow_of(cost, a, b):
    return torch.from_numpy(ot.emd((a / a.sum()).numpy(), (b / b.sum()).numpy(), cost.numpy()))


def logits_of(query, classes, centre, weights, offset):
    """Scores of one episode by autograd: flows (and weights) as constants, flows by another solver."""
    rows = []
    for q in query:
        for p in classes:
            a, b = torch.ones(len(q)), torch.ones(len(p))
            if weights == "cross_reference":
                a, b = (q @ p.mean(0)).relu() + offset, (p @ q.mean(0)).relu() + offset
            a, b = a.detach().double(), b.detach().double()
            u, v = (one - one.mean(-1, keepdim=True) if centre else one for one in (q, p))
            cosines = cosine_similarity(u[:, None], v[None], -1)
            rows.append(12.5 * (cosines * flow_of(1 - cosines.detach(), a, b)).sum())
    return torch.stack(rows).view(len(query), len(classes))


@pytest.mark.parametrize("weights", ["cross_reference", "equal"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("sgd", [{"momentum": 0.9, "dampening": 0.9}, {"momentum": 0.5, "weight_decay": 0.1}, {}])
def test_descent_is_that_of_torch(episodes, variant, weights, sgd):
    support, labels, _ = episodes
    start = torch.stack(
        [torch.stack([x[y == k].mean(0) for k in range(3)]) for x, y in zip(support, labels, strict=True)]
    )
    batches = list(torch.arange(7).repeat(3).split(4))
    centre, offset = (True, 1e-3) if variant == "code" else (False, 1e-12)
    options = {**OPTIONS, "variant": variant, "centre": centre, "weights": weights, "solver": SOLVERS.create("simplex")}
    descent = Descent(0.05, sgd.get("momentum", 0.0), sgd.get("dampening", 0.0), sgd.get("weight_decay", 0.0))
    ours = fit(support, labels, start, batches, descent, **options)
    for e in range(2):
        classes = start[e].clone().requires_grad_()
        optimiser = torch.optim.SGD([classes], 0.05, **sgd)
        for batch in batches:
            loss = cross_entropy(logits_of(support[e, batch], classes, centre, weights, offset), labels[e, batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        torch.testing.assert_close(ours[e], classes.detach(), atol=1e-6, rtol=1e-6)


def test_no_steps_is_the_mean(episodes):
    fitted = heads.StructuredFC(steps=0)(*episodes, 3)
    torch.testing.assert_close(fitted, heads.EMD(shots="mean")(*episodes, 3))


def test_fitting_lowers_the_loss_on_the_support(episodes):
    support, labels, _ = episodes
    before, after = (heads.StructuredFC(steps=steps, lr=1.0)(support, labels, support, 3) for steps in (0, 20))
    target = labels.flatten()
    assert cross_entropy(after.flatten(0, 1), target) < 0.5 * cross_entropy(before.flatten(0, 1), target)


@pytest.mark.parametrize("options", [{}, {"batch_size": 0}, {"variant": "paper"}, {"weight_gradient": True}])
def test_neither_order_nor_names_nor_company_matter(episodes, options):
    support, labels, query = episodes
    head = heads.StructuredFC(steps=4, lr=1.0, **options)
    expected = head(support, labels, query, 3)
    order, renamed = torch.tensor([3, 6, 0, 1, 5, 2, 4]), torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(support[:, order], labels[:, order], query, 3), expected)
    torch.testing.assert_close(head(support, renamed[labels], query, 3)[..., renamed], expected)
    torch.testing.assert_close(head(support[1:], labels[1:], query[1:], 3), expected[1:])
    with torch.inference_mode():
        torch.testing.assert_close(head(support, labels, query, 3), expected)


def test_seed_changes_the_batches(episodes):
    one, other = (heads.StructuredFC(steps=2, lr=1.0, seed=seed)(*episodes, 3) for seed in (0, 1))
    assert (one - other).abs().max() > 1e-3


def test_batches():
    code = list(heads.StructuredFC(steps=2).batches(25))
    assert [len(one) for one in code] == 2 * [4, 4, 4, 4, 4, 4, 1]
    assert torch.equal(torch.cat(code[:7]).sort().values, torch.arange(25))
    assert not torch.equal(torch.cat(code[:7]), torch.cat(code[7:]))
    paper = list(heads.StructuredFC(steps=100, variant="paper").batches(25))
    assert [len(one) for one in paper] == 100 * [5]
    assert all(len(one.unique()) == 5 for one in paper)
    assert np.bincount(torch.cat(paper), minlength=25).min() > 5
    assert [len(one) for one in heads.StructuredFC(steps=2, batch_size=0).batches(7)] == [7, 7]


def test_content_gives_the_order(episodes):
    support, labels, _ = episodes
    order = torch.tensor([4, 2, 0, 6, 5, 1, 3])
    one, other = in_order_of_content(support, labels), in_order_of_content(support[:, order].flip(2), labels[:, order])
    assert torch.equal(one[1], other[1])
    torch.testing.assert_close(one[0], other[0].flip(2))


def test_many_episodes_in_parts(episodes, monkeypatch):
    import sys

    head = heads.StructuredFC(steps=2, lr=1.0)
    expected = head(*episodes, 3)
    monkeypatch.setattr(sys.modules["fieldmark.heads.structured_fc"], "_BYTES_AT_ONCE", 1)
    torch.testing.assert_close(head(*episodes, 3), expected)
    assert head(*(one[:0] for one in episodes), 3).shape == (0, 5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "papers"}, "did you mean 'paper'"),
        ({"weights": "kmeans"}, "unknown weights"),
        ({"solver": "simplx"}, "did you mean 'simplex'"),
        ({"lr": 0.0}, "above 0"),
        ({"steps": -1}, "expected 0 or more"),
        ({"batch_size": -1}, "expected 0 or more"),
        ({"momentum": -0.1}, "expected 0 or more"),
    ],
)
def test_refused_at_construction(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=message):
        heads.create("structured_fc", **options)
