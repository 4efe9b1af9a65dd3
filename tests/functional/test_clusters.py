"""Clusters of many sets at once against scikit-learn, set by set."""

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MeanShift, estimate_bandwidth

from fieldmark import functional
from fieldmark.errors import FieldmarkError

KINDS = ["random", "rectified", "groups"]


def make(kind, sets=12, nodes=25, channels=8):
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((sets, nodes, channels))
    if kind == "random":
        return torch.tensor(noise)
    if kind == "rectified":
        return torch.tensor(1.3 * np.maximum(noise, 0))
    centres = 3 * rng.standard_normal((sets, 4, channels))
    return torch.tensor(noise + centres[np.arange(sets)[:, None], rng.integers(0, 4, (sets, nodes))])


def inertia(sets, found):
    centres = found.means.gather(1, found.labels.unsqueeze(-1).expand_as(sets))
    return (sets - centres).square().sum((1, 2)).numpy()


@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("clusters", [2, 5, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_is_as_good_as_scikit_learn(kind, clusters, channels):
    sets = make(kind, channels=channels)
    found = functional.kmeans(sets, clusters)
    theirs = [KMeans(clusters, n_init=10, random_state=0).fit(one.numpy()).inertia_ for one in sets]
    assert inertia(sets, found).mean() < 1.01 * np.mean(theirs)
    assert found.sizes.sum(1).eq(25).all()
    assert (found.sizes > 0).all()
    # A fixed point of Lloyd's algorithm: every node is nearest to the mean of its own cluster.
    assert (torch.cdist(sets, found.means).argmin(-1) == found.labels).all()


def test_kmeans_special_cases():
    sets = make("random", sets=3, nodes=6)
    one = functional.kmeans(sets, 1)
    torch.testing.assert_close(one.means, sets.mean(1, keepdim=True))
    assert (one.sizes == 6).all()
    for clusters in (6, 50):
        every = functional.kmeans(sets, clusters)
        torch.testing.assert_close(every.means, sets)
        assert every.sizes.shape == (3, 6)
        assert (every.sizes == 1).all()


def test_kmeans_of_equal_nodes_leaves_clusters_empty():
    found = functional.kmeans(torch.tensor([[[0.0], [0.0], [0.0], [5.0], [5.0]]]), 4)
    assert functional.cluster_count(found.sizes) == 2
    assert sorted(found.means[found.sizes > 0].flatten().tolist()) == [0.0, 5.0]


def test_kmeans_does_not_mix_sets():
    sets = make("groups", sets=5)
    together = functional.kmeans(sets, 4)
    for number, one in enumerate(sets):
        torch.testing.assert_close(functional.kmeans(one[None], 4).means[0], together.means[number])


def test_many_sets_in_parts(monkeypatch):
    sets = make("groups", sets=7)
    expected = functional.kmeans(sets, 4).labels, functional.mean_shift(sets).labels
    monkeypatch.setattr("fieldmark.functional.clusters._BYTES_AT_ONCE", 1)
    assert torch.equal(functional.kmeans(sets, 4).labels, expected[0])
    assert torch.equal(functional.mean_shift(sets).labels, expected[1])


@pytest.mark.parametrize("bandwidth", [None, 1.5, 2.5, 3.4, 6.0])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_shift_gives_the_labels_of_scikit_learn(kind, bandwidth):
    sets = make(kind)
    found = functional.mean_shift(sets, bandwidth)
    for number, one in enumerate(sets.numpy()):
        radius = estimate_bandwidth(one) if bandwidth is None else bandwidth
        theirs = MeanShift(bandwidth=radius).fit(one)
        np.testing.assert_array_equal(found.labels[number], theirs.labels_)
        np.testing.assert_array_equal(found.sizes[number][: theirs.labels_.max() + 1], np.bincount(theirs.labels_))
        for label in range(theirs.labels_.max() + 1):
            mean = one[theirs.labels_ == label].mean(0)
            np.testing.assert_allclose(found.means[number, label], mean, atol=1e-12)


def test_mean_shift_with_ties_is_that_of_scikit_learn():
    """Whole numbers: many peaks have equally many nodes and the same first coordinate."""
    sets = torch.tensor(np.random.default_rng(1).integers(0, 6, (20, 12, 3)).astype(float))
    found = functional.mean_shift(sets, 1.7)
    for number, one in enumerate(sets.numpy()):
        np.testing.assert_array_equal(found.labels[number], MeanShift(bandwidth=1.7).fit(one).labels_)


def test_mean_shift_special_cases():
    sets = make("random", sets=3, nodes=6)
    every, one = functional.mean_shift(sets, 0.0), functional.mean_shift(sets, float("inf"))
    torch.testing.assert_close(every.means, sets)
    torch.testing.assert_close(one.means, sets.mean(1, keepdim=True))
    assert functional.cluster_count(every.sizes).tolist() == [6, 6, 6]
    assert functional.cluster_count(one.sizes).tolist() == [1, 1, 1]
    # Coinciding nodes have an estimated bandwidth of 0, which scikit-learn refuses.
    same = functional.mean_shift(torch.ones(1, 4, 2))
    assert same.sizes.tolist() == [[1, 1, 1, 1]]
    assert functional.mean_shift(sets[:, :1]).means.shape == (3, 1, 8)


def test_mean_shift_ignores_the_order_of_nodes():
    sets = make("groups")
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    straight, mixed = functional.mean_shift(sets), functional.mean_shift(sets[:, order])
    torch.testing.assert_close(mixed.means, straight.means)
    assert torch.equal(mixed.labels, straight.labels[:, order])


@pytest.mark.parametrize(
    "cluster",
    [
        lambda sets, real: functional.kmeans(sets, 4, real=real),
        lambda sets, real: functional.kmeans(sets, 1, real=real),
        lambda sets, real: functional.mean_shift(sets, real=real),
        lambda sets, real: functional.mean_shift(sets, 0.0, real=real),
        lambda sets, real: functional.mean_shift(sets, float("inf"), real=real),
    ],
)
def test_padding_counts_for_nothing(cluster):
    sets = make("groups", sets=4)
    real = torch.arange(30).expand(4, -1) < torch.tensor([25, 20, 11, 3]).unsqueeze(1)
    padded = torch.where(real.unsqueeze(-1), torch.cat([sets, sets[:, :5]], 1), 1e3)
    found = cluster(padded, real)
    for number, count in enumerate([25, 20, 11, 3]):
        alone = cluster(padded[number : number + 1, :count], None)
        there = found.sizes[number] > 0
        torch.testing.assert_close(found.sizes[number][there], alone.sizes[0])
        torch.testing.assert_close(found.means[number][there], alone.means[0])
        assert (found.labels[number, count:] == -1).all()


def test_means_are_differentiable():
    sets = make("groups", sets=2, nodes=9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: functional.kmeans(x, 3).means, sets)
    assert torch.autograd.gradcheck(lambda x: functional.mean_shift(x, 4.0).means, sets)


def test_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    with pytest.raises(FieldmarkError, match="expected at least 1"):
        functional.kmeans(torch.ones(1, 2, 2), 0)
    for bandwidth in (-1.0, float("nan")):
        with pytest.raises(FieldmarkError, match="expected 0 or more"):
            functional.mean_shift(torch.ones(1, 2, 2), bandwidth)
