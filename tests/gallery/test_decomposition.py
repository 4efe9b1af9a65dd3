"""Parts of a score are compared with the head itself, and with what is left when a part is taken away."""

import numpy as np
import pytest
import torch

from fieldmark import heads
from fieldmark.gallery.evidence.decomposition import decomposition

WAY, N, C = 3, 9, 12

ADDITIVE = [
    ("whitened", {}),
    ("whitened", {"shrinkage": None, "power": 1.0, "centre": None}),
    ("logistic", {"C": 10.0}),
    ("logistic", {"C": 10.0, "normalise": False}),
    ("prototype", {}),
    ("prototype", {"metric": "cosine", "scale": 10.0}),
    ("prototype", {"metric": "cosine", "transform": "l2"}),
    ("prototype", {"metric": "squared_euclidean", "transform": "centre_l2"}),
    ("emd", {}),
    ("emd", {"shots": "fusion"}),
    ("emd", {"shots": "nearest", "weights": "equal"}),
    ("emd", {"shots": "merge"}),
    ("emd", {"variant": "paper"}),
    ("local_knn", {}),
    ("local_knn", {"k": 3}),
]


@pytest.fixture
def photos():
    """Support photos with unequal shots, their classes, and a query near class 1."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    centres = torch.rand(WAY, 1, C, generator=generator)
    support = centres[labels] + torch.rand(len(labels), N, C, generator=generator)
    query = centres[1] + torch.rand(N, C, generator=generator)
    return support, labels, query


def scores_of(head, support, labels, query):
    if head.descriptors == "pooled":
        support, query = support.mean(1, keepdim=True), query.mean(0, keepdim=True)
    return head(support[None].double(), labels[None], query[None, None].double(), WAY)[0, 0]


@pytest.mark.parametrize(("name", "options"), ADDITIVE)
def test_parts_add_up_to_the_score_of_the_head(photos, name, options):
    support, labels, query = photos
    head = heads.create(name, **options)
    if head.needs_base:
        head.fit_base(support)
    expected = scores_of(head, support, labels, query)
    decompose = decomposition(head, support, labels, query, WAY)
    for label in range(WAY):
        parts = decompose(label)
        assert parts.additive
        assert parts.score == pytest.approx(float(expected[label]), abs=1e-6)
        assert parts.totals.sum() + parts.constant == pytest.approx(parts.score, abs=1e-9)
        assert parts.places.sum() + parts.constant == pytest.approx(parts.score, abs=1e-6)
        for photo in range(len(labels)):
            assert parts.pairs(photo).sum() == pytest.approx(parts.totals[photo], abs=1e-9)
        everything = sum(parts.pairs(photo) for photo in range(len(labels)))
        np.testing.assert_allclose(everything.sum(1), parts.places, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [("logistic", {"C": 10.0}), ("whitened", {})])
def test_photos_of_the_class_speak_for_it_and_those_of_others_against(photos, name, options):
    support, labels, _ = photos
    parts = decomposition(heads.create(name, **options), support, labels, support[3], WAY)(1)
    own = labels.numpy() == 1
    assert parts.totals[3] > 0  # the query is this photo
    assert parts.totals[own].min() > parts.totals[~own].max()


def test_the_constant_of_logistic_regression_is_its_bias(photos):
    from sklearn.linear_model import LogisticRegression

    support, labels, query = photos
    vectors = torch.nn.functional.normalize(support.mean(1), dim=-1).double().numpy()
    model = LogisticRegression(C=10.0, tol=1e-10, max_iter=10000).fit(vectors, labels.numpy())
    bias = model.intercept_ - model.intercept_.mean()
    decompose = decomposition(heads.create("logistic", C=10.0), support, labels, query, WAY)
    for label in range(WAY):
        assert decompose(label).constant == pytest.approx(bias[label], abs=1e-4)


def test_local_knn_names_the_photo_that_holds_the_nearest_descriptor(photos):
    support, labels, _ = photos
    query = support[4].clone()
    parts = decomposition(heads.create("local_knn"), support, labels, query, WAY)(1)
    np.testing.assert_allclose(np.diag(parts.pairs(4)), 1.0, atol=1e-6)
    assert parts.totals[3] == pytest.approx(0.0, abs=1e-9)


def test_scores_that_do_not_split_get_a_similarity_beside_them(photos):
    support, labels, query = photos
    parts = decomposition(heads.create("fusion"), support, labels, query, WAY)(1)
    assert not parts.additive
    assert parts.score == pytest.approx(float(scores_of(heads.create("fusion"), support, labels, query)[1]), abs=1e-6)
    assert (parts.totals[labels.numpy() != 1] == 0).all()
    assert parts.pairs(3).sum() == pytest.approx(parts.totals[3])
