import json

import numpy as np
import pytest
import torch

from fieldmark import backbones, data, descriptors, heads
from fieldmark.backbones import Encoder
from fieldmark.data import draw_episodes
from fieldmark.data.augment import scl_first
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import encode, evaluate_few_shot, evaluate_heads, score_episodes
from fieldmark.evaluation.leakage import require_new_classes


@pytest.fixture(scope="module")
def glyphs():
    """Twelve images of each of twenty classes: enough for every protocol here, and quick to encode."""
    test = data.load("glyphs", split="test", progress=False)
    whole = test.select_classes(test.class_names[:20])
    return whole.subset(np.concatenate([np.flatnonzero(whole.labels == c)[:12] for c in range(20)]))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)


def test_accuracy_equals_a_plain_loop_over_episodes(glyphs, encoder):
    """Nearest class mean by numpy, one episode and one query at a time."""
    result = evaluate_few_shot(encoder, glyphs, way=5, shot=2, queries=3, episodes=12, seed=4)
    features = encode(encoder, glyphs)["pooled"][:, 0].numpy()
    index = result.episodes
    for e in range(12):
        support, labels = features[index.support[e]], index.support_labels[e]
        means = np.stack([support[labels == c].mean(0) for c in range(5)])
        hits = [
            np.argmin(((means - features[q]) ** 2).sum(1)) == label
            for q, label in zip(index.query[e], index.query_labels[e], strict=True)
        ]
        assert result.episode_accuracies[e] == pytest.approx(np.mean(hits))
    assert result.accuracy == pytest.approx(result.episode_accuracies.mean())


def test_per_class_accuracy_and_confusion_add_up(glyphs, encoder):
    result = evaluate_few_shot(encoder, glyphs, queries=5, episodes=30)
    assert result.confusion.sum() == 30 * 25
    assert np.trace(result.confusion) / result.confusion.sum() == pytest.approx(result.accuracy)
    name = next(iter(result.class_accuracies))
    row = result.confusion[glyphs.class_names.index(name)]
    assert result.class_accuracies[name] == pytest.approx(row[glyphs.class_names.index(name)] / row.sum())
    written = result.to_dict()["class_accuracies"]
    assert written == pytest.approx(result.class_accuracies, abs=5e-7)
    assert all(len(repr(share)) <= len("0.123456") for share in written.values())


def test_chunks_and_batch_sizes_change_nothing(glyphs, encoder, monkeypatch):
    whole = evaluate_few_shot(encoder, glyphs, episodes=8, queries=4)
    monkeypatch.setattr("fieldmark.evaluation.few_shot._BYTES_AT_ONCE", 1)
    parts = evaluate_few_shot(encoder, glyphs, episodes=8, queries=4, batch_size=37)
    np.testing.assert_array_equal(whole.predicted, parts.predicted)


def test_heads_share_episodes_and_differences_are_paired(glyphs, encoder):
    found = evaluate_heads(encoder, glyphs, {"a": "prototype", "b": "local_knn"}, episodes=15, queries=3)
    gap = found["a"].difference(found["b"])
    assert gap.mean == pytest.approx(found["a"].accuracy - found["b"].accuracy)
    other = evaluate_few_shot(encoder, glyphs, episodes=15, queries=3, seed=9)
    with pytest.raises(FieldmarkError, match="same episodes"):
        found["a"].difference(other)


def test_support_copies_replace_the_support(glyphs, encoder):
    """With copies that change nothing, the prototype of k copies is the prototype itself."""
    options = {"episodes": 15, "queries": 3, "shot": 2}
    plain = evaluate_few_shot(encoder, glyphs, **options)
    same = evaluate_few_shot(
        encoder, glyphs, support_copies=3, support_augment=lambda images, _: images.float() / 255, **options
    )
    np.testing.assert_array_equal(plain.predicted, same.predicted)
    changed = evaluate_few_shot(encoder, glyphs, support_copies=2, **options)
    assert (changed.predicted != plain.predicted).any()


def test_only_copies_that_are_support_somewhere_are_encoded(glyphs, encoder):
    """Their predictions are those of copies of every image, encoded here in one go."""
    options = {"episodes": 4, "queries": 3, "shot": 2, "support_copies": 2, "seed": 5}
    sizes = []
    hook = encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    found = evaluate_few_shot(encoder, glyphs, **options)
    hook.remove()
    used = len(np.unique(found.episodes.support))
    assert used < len(glyphs)
    assert sum(sizes) == len(glyphs) + 2 * used
    everything = [
        encode(encoder, glyphs, augment=scl_first(glyphs.size[0]), seed=5 * 1009 + copy)["pooled"] for copy in range(2)
    ]
    plain = encode(encoder, glyphs)["pooled"]
    predicted = score_episodes(heads.create("prototype"), found.episodes, plain, torch.stack(everything))
    np.testing.assert_array_equal(found.predicted, predicted)


def test_support_from_another_split_of_images(glyphs, encoder):
    halves = np.arange(len(glyphs)) % 2 == 0
    support, query = glyphs.subset(np.flatnonzero(halves)), glyphs.subset(np.flatnonzero(~halves))
    result = evaluate_few_shot(encoder, query, None, 3, None, 2, support_data=support)
    assert result.episodes.query.shape == (2, len(query))
    assert result.accuracy > 1.5 / len(glyphs.class_names)


def test_model_is_left_in_its_mode_and_evaluated_in_evaluation_mode(glyphs, encoder):
    encoder.train()
    statistics = encoder.backbone.layer1[1].running_mean.clone()
    encode(encoder, glyphs.subset(np.arange(20)))
    assert encoder.training
    assert torch.equal(statistics, encoder.backbone.layer1[1].running_mean)


def test_damaged_weights_are_named(glyphs):
    broken = Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)
    broken.backbone.layer4[0].weight.data[:] = float("nan")
    with pytest.raises(FieldmarkError, match="not finite"):
        evaluate_few_shot(broken, glyphs, queries=3, episodes=2)


def test_trained_classes_are_refused_unless_allowed(glyphs, encoder):
    facts = {"training_classes": {"glyphs": glyphs.class_names[:2]}}
    with pytest.raises(FieldmarkError, match=r"2 of \d+ test classes were in the model's training"):
        evaluate_few_shot(encoder, glyphs, queries=3, episodes=2, facts=facts)
    result = evaluate_few_shot(encoder, glyphs, queries=3, episodes=2, facts=facts, allow_leakage=True)
    assert result.leaked_classes == glyphs.class_names[:2]
    assert result.to_dict()["leaked_classes"] == glyphs.class_names[:2]


class _Store:
    def __init__(self, name, classes):
        self.class_names = classes
        self.manifest = type("M", (), {"name": name})()


@pytest.mark.parametrize(
    ("trained", "classes", "tested", "names", "leaked"),
    [
        (
            "cub-closerlook",
            ["001.Black_footed_Albatross"],
            "cub-feat-cropped",
            ["001.Black_footed_Albatross"],
            1,
        ),
        ("cub-feat", ["001.Black_footed_Albatross"], "nabirds-fieldmark", ["Black-footed Albatross"], 1),
        ("cifar_fs", ["apple"], "fc100", ["apple", "pear"], 1),
        ("cifar_fs", ["apple"], "grocery", ["apple"], 0),
        ("mini_imagenet", ["n02091244"], "stanford_dogs", ["n02091244-Ibizan_hound"], 1),
    ],
)
def test_the_same_class_under_another_name_is_found(trained, classes, tested, names, leaked):
    found = require_new_classes({"training_classes": {trained: classes}}, _Store(tested, names), allow=True)
    assert len(found) == leaked


def test_imagenet_weights_are_refused_on_imagenet_classes():
    with pytest.raises(FieldmarkError, match="allow-leakage"):
        require_new_classes({"pretraining": "ImageNet-1k"}, _Store("stanford_dogs", ["n02091244-Ibizan_hound"]))
    assert require_new_classes({"pretraining": "ImageNet-1k"}, _Store("grocery", ["apple"])) == []


def test_many_episodes_at_once_equal_one_by_one():
    torch.manual_seed(1)
    features = torch.randn(120, 4, 16)
    index = draw_episodes(np.repeat(np.arange(6), 20), way=3, shot=2, queries=4, episodes=9)
    head = heads.create("prototype")
    together = score_episodes(head, index, features)
    alone = np.concatenate([score_episodes(head, index[e : e + 1], features) for e in range(9)])
    np.testing.assert_array_equal(together, alone)


def test_centred_prototype_takes_its_centre_from_base_images(glyphs, encoder):
    options = {"episodes": 6, "queries": 3, "head_options": {"transform": "centre_l2"}}
    with pytest.raises(FieldmarkError, match="base-split"):
        evaluate_few_shot(encoder, glyphs, **options)
    base = glyphs.subset(np.arange(40))
    found = evaluate_few_shot(encoder, glyphs, base_data=base, **options)
    centre = encode(encoder, base)["pooled"].mean((0, 1))
    head = heads.create("prototype", transform="centre_l2", centre=centre)
    expected = evaluate_few_shot(encoder, glyphs, head=head, episodes=6, queries=3)
    np.testing.assert_array_equal(found.predicted, expected.predicted)


class Counting(Encoder):
    """Notes how many images it is given at a time."""

    def forward(self, images):
        self.__dict__.setdefault("seen", []).append(len(images))
        return super().forward(images)


@pytest.fixture
def counting():
    torch.manual_seed(0)
    return Counting(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)


def test_grid_features_equal_a_plain_loop_and_leave_the_pooled_vector_alone(glyphs, encoder):
    few = glyphs.subset(np.arange(7))
    grid = descriptors.create("grid", sizes=(2,))
    found = encode(encoder, few, ["pooled", "local"], descriptors=grid, batch_size=6)
    assert grid.training, "left as it was"
    encoder.eval()
    cells = descriptors.create("grid", sizes=(2,)).eval()
    with torch.no_grad():
        for i, image in enumerate(few.gather(range(7))):
            for n, cell in enumerate(cells.cut(image[None])[0]):
                torch.testing.assert_close(found["local"][i, n], encoder(cell[None])[0].mean((1, 2)))
    torch.testing.assert_close(found["pooled"], encode(encoder, few)["pooled"])


@pytest.mark.parametrize(("name", "images"), [("dense", 40), ("feature_pyramid", 40), ("grid", 40 + 9 * 40)])
def test_images_are_encoded_once_where_maps_are_enough_and_never_too_many(glyphs, counting, name, images):
    options = {"levels": (1,)} if name == "feature_pyramid" else {}
    extractor = descriptors.create(name, **options)
    encode(counting, glyphs.subset(np.arange(40)), ["pooled", "local"], descriptors=extractor, batch_size=4)
    assert sum(counting.seen) == images
    assert max(counting.seen) == 4


def test_random_windows_are_repeated_whatever_the_batch_size(glyphs, encoder):
    few, one = glyphs.subset(np.arange(20)), descriptors.create("sampling", patches=3)
    found = [encode(encoder, few, ["local"], descriptors=one, batch_size=size)["local"] for size in (1, 7, 256)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    other = encode(encoder, few, ["local"], descriptors=one, seed=1)["local"]
    assert not torch.allclose(found[0], other)


def test_a_result_says_which_descriptors_its_head_had(glyphs, encoder):
    options = {"episodes": 4, "queries": 2}
    grid = {"descriptors": "grid", "descriptor_options": {"sizes": 2}}
    found = evaluate_heads(encoder, glyphs, {"a": "prototype", "b": "local_knn"}, **options, **grid)
    said = {key: json.loads(json.dumps(result.to_dict()))["descriptors"] for key, result in found.items()}
    assert said["a"] == {"name": "pooled", "options": {}}
    assert said["b"]["name"] == "grid"
    again = evaluate_few_shot(
        encoder, glyphs, head="local_knn", **options,
        descriptors=said["b"]["name"], descriptor_options=said["b"]["options"],
    )  # fmt: skip
    np.testing.assert_array_equal(again.predicted, found["b"].predicted)
    dense = evaluate_few_shot(encoder, glyphs, head="local_knn", **options)
    assert dense.descriptors == {"name": "dense", "options": {}}
    assert (dense.predicted != found["b"].predicted).any()


def test_an_unknown_extractor_is_refused_before_anything_is_encoded(glyphs, counting):
    with pytest.raises(FieldmarkError, match="unknown extractor 'gird'; did you mean 'grid'"):
        evaluate_few_shot(counting, glyphs, head="local_knn", descriptors="gird")
    assert "seen" not in counting.__dict__
