"""Options of single heads: what they change, and what is refused where the head is made."""

import jaxtyping
import pytest
import torch
from torch.nn.functional import cross_entropy

from fieldmark import functional, heads
from fieldmark.errors import FieldmarkError


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("prototype", {"metric": "cosin"}, "did you mean 'cosine'"),
        ("prototype", {"transform": "center_l2"}, "did you mean 'centre_l2'"),
        ("prototype", {"centre": [0.0]}, "use 'centre_l2'"),
        ("nearest", {"metric": "l1"}, "unknown metric"),
        ("matching", {"scale": 0.0}, "above 0"),
        ("local_knn", {"k": 0}, "expected at least 1"),
        ("fusion", {"scale": -1.0}, "above 0"),
        ("logistic", {"C": -1.0}, "above 0"),
        ("linear", {"optimiser": "adams"}, "did you mean 'adam'"),
        ("cosine_classifier", {"steps": -1}, "expected 0 or more"),
        ("linear", {"learning_rate": 1.0}, "unknown option"),
        ("emd", {"temperature": "abc"}, "temperature of head emd is 'abc'; expected a number"),
        ("emd", {"temperature": float("inf")}, "above 0"),
        ("emd", {"temperature": True}, "expected a number"),
        ("emd", {"clusters": 1.5}, "expected a whole number"),
        ("emd", {"bandwidth": "wide"}, "expected a number or null"),
        ("emd", {"centre": "maybe"}, "expected true or false or null"),
        ("emd", {"weights": ["equal"]}, "expected a name"),
        ("emd", {"shots": None}, "expected a name"),
        ("emd", {"solver": "simplx"}, "did you mean 'simplex'"),
        ("structured_fc", {"lr": "fast"}, "expected a number"),
    ],
)
def test_refused_at_construction(name, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=message):
        heads.create(name, **options)


@pytest.fixture
def episodes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(4).expand(2, -1)
    support = torch.randn(2, 12, 1, 6, generator=generator, dtype=torch.float64) + labels[..., None, None]
    query = torch.randn(2, 5, 1, 6, generator=generator, dtype=torch.float64) + 1
    return support, labels, query


def test_centre_is_missing(episodes):
    with pytest.raises(FieldmarkError, match="call fit_base"):
        heads.Prototype(transform="centre_l2")(*episodes, 3)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["linear", "cosine_classifier"])
def test_descent_is_that_of_torch(episodes, optimiser, kind):
    """The written-out gradients and updates against autograd and torch.optim, one episode at a time."""
    support, labels, query = episodes
    ours = heads.create(kind, steps=20, lr=0.1, optimiser=optimiser, weight_decay=0.01)(*episodes, 3)
    for episode in range(2):
        x = support[episode, :, 0]
        if kind == "linear":
            parameters = [torch.zeros(3, 6).double(), torch.zeros(3).double()]
        else:
            x = functional.l2_normalise(x)
            weight = functional.class_prototypes(x, labels[episode], 3)
            parameters = [weight, torch.tensor(10.0).double().log()]
        parameters = [p.requires_grad_() for p in parameters]
        step = (
            torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01)
            if optimiser == "sgd"
            else torch.optim.Adam(parameters, 0.1, weight_decay=0.01)
        )

        def logits(features, parameters=parameters):
            if kind == "linear":
                return features @ parameters[0].T + parameters[1]
            return torch.nn.functional.cosine_similarity(features[:, None], parameters[0], -1) * parameters[1].exp()

        for _ in range(20):
            step.zero_grad()
            cross_entropy(logits(x), labels[episode]).backward()
            step.step()
        torch.testing.assert_close(ours[episode], logits(query[episode, :, 0]).detach(), atol=1e-6, rtol=1e-6)


def test_no_steps_is_weight_imprinting(episodes):
    support, labels, query = episodes
    imprinted = heads.CosineClassifier(steps=0)(support, labels, query, 3)
    torch.testing.assert_close(imprinted, heads.Prototype("cosine", "l2", scale=10.0)(support, labels, query, 3))


def test_local_knn_takes_no_more_neighbours_than_there_are(episodes):
    support, labels, query = episodes
    few, many = (heads.LocalKNN(k)(support, labels, query, 3) for k in (4, 40))
    torch.testing.assert_close(few, many)


def test_nearest_against_a_loop(episodes):
    support, labels, query = episodes
    ours = heads.Nearest("euclidean")(support, labels, query, 3)
    for episode in range(2):
        distances = torch.cdist(query[episode, :, 0], support[episode, :, 0])
        for label in range(3):
            expected = -distances[:, labels[episode] == label].amin(1)
            torch.testing.assert_close(ours[episode, :, label], expected)


def test_logistic_in_float64_keeps_the_type(episodes):
    support, labels, query = episodes
    scores = heads.Logistic(double=True)(support.float(), labels, query.float(), 3)
    assert scores.dtype == torch.float32
    exact = heads.Logistic()(support, labels, query, 3)
    torch.testing.assert_close(scores.double(), exact, atol=1e-5, rtol=1e-5)
