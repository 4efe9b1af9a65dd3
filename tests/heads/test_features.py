"""Global and spatial features: SCL's recorded probabilities, scikit-learn, and how two classifiers are put together."""

import numpy as np
import pytest
import torch

from fieldmark import descriptors, functional, heads
from fieldmark.errors import FieldmarkError

FILES = ["scl_metatest_1shot", "scl_metatest_5shot", "scl_metatest_5shot_noaug"]
EPISODES = (0, 1)


@pytest.fixture(params=FILES)
def recorded(request, golden):
    return golden(request.param)


def spatial_sets(maps):
    """(1, S, 5, C) from maps, as evaluation makes them."""
    extractor = descriptors.create("dense")
    return descriptors.describe(lambda images: images, torch.as_tensor(maps), ["spatial"], extractor)["spatial"][None]


def scores(head, recorded, episode, dtype=torch.float32):
    """Logits of an episode; the recorded support holds all its augmented copies."""
    support, query = (spatial_sets(recorded[f"e{episode}_{side}"]).to(dtype) for side in ("support", "query"))
    if head.descriptors == "pooled":
        support, query = support[:, :, :1], query[:, :, :1]
    labels = torch.as_tensor(recorded[f"e{episode}_support_y"])[None]
    return head(support, labels, query, 5)[0]


def accuracy(logits, recorded, episode):
    return (logits.argmax(-1).numpy() == recorded[f"e{episode}_query_y"]).mean()


@pytest.mark.parametrize("features", ["global", "spatial"])
@pytest.mark.parametrize("episode", EPISODES)
class TestOfficialProbabilities:
    def test_optimum(self, recorded, features, episode):
        head = heads.create("logistic", features=features, double=True)
        found = scores(head, recorded, episode, torch.float64).softmax(-1)
        np.testing.assert_allclose(found, recorded[f"e{episode}_{features}_proba_tight64"], atol=1e-6)

    @pytest.mark.parametrize("solver", ["own", "scikit_learn"])
    def test_as_recorded_in_float32(self, recorded, features, episode, solver):
        head = heads.create("logistic", features=features, solver=solver)
        found = scores(head, recorded, episode).softmax(-1)
        np.testing.assert_allclose(found, recorded[f"e{episode}_{features}_proba"], atol=1e-3)


@pytest.mark.parametrize("features", ["sum", "max"])
def test_both_have_the_official_probabilities_and_accuracy(recorded, features):
    join = {"sum": np.add, "max": np.maximum}[features]
    head = heads.create("logistic", features=features, double=True)
    accuracies = []
    for episode in EPISODES:
        found = scores(head, recorded, episode, torch.float64)
        joint = join(*(recorded[f"e{episode}_{kind}_proba_tight64"] for kind in ("global", "spatial")))
        np.testing.assert_allclose(found.softmax(-1), joint / joint.sum(-1, keepdims=True), atol=1e-6)
        accuracies.append(accuracy(found, recorded, episode))
    assert np.mean(accuracies) == pytest.approx(recorded[f"acc_mean_{features}"])


def test_cells_are_scl_s_spatial_features(golden):
    """The same numbers in another order, and the very rows that were handed to scikit-learn."""
    recorded = golden(FILES[0])
    maps = torch.as_tensor(recorded["e0_query"])
    cells = spatial_sets(maps)[0, :, 1:]
    flat = functional.l2_normalise(cells.transpose(1, 2).flatten(1))
    torch.testing.assert_close(flat, functional.spatial_features(maps))
    np.testing.assert_allclose(flat[:3], recorded["e0_spatial_Xquery_first3"], atol=1e-6)


CLASSIFIERS = [
    ("logistic", {}),
    ("logistic", {"solver": "scikit_learn"}),
    ("cosine_classifier", {"steps": 3}),
    ("linear", {"steps": 3, "lr": 1.0, "start": "imprinted"}),
]


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 0, 1, 0, 1]])
    centres = torch.randn(3, 1, 5, 8, generator=generator, dtype=torch.float64)
    support = centres[labels, 0] + torch.randn(2, 6, 5, 8, generator=generator, dtype=torch.float64)
    query = centres[labels, 0] + torch.randn(2, 6, 5, 8, generator=generator, dtype=torch.float64)
    return support, labels, query


@pytest.mark.parametrize(("name", "options"), CLASSIFIERS)
class TestEveryClassifier:
    def test_spatial_is_the_classifier_on_the_flat_cells(self, sets, name, options):
        support, labels, query = sets
        flat = [one[:, :, 1:].flatten(2).unsqueeze(2) for one in (support, query)]
        expected = heads.create(name, **options)(flat[0], labels, flat[1], 3)
        found = heads.create(name, features="spatial", **options)(support, labels, query, 3)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("features", ["sum", "max"])
    def test_both_join_the_probabilities(self, sets, name, options, features):
        support, labels, query = sets
        each = {}
        for one in ("global", "spatial"):
            part = slice(0, 1) if one == "global" else slice(None)
            head = heads.create(name, features=one, **options)
            each[one] = head(support[:, :, part], labels, query[:, :, part], 3).softmax(-1)
        joint = sum(each.values()) if features == "sum" else torch.stack(list(each.values())).amax(0)
        found = heads.create(name, features=features, **options)(support, labels, query, 3).softmax(-1)
        torch.testing.assert_close(found, joint / joint.sum(-1, keepdim=True))

    @pytest.mark.parametrize("features", ["spatial", "sum", "max"])
    def test_a_flat_vector_is_a_map_of_one_place(self, sets, name, options, features):
        support, labels, query = sets
        plain = heads.create(name, **options)(support[:, :, :1], labels, query[:, :, :1], 3)
        found = heads.create(name, features=features, **options)(support[:, :, :1], labels, query[:, :, :1], 3)
        torch.testing.assert_close(found.softmax(-1), plain.softmax(-1))

    def test_other_sets_are_refused(self, sets, name, options):
        support, labels, query = sets
        with pytest.raises(FieldmarkError, match="sets of 4 descriptors; expected 5"):
            heads.create(name, features="sum", **options)(support[:, :, :4], labels, query[:, :, :4], 3)

    def test_unknown_features_are_refused(self, sets, name, options, monkeypatch):
        import jaxtyping

        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
        with pytest.raises(FieldmarkError, match=f"unknown features of head {name} 'globel'; did you mean 'global'"):
            heads.create(name, features="globel", **options)

    def test_the_head_says_which_sets_it_wants(self, sets, name, options):
        wanted = {one: heads.create(name, features=one, **options).descriptors for one in ("global", "spatial", "sum")}
        assert wanted == {"global": "pooled", "spatial": "spatial", "sum": "spatial"}
        assert heads.HEADS.get(name).make.descriptors == "pooled"


def test_scikit_learn_is_the_binary_model_for_two_classes(sets):
    from sklearn.linear_model import LogisticRegression

    support, _, query = sets
    labels = torch.tensor([[0, 1, 1, 0, 1, 0]] * 2)
    found = heads.create("logistic", solver="scikit_learn", tol=1e-10)(support[:, :, :1], labels, query[:, :, :1], 2)
    unit = functional.l2_normalise
    for episode in range(2):
        model = LogisticRegression(tol=1e-10, max_iter=1000).fit(unit(support[episode, :, 0]), labels[episode])
        expected = model.predict_proba(unit(query[episode, :, 0]).numpy())
        np.testing.assert_allclose(found[episode].softmax(-1), expected, atol=1e-9)


def test_imprinted_weights_are_the_unit_means(sets):
    """Without a step the layer scores by the cosine to the classes' mean directions, times the query's length."""
    support, labels, query = sets
    found = heads.create("linear", steps=0, start="imprinted")(support[:, :, :1], labels, query[:, :, :1], 3)
    for episode in range(2):
        vectors = functional.l2_normalise(support[episode, :, 0])
        means = torch.stack([vectors[labels[episode] == label].mean(0) for label in range(3)])
        expected = query[episode, :, 0] @ functional.l2_normalise(means).T
        torch.testing.assert_close(found[episode], expected)
