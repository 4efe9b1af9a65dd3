"""Top-1: shares, confusion and intervals against other packages; classes by name; what reaches the classifier."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, recall_score, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_accuracy

from fieldmark import backbones, classifiers
from fieldmark.backbones import Encoder, TrainedClassifier
from fieldmark.classifiers.trained import keep
from fieldmark.data import ImageStore, Manifest, hold_out
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import evaluate_top1
from fieldmark.evaluation.features import encode
from fieldmark.evaluation.top1 import check_classes, in_order

CLASSES = 7
NAMES = [f"kind {number}" for number in range(CLASSES)]


def store(seed=0, images=61, size=20, split="test", names=NAMES):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(len(names)), rng.integers(0, len(names), images - len(names))])
    pixels = rng.integers(0, 100, (images, size, size, 3)) + 20 * labels[:, None, None, None]
    return ImageStore.from_arrays(pixels.astype(np.uint8), labels, names, Manifest("kinds", split=split))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = classifiers.create("linear")
    made.setup(8, CLASSES)
    backbone = backbones.create("conv4", channels=8)
    return Encoder(backbone, (0.5,) * 3, (0.2,) * 3, classifier=keep(made, NAMES)).eval()


def scores_of(encoder, data):
    weights = encoder.classifier.weights
    with torch.no_grad():
        pooled = encoder(data.gather(range(len(data)))).mean((-2, -1))
        return pooled @ weights["layer.weight"].T + weights["layer.bias"]


def test_accuracies_and_confusion_are_those_of_other_packages(encoder):
    data = store()
    result = evaluate_top1(encoder, data, progress=False)
    scores, labels = scores_of(encoder, data), torch.from_numpy(data.labels)
    predicted = scores.argmax(-1)
    assert result.accuracy == pytest.approx(float((predicted == labels).double().mean()))
    everyone = range(CLASSES)
    assert result.top5 == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=list(everyone)))
    for k, ours in ((1, result.accuracy), (5, result.top5)):
        theirs = multiclass_accuracy(scores, labels, CLASSES, average="micro", top_k=k)
        assert ours == pytest.approx(float(theirs))
    assert np.array_equal(result.confusion, confusion_matrix(labels, predicted, labels=list(everyone)))
    recalls = recall_score(labels, predicted, labels=list(everyone), average=None, zero_division=0)
    assert [result.class_accuracies[name] for name in NAMES] == pytest.approx(recalls.tolist())
    record = result.to_dict()
    fifth = scores.topk(5).indices
    assert record["hits_per_episode"] == "".join(str(int(hit)) for hit in predicted == labels)
    assert record["top5_hits_per_image"] == "".join(str(int(hit)) for hit in (fifth == labels[:, None]).any(1))
    assert record["top5_hits_per_image"] != record["hits_per_episode"]
    written = record["class_accuracies"]
    assert [written[name] for name in NAMES] == pytest.approx(recalls.tolist(), abs=5e-7)
    assert all(len(repr(share)) <= len("0.123456") for share in written.values())
    assert result.mean_class_accuracy == pytest.approx(recalls.mean())
    half = 1.96 * np.sqrt(result.accuracy * (1 - result.accuracy) / len(data))  # of a share
    assert result.estimate.ci95 == pytest.approx(half)
    assert result.estimate.over == "images"


def test_the_most_confused_pairs_are_the_largest_off_the_diagonal(encoder):
    result = evaluate_top1(encoder, store(images=200), progress=False)
    pairs = result.confused(4)
    counts = {(NAMES[r], NAMES[c]): int(result.confusion[r, c])
              for r in range(CLASSES) for c in range(CLASSES) if r != c}  # fmt: skip
    assert [count for *_, count in pairs] == sorted(counts.values(), reverse=True)[:4]
    assert all(counts[true, guess] == count for true, guess, count in pairs)


def test_classes_are_matched_by_name_not_by_number(encoder):
    data = store()
    before = evaluate_top1(encoder, data, progress=False)
    order = np.random.default_rng(3).permutation(CLASSES)
    kept = encoder.classifier
    weights = {key: value[torch.from_numpy(order)] for key, value in kept.weights.items()}
    encoder.classifier = TrainedClassifier(kept.name, kept.options, weights, tuple(NAMES[i] for i in order))
    after = evaluate_top1(encoder, data, progress=False)
    assert np.array_equal(before.predicted, after.predicted)
    assert 0 < before.accuracy < 1


def test_planted_wrong_class_names_are_refused_in_one_line(encoder):
    wrong = ["kind 0", "kind 1", "kind 2", "fig", "plum", "pear", "apple"]
    with pytest.raises(FieldmarkError, match="only the model has 'kind 3', 'kind 4', 'kind 5' and 1 more") as caught:
        evaluate_top1(encoder, store(names=wrong), progress=False)
    assert "only the data has 'fig', 'plum', 'pear' and 1 more" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(FieldmarkError, match="the support has 7 classes and the data 7"):
        evaluate_top1(encoder, store(), "prototype", support_data=store(1, names=wrong), progress=False)
    assert check_classes(["b", "a"], store(names=["a", "b"], images=4)).tolist() == [1, 0]


def test_a_model_without_a_classifier_says_what_to_do(encoder):
    encoder.classifier = None
    with pytest.raises(FieldmarkError, match=r"no classifier of its own.*--head logistic"):
        evaluate_top1(encoder, store(), progress=False)
    with pytest.raises(FieldmarkError, match="fitted on labelled images"):
        evaluate_top1(encoder, store(), "prototype", progress=False)


def test_a_fitted_head_is_the_one_of_all_training_images(encoder):
    train, test = store(1, 90, split="train"), store()
    result = evaluate_top1(encoder, test, "logistic", {"C": 1.0}, support_data=train, progress=False)
    assert result.support["split"] == "train"
    known, asked = (encode(encoder, one, progress=False)["pooled"][:, 0] for one in (train, test))
    known, asked = (one / one.norm(dim=1, keepdim=True) for one in (known, asked))
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(known, train.labels).predict(asked)
    assert (theirs == result.predicted).mean() > 0.95


def test_what_the_model_cuts_out_is_cut_before_the_classifier_sees_it(encoder):
    """A classifier that looks at the image again must see what the backbone sees."""
    seen = []

    class Looking(classifiers.Linear):
        def forward(self, encode, images):
            seen.append((tuple(images.shape[-2:]), float(images.min()), float(images.max())))
            return super().forward(encode, images)

    encoder.crop = 16
    data = store()
    expected = evaluate_top1(encoder, data, progress=False)
    classifiers.CLASSIFIERS.add("looking", "for this test")(Looking)
    try:
        kept = encoder.classifier
        encoder.classifier = TrainedClassifier("looking", {}, kept.weights, kept.class_names)
        result = evaluate_top1(encoder, data, batch_size=10, progress=False)
    finally:
        del classifiers.CLASSIFIERS._entries["looking"]
    assert {shape for shape, *_ in seen} == {(16, 16)}
    assert min(low for _, low, _ in seen) >= 0
    assert max(high for *_, high in seen) <= 1
    assert np.array_equal(result.predicted, expected.predicted)


def test_predictions_do_not_depend_on_the_batch(encoder):
    results = [evaluate_top1(encoder, store(), batch_size=size, progress=False) for size in (1, 7, 61)]
    assert all(np.array_equal(results[0].predicted, one.predicted) for one in results)


def test_the_paired_difference_is_over_the_same_images(encoder):
    data = store()
    one = evaluate_top1(encoder, data, progress=False)
    other = evaluate_top1(encoder, data, "prototype", support_data=store(1, 90, split="train"), progress=False)
    gap = one.difference(other)
    assert gap.mean == pytest.approx(one.accuracy - other.accuracy)
    assert gap.ci95 == pytest.approx(1.96 * np.std(one.hits.astype(float) - other.hits) / np.sqrt(len(data)))
    with pytest.raises(FieldmarkError, match="same images"):
        one.difference(evaluate_top1(encoder, store(5), progress=False))


def test_descriptors_are_kept_for_the_next_head(encoder, monkeypatch):
    from fieldmark.evaluation import top1

    calls, described = [], {}
    monkeypatch.setattr(top1, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k))
    given = {"support_data": store(1, 90, split="train"), "progress": False}
    heads = "prototype", "nearest"
    alone = [evaluate_top1(encoder, store(), head, **given) for head in heads]
    calls.clear()
    together = [evaluate_top1(encoder, store(), head, described=described, **given) for head in heads]
    assert len(calls) == 2
    assert all(np.array_equal(a.predicted, b.predicted) for a, b in zip(alone, together, strict=True))


def test_what_has_to_be_known_is_noted(encoder):
    facts = {"manifest": {"name": "kinds", "split": "test"}, "model_selection": "best-test-epoch"}
    notes = evaluate_top1(encoder, store(), facts=facts, progress=False).notes
    assert any("trained on images of split 'test'" in note for note in notes)
    assert any("best-test-epoch" in note and "too good" in note for note in notes)
    assert evaluate_top1(encoder, store(), progress=False).notes == []


def test_damaged_weights_are_one_line(encoder):
    encoder.classifier.weights["layer.bias"][2] = float("nan")
    with pytest.raises(FieldmarkError, match="scores of image 0 are not finite"):
        evaluate_top1(encoder, store(), progress=False)


def test_equal_scores_go_to_the_class_that_comes_first():
    assert in_order(torch.zeros(2, 3), 5).tolist() == [[0, 1, 2]] * 2


def test_held_out_images_are_a_share_of_each_class_chosen_by_the_seed():
    data = store(images=300)
    kept, held = hold_out(data, 0.2, seed=1)
    assert sorted(kept.names + held.names, key=int) == data.names
    for whole, part in zip(data.class_counts(), held.class_counts(), strict=True):
        assert part == round(0.2 * whole)
    assert hold_out(data, 0.2, seed=1)[1].names == held.names
    assert hold_out(data, 0.2, seed=2)[1].names != held.names
    assert held.manifest.split == "test held out 0.2"
    assert (held.manifest.class_checksum, kept.manifest.split) == (data.manifest.class_checksum, "test")


def test_no_class_is_emptied_and_every_class_of_two_is_represented():
    labels = [0, 1, 1, 2, 2, 2]
    data = ImageStore.from_arrays(np.zeros((6, 4, 4, 3), np.uint8), labels, ["a", "b", "c"], Manifest("few"))
    kept, held = hold_out(data, 0.9)
    assert (kept.class_counts().tolist(), held.class_counts().tolist()) == ([1, 1, 1], [0, 1, 2])
    assert hold_out(data, 0.01)[1].class_counts().tolist() == [0, 1, 1]
    with pytest.raises(FieldmarkError, match="nothing can be held out"):
        hold_out(data.subset([0]), 0.1)
    with pytest.raises(FieldmarkError, match="above 0 and below 1"):
        hold_out(data, 1.0)
