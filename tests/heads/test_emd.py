"""The matching heads against plain loops over classes and images with POT."""

import copy

import jaxtyping
import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist

from fieldmark import functional, heads
from fieldmark.errors import FieldmarkError

WAY = 3


@pytest.fixture
def episodes():
    """Two episodes with unequal shots: 1 to 3 images a class, 4 places, 6 channels."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([[0, 1, 1, 2, 2, 2], [2, 0, 1, 0, 2, 1]])
    draw = torch.randn(2, 11, 4, 6, generator=generator, dtype=torch.float64)
    return draw[:, :6], labels, draw[:, 6:]


def match(u, v, a=None, b=None):
    """Similarity of two sets by another solver; cross-reference weights unless given."""
    u, v = u.numpy(), v.numpy()
    a = np.maximum(u @ v.mean(0), 0) + 1e-3 if a is None else a
    b = np.maximum(v @ u.mean(0), 0) + 1e-3 if b is None else b
    return 12.5 * (1 - ot.emd2(a / a.sum(), b / b.sum(), cdist(u, v, "correlation")))


def loop(episodes, score):
    support, labels, query = episodes
    out = torch.empty(2, query.shape[1], WAY, dtype=torch.float64)
    for e, q, k in np.ndindex(*out.shape):
        out[e, q, k] = score(query[e, q], support[e][labels[e] == k])
    return out


@pytest.mark.parametrize(
    ("shots", "score"),
    [
        ("mean", lambda q, images: match(q, images.mean(0))),
        ("nearest", lambda q, images: max(match(q, one) for one in images)),
        ("fusion", lambda q, images: np.mean([match(q, one) for one in images])),
        ("merge", lambda q, images: match(q, images.flatten(0, 1))),
    ],
)
def test_several_shots(episodes, shots, score):
    support, labels, query = episodes
    ours = heads.create("emd", shots=shots)(support, labels, query, WAY)
    torch.testing.assert_close(ours, loop(episodes, score))


def test_one_shot_is_the_same_whatever_shots_says(episodes):
    support, _, query = episodes
    labels = torch.tensor([[2, 0, 1], [0, 1, 2]])
    scores = [
        heads.create("emd", shots=shots)(support[:, :3], labels, query, WAY)
        for shots in ("mean", "nearest", "fusion", "merge")
    ]
    for one in scores[1:]:
        torch.testing.assert_close(one, scores[0])


def test_equal_weights(episodes):
    support, labels, query = episodes
    ours = heads.create("emd", weights="equal")(support, labels, query, WAY)
    torch.testing.assert_close(ours, loop(episodes, lambda q, images: match(q, images.mean(0), np.ones(4), np.ones(4))))


@pytest.mark.parametrize("shots", ["mean", "nearest", "fusion", "merge"])
@pytest.mark.parametrize(
    ("every", "one"),
    [
        ({"weights": "kmeans", "clusters": 99}, {"weights": "kmeans", "clusters": 1}),
        ({"weights": "mean_shift", "bandwidth": 0.0}, {"weights": "mean_shift", "bandwidth": float("inf")}),
    ],
)
def test_clusters_at_both_ends(episodes, shots, every, one):
    """As many clusters as nodes: equal weights. One: the cosine of the means. (Both said so in the paper.)"""
    support, labels, query = episodes
    equal = heads.create("emd", weights="equal", shots=shots)(support, labels, query, WAY)
    torch.testing.assert_close(heads.create("emd", shots=shots, **every)(support, labels, query, WAY), equal)
    pooled = heads.create("emd", shots=shots)(support.mean(2, keepdim=True), labels, query.mean(2, keepdim=True), WAY)
    if shots == "merge":  # one vector a class, not one an image
        pooled = heads.create("emd")(support.mean(2, keepdim=True), labels, query.mean(2, keepdim=True), WAY)
    torch.testing.assert_close(heads.create("emd", shots=shots, **one)(support, labels, query, WAY), pooled)


@pytest.mark.parametrize("shots", ["mean", "merge"])
def test_clusters_against_a_loop(episodes, shots):
    from sklearn.cluster import MeanShift

    def clustered(nodes):
        labels = MeanShift(bandwidth=2.0).fit(nodes.numpy()).labels_
        means = torch.stack([nodes[labels == k].mean(0) for k in range(labels.max() + 1)])
        return means, np.bincount(labels).astype(float)

    def score(q, images):
        (u, a), (v, b) = clustered(q), clustered(images.mean(0) if shots == "mean" else images.flatten(0, 1))
        return match(u, v, a, b)

    support, labels, query = episodes
    head = heads.create("emd", weights="mean_shift", bandwidth=2.0, shots=shots)
    torch.testing.assert_close(head(support, labels, query, WAY), loop(episodes, score))
    sizes = head.cluster(query).sizes
    counts = [len(clustered(one)[1]) for one in query.flatten(0, 1)]
    assert 1 < np.mean(counts) < 4
    assert functional.cluster_count(sizes).tolist() == counts


def test_pooled_vectors_give_the_cosine(episodes):
    support, _, query = (one[..., :1, :] if one.dim() == 4 else one for one in episodes)
    centred = [one - one.mean(-1, keepdim=True) for one in (support, query)]
    near = 12.5 * torch.nn.functional.cosine_similarity(centred[1], centred[0].squeeze(2).unsqueeze(1), dim=-1)
    for name in ("emd", "dense_connections"):
        head = heads.create(name)
        ours = head(support[:, :3], torch.tensor([[0, 1, 2]] * 2), query, WAY)
        torch.testing.assert_close(ours, near[..., :3])


@pytest.mark.parametrize("weight_gradient", [False, True])
def test_training_step_lowers_the_loss(weight_gradient):
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(WAY, 4, 8, generator=generator)
    support, query = (centres.repeat(k, 1, 1) + torch.rand(4, WAY * k, 4, 8, generator=generator) for k in (1, 2))
    labels = torch.arange(WAY).expand(4, -1)
    layer = torch.nn.Linear(8, 8)
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    head = heads.create("emd", weight_gradient=weight_gradient)
    losses = []
    for _ in range(20):
        scores = head(layer(support), labels, layer(query), WAY)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.repeat(1, 2).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_a_head_can_be_copied(episodes):
    support, labels, query = episodes
    head = heads.create("emd", shots="nearest", temperature=2.0)
    torch.testing.assert_close(copy.deepcopy(head)(support, labels, query, WAY), head(support, labels, query, WAY))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("emd", {"shots": "meen"}, "did you mean 'mean'"),
        ("emd", {"weights": "kmean"}, "did you mean 'kmeans'"),
        ("emd", {"variant": "codes"}, "did you mean 'code'"),
        ("emd", {"solver": "simplx"}, "did you mean 'simplex'"),
        ("emd", {"temperature": 0.0}, "above 0"),
        ("emd", {"clusters": 0}, "expected at least 1"),
        ("emd", {"bandwidth": -1.0}, "expected 0 or more"),
        ("dense_connections", {"weights": "kmeans"}, "unknown weights"),
        ("dense_connections", {"temperature": -1.0}, "above 0"),
    ],
)
def test_refused_at_construction(name, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match=message):
        heads.create(name, **options)


def test_no_clusters_without_clustering(episodes):
    with pytest.raises(FieldmarkError, match="makes no clusters"):
        heads.create("emd").cluster(episodes[2])
