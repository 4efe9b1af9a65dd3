"""A classifier that was trained with a model: kept in its file, made again, handed on by a training run."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fieldmark import backbones, classifiers, methods
from fieldmark.backbones import Encoder, TrainedClassifier, TrainedHead, load_model, save_model
from fieldmark.classifiers.trained import classifier_of, keep
from fieldmark.cli import main as cli
from fieldmark.errors import FieldmarkError
from fieldmark.training.handover import go_on_with_classifier, trained_classifier

NAMES = ["apple", "pear", "plum"]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = classifiers.create("linear", dropout=0.4)
    made.setup(8, 3)
    backbone = backbones.create("conv4", channels=8)
    return Encoder(backbone, (0.5,) * 3, (0.2,) * 3, classifier=keep(made, NAMES)).eval()


@pytest.fixture
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def by_hand(encoder, images):
    weights = encoder.classifier.weights
    return encoder(images).mean((-2, -1)) @ weights["layer.weight"].T + weights["layer.bias"]


def test_it_scores_as_its_weights_say_and_without_dropout(encoder, images):
    made = classifier_of(encoder)
    assert made.dropout.p == 0.4
    torch.testing.assert_close(made(encoder, images), by_hand(encoder, images))


def test_it_comes_back_from_the_file_beside_a_head(encoder, images, tmp_path):
    encoder.head = TrainedHead("prototype", {"metric": "cosine"})
    before = by_hand(encoder, images)
    path = save_model(tmp_path / "model.safetensors", encoder)
    assert {"classifier.layer.weight", "classifier.layer.bias"} <= set(load_file(path))
    back, _ = load_model(path)
    assert back.classifier.class_names == tuple(NAMES)
    assert (back.classifier.name, back.classifier.options) == ("linear", {"dropout": 0.4})
    assert back.head.options == {"metric": "cosine"}
    torch.testing.assert_close(classifier_of(back)(back, images), before)


def test_half_a_file_keeps_it(encoder, images, tmp_path, capsys):
    path = save_model(tmp_path / "model.safetensors", encoder)
    small = tmp_path / "small.safetensors"
    assert cli.main(["convert", str(path), "--from", "fieldmark", "--half", "--out", str(small)]) == 0
    assert load_file(small)["classifier.layer.weight"].dtype == torch.float16
    back, _ = load_model(small)
    assert back.classifier.weights["layer.weight"].dtype == torch.float32
    assert back.classifier.class_names == tuple(NAMES)
    torch.testing.assert_close(classifier_of(back)(back, images), by_hand(encoder, images), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("header", ["{", '{"name": "linear", "options": {}}', '{"name": 1, "options": {}}', "null"])
def test_a_damaged_header_is_one_clear_line(encoder, tmp_path, header):
    path = save_model(tmp_path / "model.safetensors", encoder)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, "classifier": header})
    with pytest.raises(FieldmarkError, match="its trained classifier cannot be read; expected a name, options and c"):
        load_model(path)


def test_a_file_without_one_has_none(encoder, tmp_path):
    encoder.classifier = None
    back, _ = load_model(save_model(tmp_path / "model.safetensors", encoder))
    assert back.classifier is None
    with pytest.raises(FieldmarkError, match="no classifier of its own"):
        classifier_of(back)


def test_one_of_another_width_is_refused(encoder):
    kept = encoder.classifier
    encoder.classifier = TrainedClassifier(kept.name, kept.options, kept.weights, kept.class_names[:2])
    with pytest.raises(FieldmarkError, match=r"entry 'layer.weight' of the trained classifier 'linear' is \(3, 8\)"):
        classifier_of(encoder)


def test_one_that_was_not_made_by_name_cannot_be_kept():
    with pytest.raises(FieldmarkError, match="Linear was not made by name"):
        keep(classifiers.Linear(), NAMES)


def test_an_objective_that_classifies_leaves_its_classifier_and_others_leave_none(encoder, images):
    objective = methods.create("cross_entropy", rotation="self_supervised")
    objective.setup(8, 3)
    for learned in (None, objective.state_dict()):
        kept = trained_classifier(methods.create("cross_entropy") if learned else objective, NAMES, 8, learned)
        encoder.classifier = kept
        expected = nn.functional.linear(encoder(images).mean((-2, -1)), objective.classifier.weight,
                                        objective.classifier.bias)  # fmt: skip
        torch.testing.assert_close(classifier_of(encoder)(encoder, images), expected)
        assert set(kept.weights) == {"layer.weight", "layer.bias"}
    protonet = methods.create("protonet")
    protonet.setup(8, 3)
    assert trained_classifier(protonet, NAMES, 8) is None
    assert trained_classifier(protonet, NAMES, 8, protonet.state_dict()) is None


def test_training_goes_on_with_it_only_for_the_same_classes(encoder):
    objective = methods.create("cross_entropy")
    objective.setup(8, 3)
    assert go_on_with_classifier(objective, encoder, ["apple", "pear", "fig"]) == []
    assert go_on_with_classifier(objective, encoder, NAMES) == ["classifier.weight", "classifier.bias"]
    assert torch.equal(objective.classifier.weight, encoder.classifier.weights["layer.weight"])
