"""FewShotClassifier with scikit-learn's tools, with odd photos and labels, and against the head itself."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import fieldmark as fm
from fieldmark import backbones, heads
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.gallery import Embedder, FewShotClassifier
from fieldmark.gallery.prediction import NONE_OF_THESE

sys.path.insert(0, str(Path(__file__).parent))

from drawn import picture

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.3,) * 3).eval()


def photos(shots=(4, 3, 2), start=0):
    images = [picture(name, start + i) for name, shot in zip(CLASSES, shots, strict=True) for i in range(shot)]
    return np.stack(images), np.repeat(CLASSES, shots)


@pytest.fixture
def make(encoder):
    return lambda **options: FewShotClassifier(**{"backbone": encoder, "size": 24, **options})


@pytest.mark.parametrize("head", ["whitened", "prototype", "logistic", "nearest", "local_knn", "fusion"])
def test_colours_are_told_apart_with_unequal_shots(make, head):
    options = {"C": 100.0} if head == "logistic" else None
    classifier = make(head=head, head_options=options).fit(*photos())
    images, labels = photos((3, 3, 3), start=50)
    assert (classifier.predict(images) == labels).all()
    assert classifier.score(images, labels) == 1.0
    assert classifier.classes_.tolist() == list(CLASSES)
    chances = classifier.predict_proba(images)
    assert chances.shape == (9, 3)
    assert np.isfinite(chances).all()
    np.testing.assert_allclose(chances.sum(1), 1)
    assert (classifier.classes_[chances.argmax(1)] == labels).all()
    assert classifier.decision_function(images).shape == (9, 3)


@pytest.mark.parametrize("head", ["whitened", "prototype", "local_knn"])
def test_scores_are_those_of_the_head_on_the_same_descriptors(make, encoder, head):
    images, labels = photos()
    queries, _ = photos((2, 2, 2), start=50)
    classifier = make(head=head).fit(images, labels)
    embedder = Embedder(encoder, 24)
    one = heads.create(head)
    support, query = (embedder.embed(each, [one.descriptors])[one.descriptors] for each in (images, queries))
    one.fit_base(support)
    target = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    expected = one(support[None], target[None], query[None], 3)[0]
    np.testing.assert_allclose(classifier.decision_function(queries), expected.numpy(), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("head", ["whitened", "logistic", "local_knn"])
def test_a_photo_gets_the_same_answer_alone_and_among_others(make, head):
    classifier = make(head=head).fit(*photos())
    queries, _ = photos((3, 3, 3), start=50)
    together = classifier.decision_function(queries)
    for i in (0, 4, 8):
        np.testing.assert_allclose(classifier.decision_function(queries[[i]])[0], together[i], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(classifier.decision_function(queries[::-1]), together[::-1], atol=1e-4, rtol=1e-4)


def test_all_at_once_is_all_in_parts(make):
    images, labels = photos()
    order = np.array([8, 0, 5, 3, 1, 7, 2, 4, 6])
    whole = make().fit(images[order], labels[order])
    parts = make().fit(images[order[:2]], labels[order[:2]])  # without "green", which comes later
    assert parts.classes_.tolist() == ["blue", "red"]
    encoded = []
    embed = parts.embedder_.embed
    parts.embedder_.embed = lambda pictures, kinds: encoded.append(len(pictures)) or embed(pictures, kinds)
    parts.partial_fit(images[order[2:6]], labels[order[2:6]]).partial_fit(images[order[6:]], labels[order[6:]])
    assert encoded == [4, 3], "only the new photos are encoded"
    assert parts.classes_.tolist() == whole.classes_.tolist()
    queries, _ = photos((2, 2, 2), start=50)
    np.testing.assert_allclose(parts.predict_proba(queries), whole.predict_proba(queries), atol=1e-5)
    assert parts.calibration_.temperature == pytest.approx(whole.calibration_.temperature, rel=1e-4)
    assert parts.calibration_.threshold == pytest.approx(whole.calibration_.threshold, rel=1e-4)


def test_a_part_that_fails_changes_nothing(make, monkeypatch):
    images, labels = photos()
    classifier = make().fit(images[:6], labels[:6])
    before = classifier.predict_proba(images)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fieldmark.gallery.classifier.calibrate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier.partial_fit(images[6:], labels[6:])
    assert len(classifier.labels_) == 6
    np.testing.assert_array_equal(classifier.predict_proba(images), before)


def test_the_first_part_may_come_without_fit(make):
    images, labels = photos()
    classifier = make().partial_fit(images, labels, classes=list(CLASSES))
    np.testing.assert_array_equal(classifier.predict(images), make().fit(images, labels).predict(images))


def test_fitting_again_forgets_what_was(make):
    images, labels = photos()
    classifier = make().fit(images, labels)
    classifier.fit(images[labels != "red"], labels[labels != "red"])
    assert classifier.classes_.tolist() == ["blue", "green"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([7, 7, -1, -1], [-1, 7]),
        (np.array([3, 3, 2, 2], np.uint8), [2, 3]),
        ([2.0, 2.0, 1.0, 1.0], [1.0, 2.0]),
        ([True, True, False, False], [False, True]),
        (["b", "b", "a & <c>", "a & <c>"], ["a & <c>", "b"]),
        (np.array(["b", "b", "ä", "ä"], object), ["b", "ä"]),
    ],
)
def test_labels_of_every_kind_come_back_as_they_were(make, labels, classes):
    images, _ = photos((2, 2, 0))
    classifier = make().fit(images, labels)
    assert classifier.classes_.tolist() == classes
    assert classifier.predict(images).tolist() == list(labels)
    scores = classifier.decision_function(images)
    assert scores.shape == (4,)  # of two classes
    assert ((scores > 0) == (np.asarray(labels) == classes[1])).all()


@pytest.mark.parametrize("shots", [(1, 1, 1), (1, 0, 0), (5, 0, 0), (1, 4, 0)])
def test_one_photo_a_class_and_one_class(make, shots):
    images, labels = photos(shots)
    classifier = make(reject=True, false_reject=0.0).fit(images, labels)
    chances = classifier.predict_proba(images)
    assert chances.shape == (len(images), sum(shot > 0 for shot in shots))
    assert np.isfinite(chances).all()
    assert np.isfinite(classifier.calibration_.temperature)
    found = classifier.predict_detailed(images)
    assert [one.top[0][0] for one in found] == labels.tolist()
    if shots == (1, 0, 0):
        assert classifier.calibration_.threshold is None
        assert found[0].rejected is None


def test_a_photo_of_something_else_is_rejected(make):
    classifier = make(head="prototype", reject=True).fit(*photos((8, 8, 8)))
    noise = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    assert (classifier.predict(noise) == NONE_OF_THESE).all()
    detailed = classifier.predict_detailed(noise)[0]
    assert detailed.rejected
    assert detailed.label == NONE_OF_THESE
    assert detailed.top[0][0] in CLASSES
    assert detailed.score < classifier.calibration_.threshold
    known, labels = photos((9, 9, 9), start=60)
    assert (classifier.predict(known) == labels).mean() > 0.7
    without = clone(classifier).set_params(reject=False).fit(*photos((8, 8, 8)))
    assert NONE_OF_THESE not in without.predict(noise)


def test_detailed_answers_are_plain_values(make):
    import json

    found = make().fit(photos()[0], [3, 3, 3, 3, 1, 1, 1, 2, 2]).predict_detailed(photos()[0][:1], top=2)[0]
    assert json.loads(json.dumps(found.to_dict()))["label"] == 3
    assert len(found.top) == 2
    assert found.confidence == found.top[0][1] >= found.top[1][1]


def test_paths_and_pil_images_and_arrays_mean_the_same(make, tmp_path):
    images, labels = photos()
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    expected = make().fit(images, labels).predict_proba(images)
    for given in (paths, np.array([str(path) for path in paths]), [Image.fromarray(one) for one in images]):
        np.testing.assert_allclose(make().fit(given, labels).predict_proba(given), expected, atol=1e-6)


class TestScikitLearn:
    @pytest.mark.parametrize(
        "check",
        [
            "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
            "check_set_params", "check_do_not_raise_errors_in_init_or_set_param", "check_estimator_tags_renamed",
            "check_valid_tag_types", "check_estimator_repr", "check_estimator_cloneable", "check_mixin_order",
        ],
    )  # fmt: skip
    def test_estimator_checks_that_need_no_table_of_numbers(self, check):
        if not hasattr(estimator_checks, check):
            pytest.skip(f"this scikit-learn has no {check}")
        getattr(estimator_checks, check)("FewShotClassifier", FewShotClassifier())

    def test_clone_and_parameters(self, make, encoder):
        classifier = make(head="logistic", head_options={"C": 3.0}, reject=True, false_reject=0.1)
        copy = clone(classifier.fit(*photos()))
        assert not hasattr(copy, "classes_")
        assert copy.get_params()["head_options"] == {"C": 3.0}
        assert copy.set_params(head="prototype", head_options=None).head == "prototype"
        assert set(classifier.get_params()) >= {"backbone", "head", "reject", "size", "random_state", "device"}
        with pytest.raises(ValueError, match="Invalid parameter 'hed'"):
            copy.set_params(hed="prototype")

    def test_answers_before_fit_are_refused(self, make):
        for method in ("predict", "predict_proba", "decision_function", "predict_detailed"):
            with pytest.raises(NotFittedError):
                getattr(make(), method)(photos()[0])
        with pytest.raises(NotFittedError):
            make().explain(photos()[0][0])

    def test_pipeline(self, make):
        flipped = FunctionTransformer(lambda X: X[:, :, ::-1], validate=False)
        images, labels = photos()
        model = Pipeline([("flip", flipped), ("classify", make())]).fit(images, labels)
        direct = make().fit(images[:, :, ::-1], labels)
        np.testing.assert_allclose(model.predict_proba(images), direct.predict_proba(images[:, :, ::-1]))
        assert make_pipeline(make()).fit(images, labels).score(images, labels) == 1.0

    def test_cross_validation_of_images_and_of_paths(self, make, tmp_path):
        images, labels = photos((4, 4, 4))
        found = cross_val_score(make(), images, labels, cv=2)
        assert found.tolist() == [1.0, 1.0]
        paths = []
        for i, image in enumerate(images):
            paths.append(str(tmp_path / f"{i}.png"))
            Image.fromarray(image).save(paths[-1])
        folds = StratifiedKFold(2)
        assert cross_val_score(make(), paths, labels, cv=folds, error_score="raise").tolist() == [1.0, 1.0]
        chances = cross_val_predict(make(), paths, labels, cv=folds, method="predict_proba")
        np.testing.assert_allclose(chances.sum(1), 1)

    def test_grid_search_over_heads(self, make):
        images, labels = photos((4, 4, 4))
        search = GridSearchCV(make(), {"head": ["prototype", "whitened"]}, cv=2, error_score="raise")
        search.fit(images, labels)
        assert search.best_score_ == 1.0
        assert search.best_estimator_.predict(images[:1]).tolist() == ["blue"]

    def test_scorers_that_need_chances(self, make):
        images, labels = photos((4, 4, 4))
        found = cross_val_score(make(), images, labels, cv=2, scoring="neg_log_loss", error_score="raise")
        assert (found > -1.1).all()  # of three classes chance is -1.0986
        two = labels != "red"
        assert cross_val_score(make(), images[two], labels[two], cv=2, scoring="roc_auc").tolist() == [1.0, 1.0]

    def test_a_fitted_one_goes_through_pickle(self, make):
        images, labels = photos()
        classifier = make().fit(images, labels)
        again = pickle.loads(pickle.dumps(classifier))
        np.testing.assert_allclose(again.predict_proba(images), classifier.predict_proba(images), atol=1e-6)

    def test_the_same_seed_gives_the_same_answers(self, make):
        images, labels = photos()
        first, second = (make(head="cosine_classifier").fit(images, labels).predict_proba(images) for _ in range(2))
        np.testing.assert_array_equal(first, second)


class TestFromDescriptors:
    def test_they_give_the_classifier_that_photos_give(self, make, encoder):
        images, labels = photos()
        embedder = Embedder(encoder, 24)
        made = FewShotClassifier.from_descriptors(embedder, embedder.embed(images), labels, list(images))
        fitted = make().fit(images, labels)
        np.testing.assert_allclose(made.predict_proba(images), fitted.predict_proba(images), atol=1e-6)
        assert made.partial_fit(images[:1], ["new"]).classes_.tolist() == sorted([*CLASSES, "new"])

    def test_what_is_missing_is_said(self, encoder):
        images, labels = photos()
        embedder = Embedder(encoder, 24)
        pooled = embedder.embed(images, ["pooled"])
        with pytest.raises(FieldmarkError, match="takes local descriptors, and there are pooled"):
            FewShotClassifier.from_descriptors(embedder, pooled, labels, head="whitened")
        only = FewShotClassifier.from_descriptors(embedder, pooled, labels, head="prototype")
        assert (only.predict(images) == labels).all()
        with pytest.raises(FieldmarkError, match="9 pooled descriptors and 2 labels"):
            FewShotClassifier.from_descriptors(embedder, pooled, ["a", "b"], head="prototype")
        with pytest.raises(FieldmarkError, match="1 names and 9 labels"):
            FewShotClassifier.from_descriptors(embedder, pooled, labels, names=["a"], head="prototype")


IMAGES, LABELS = photos((2, 2, 0))
BAD = [
    ({}, IMAGES, LABELS[:3], "4 images and 3 labels; expected one label each"),
    ({}, IMAGES[:0], [], "no images were given"),
    ({}, [], [], "no images were given"),
    ({}, IMAGES, [0.5, 1, 2, 3], "numbers that are not whole"),
    ({}, IMAGES, [np.nan, 1, 2, 3], "numbers that are not whole"),
    ({}, IMAGES, ["a", "a", None, "b"], "labels mix"),
    ({}, IMAGES, np.array(["a", 1, 1, "a"], object), "labels mix int, str"),
    ({}, IMAGES, 5, "labels are of type int"),
    ({}, IMAGES, np.zeros((4, 2), int), "labels have shape (4, 2)"),
    ({}, IMAGES.astype(np.float32), LABELS, "array of float32"),
    ({}, IMAGES[..., :1], LABELS, "expected uint8 of shape (M, H, W, 3)"),
    ({}, "photo.jpg", ["a"], "put it into one, [image]"),
    ({}, ["no_such.jpg"] * 4, LABELS, "no_such.jpg"),
    ({}, [*IMAGES[:3], b"broken"], LABELS, "image 3"),
    ({"head": "whitend"}, IMAGES, LABELS, "did you mean 'whitened'"),
    (
        {"head": "whitened", "head_options": {"c": 1}},
        IMAGES,
        LABELS,
        "unknown option of head 'whitened' 'c'; Known: C,",
    ),
    ({"head_options": {"C": -1.0}}, IMAGES, LABELS, "expected a number above 0"),
    ({"descriptors": "dens"}, IMAGES, LABELS, "did you mean 'dense'"),
    ({"image_fit": "stretch"}, IMAGES, LABELS, "stretch"),
    ({"false_reject": 1.5}, IMAGES, LABELS, "false_reject is 1.5"),
    ({"device": "abacus"}, IMAGES, LABELS, "abacus"),
    ({"backbone": "no_backbone"}, IMAGES, LABELS, "no_backbone"),
]


@pytest.mark.parametrize(("options", "images", "labels", "words"), BAD, ids=[one[-1] for one in BAD])
def test_bad_input_gets_one_clear_line(make, options, images, labels, words):
    with pytest.raises(FieldmarkError) as caught:
        make(**options).fit(images, labels)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_another_kind_cannot_be_added(make):
    classifier = make().fit(IMAGES, LABELS)
    with pytest.raises(FieldmarkError, match="labels are numbers, and those given before are texts"):
        classifier.partial_fit(IMAGES[:1], [1])
    assert classifier.predict(IMAGES[:1]).tolist() == ["blue"]  # as before


def test_top_below_one_is_refused(make):
    with pytest.raises(FieldmarkError, match="top is 0"):
        make().fit(IMAGES, LABELS).predict_detailed(IMAGES, top=0)


def test_it_is_at_the_front_door():
    assert fm.FewShotClassifier is FewShotClassifier
