"""Scores that easyfsl and LibFewShot gave for the same features."""

import numpy as np
import pytest
import torch

from fieldmark import heads

FILES = ["baselines_1shot", "baselines_5shot"]


@pytest.fixture(params=FILES)
def recorded(request, golden):
    return golden(request.param)


def score(head, recorded, support="support", query="query"):
    tensors = [torch.tensor(recorded[key]) for key in (support, query)]
    sets = [t.flatten(2).mT if t.dim() == 4 else t.unsqueeze(1) for t in tensors]
    labels = torch.tensor(recorded["support_y"])
    return head(sets[0][None], labels[None], sets[1][None], 5)[0].numpy()


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("easyfsl_protonet", {"metric": "euclidean"}),
        ("easyfsl_protonet_center_l2", {"metric": "euclidean", "transform": "centre_l2"}),
        ("easyfsl_simpleshot", {"metric": "cosine"}),
        ("easyfsl_simpleshot_center_l2", {"metric": "cosine", "transform": "centre_l2"}),
        ("libfsl_proto_euclidean", {"metric": "squared_euclidean"}),
        ("libfsl_proto_cos_sim", {"metric": "cosine"}),
    ],
)
def test_prototype(recorded, key, options):
    if options.get("transform") == "centre_l2":
        options = {**options, "centre": torch.tensor(recorded["center"])}
    np.testing.assert_allclose(score(heads.Prototype(**options), recorded), recorded[key], rtol=1e-4, atol=2e-4)


def test_probability(recorded):
    ours = torch.softmax(torch.tensor(score(heads.Prototype(metric="euclidean"), recorded)), -1)
    np.testing.assert_allclose(ours.numpy(), recorded["easyfsl_protonet_softmax"], atol=1e-4)


def test_pooling_of_maps(recorded):
    head = heads.Prototype(metric="euclidean")
    ours = score(head, recorded, "support_map", "query_map")
    np.testing.assert_allclose(ours, recorded["easyfsl_protonet"], rtol=1e-4, atol=2e-4)


def test_matching_without_context(recorded):
    ours = score(heads.Matching(normalise_query=False), recorded, "mn_support", "mn_query")
    # easyfsl takes the logarithm of p + 1e-6.
    np.testing.assert_allclose(np.log(np.exp(ours) + 1e-6), recorded["easyfsl_matching_nofce_logprob"], atol=2e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_local_knn(recorded, k):
    key = f"libfsl_dn4_k{k}"
    if key not in recorded:
        pytest.skip(f"this file has no k = {k}")
    ours = score(heads.LocalKNN(k), recorded, "support_map", "query_map")
    np.testing.assert_allclose(ours, recorded[key], atol=2e-5)


def test_fit_base_takes_the_mean_of_the_base_features(recorded):
    centre = torch.tensor(recorded["center"])
    base = torch.stack([centre - 1, centre + 1])
    options = {"metric": "euclidean", "transform": "centre_l2"}
    ours = score(heads.Prototype(**options).fit_base(base), recorded)
    np.testing.assert_allclose(ours, recorded["easyfsl_protonet_center_l2"], atol=2e-4)
