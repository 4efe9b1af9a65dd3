"""Draws are what they promise; numbers are those of a plain loop over the classifier."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldmark import backbones
from fieldmark.backbones import Encoder, save_model
from fieldmark.cli import main as cli
from fieldmark.data import ImageStore, Manifest
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import load_record
from fieldmark.evaluation.results import compare_rows
from fieldmark.evaluation.table import results_page
from fieldmark.gallery import Embedder, FewShotClassifier
from fieldmark.gallery.kept import KeptDescriptors
from fieldmark.gallery.measuring import evaluate_own_photos
from fieldmark.gallery.supports import draw_supports

sys.path.insert(0, str(Path(__file__).parent))

from drawn import COLOURS, class_folders, picture

LABELS = np.repeat([0, 1, 2, 3], [6, 5, 3, 2])


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.3,) * 3).eval()


@pytest.fixture(scope="module")
def store():
    images = np.stack([picture(name, i) for name in COLOURS for i in range(8)])
    labels = np.repeat(np.arange(len(COLOURS)), 8)
    return ImageStore.from_arrays(images, labels, list(COLOURS), Manifest("drawn", size=(24, 24)))


def test_more_shots_contain_fewer_and_nothing_is_asked_that_was_shown():
    small, large = draw_supports(LABELS, 1, draws=3), draw_supports(LABELS, 4, draws=3)
    for draw in range(3):
        assert set(small.support[draw]) <= set(large.support[draw])
        for one in (small, large):
            assert sorted([*one.support[draw], *one.query[draw]]) == list(range(16))
            np.testing.assert_array_equal(LABELS[one.support[draw]], one.support_labels[draw])
            np.testing.assert_array_equal(LABELS[one.query[draw]], one.query_labels[draw])
    assert np.bincount(large.support_labels[0]).tolist() == [4, 4, 2, 1]  # one of each class is left to ask about
    assert len({tuple(sorted(row)) for row in large.support}) > 1


def test_queries_from_elsewhere_or_a_few():
    asked = np.array([3, 2, 1, 0, 0])
    found = draw_supports(LABELS, 9, draws=2, query_labels=asked)
    assert sorted(found.support[0]) == list(range(16))
    assert sorted(found.query[1]) == list(range(5))
    one, two = (draw_supports(LABELS, shot, 1, draws=2) for shot in (1, 2))
    np.testing.assert_array_equal(one.query, two.query)
    assert one.query.shape == (2, 4)
    assert draw_supports(LABELS, 1, seed=1).hash != draw_supports(LABELS, 1).hash == draw_supports(LABELS, 1).hash


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shot": 0}, "shot is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"queries": 0}, "queries is 0"),
        ({"labels": np.array([0, 1, 1])}, "a class has one image"),
        ({"labels": np.zeros(4, int)}, "1 classes in common"),
    ],
)
def test_draws_that_cannot_be_are_refused(options, words):
    with pytest.raises(FieldmarkError, match=words):
        draw_supports(**{"labels": LABELS, "shot": 1, **options})


def test_numbers_are_those_of_the_classifier(encoder, store):
    from sklearn.metrics import roc_auc_score

    found = evaluate_own_photos(
        encoder, store, ["whitened", "prototype"], shot=3, draws=2, left_out=2, progress=False
    )  # fmt: skip
    embedder = Embedder(encoder, 24)
    for name, result in found.items():
        for draw in range(2):
            one = result.episodes[draw : draw + 1]
            support, query = one.support[0], one.query[0]
            classifier = FewShotClassifier(encoder, name, size=24)
            classifier.fit(store.images[support], store.labels[support])
            assert (result.hits[draw] == (classifier.predict(store.images[query]) == one.query_labels[0])).all()
            chances = classifier.predict_proba(store.images[query]).max(1)
            np.testing.assert_allclose(result.confidence[draw], chances, atol=1e-4)
            left = np.setdiff1d(np.arange(4), _kept(result, draw, classifier, store, embedder))
            assert len(left) == 2
    whitened = found["whitened"]
    assert whitened.measures["ece"].count == 2
    assert 0.5 <= whitened.measures["auroc"].mean <= 1
    assert whitened.difference(found["prototype"]).mean == pytest.approx(
        whitened.hits.mean() - found["prototype"].hits.mean()
    )
    assert roc_auc_score([0, 1], [0.1, 0.2]) == 1.0


def _kept(result, draw, classifier, store, embedder):
    """The two classes whose classifier alone gives this draw's AUROC; found by trying all pairs."""
    from itertools import combinations

    from sklearn.metrics import roc_auc_score

    one = result.episodes[draw : draw + 1]
    support, query = one.support[0], one.query[0]
    for pair in combinations(range(4), 2):
        stay = np.isin(store.labels[support], pair)
        fitted = FewShotClassifier.from_descriptors(
            embedder, embedder.embed(store.images[support[stay]]), store.labels[support[stay]], head=classifier.head
        )
        scores = fitted.score_descriptors(embedder.embed(store.images[query])).amax(-1).numpy()
        known = np.isin(store.labels[query], pair)
        if roc_auc_score(known, scores) == pytest.approx(result.rejections[draw].auroc, abs=0.02):
            return pair
    raise AssertionError("no pair of classes gives this AUROC")


def test_kept_descriptors_are_made_once_and_go_on_where_they_stopped(encoder, store, tmp_path, monkeypatch):
    from fieldmark.descriptors import as_extractor
    from fieldmark.gallery import kept as module

    encoded = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda *a, **k: encoded.append(len(a[1])) or encode(*a, **k))
    kept = KeptDescriptors(tmp_path / "kept", encoder, as_extractor("dense"))
    first = kept.describe(store, [3, 1], ["local", "pooled"], progress=False)
    again = KeptDescriptors(tmp_path / "kept", encoder, as_extractor("dense"))
    both = again.describe(store, [1, 2, 3], ["local", "pooled"], progress=False)
    assert encoded == [2, 1]
    assert torch.equal(both["pooled"][[2, 0]], first["pooled"])
    expected = Embedder(encoder, 24).embed(store.images[[1, 2, 3]])
    torch.testing.assert_close(both["pooled"], expected["pooled"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both["local"], expected["local"], atol=5e-3, rtol=2e-3)  # half precision
    torch.manual_seed(1)
    other = Encoder(backbones.create("conv4", channels=8), (0.5,) * 3, (0.3,) * 3).eval()
    KeptDescriptors(tmp_path / "kept", other, as_extractor("dense")).describe(store, [1], ["local"], progress=False)
    assert encoded == [2, 1, 1], "another model's descriptors are not taken for these"


def test_a_head_may_stand_twice_and_each_has_its_own_options(encoder, store):
    found = evaluate_own_photos(
        encoder, store, {"far": "prototype", "near": "prototype"}, shot=2, draws=2,
        head_options={"near": {"metric": "cosine"}}, progress=False,
    )  # fmt: skip
    assert (found["far"].uncalibrated != found["near"].uncalibrated).any()
    for key, options in (("far", {}), ("near", {"metric": "cosine"})):
        alone = evaluate_own_photos(
            encoder, store, ["prototype"], shot=2, draws=2, head_options={"prototype": options}, progress=False
        )["prototype"]
        np.testing.assert_array_equal(found[key].uncalibrated, alone.uncalibrated)
        assert found[key].head_options == alone.head_options == options


def test_too_many_left_out(encoder, store):
    with pytest.raises(FieldmarkError, match="left_out is 3 of 4 classes; expected to leave at least 2"):
        evaluate_own_photos(encoder, store, ["prototype"], shot=1, left_out=3, progress=False)


def test_the_command_writes_a_result_that_the_page_shows(encoder, tmp_path, capsys):
    folder = class_folders(tmp_path / "photos", dict.fromkeys(COLOURS, 5))
    facts = {"manifest": {"name": "folder", "size": [24, 24]}}
    model = save_model(tmp_path / "model.safetensors", encoder, facts)
    target = tmp_path / "results" / "own.json"
    target.parent.mkdir()
    words = ["eval", str(model), "--task", "own-photos", "--root", str(folder), "--shot", "2", "--draws", "2",
             "--leave-out", "1", "--head", "whitened,near=prototype", "--head-option", "near.metric=cosine",
             "--json", str(target)]  # fmt: skip
    status = cli.main(words)
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert "calibration" in shown.out
    record = load_record(target)
    first, second = record["rows"]
    assert first["over"] == "draws"
    assert (first["head"], first["head_options"]) == ("whitened", {})
    assert (second["head"], second["head_options"]) == ("prototype", {"metric": "cosine"})
    assert first["interval"] == "student"
    gap = compare_rows(second, first)
    hits = np.array([second["hits_per_episode"], first["hits_per_episode"]]) / first["queries_per_episode"]
    differences = hits[0] - hits[1]
    # Student's t with one degree of freedom: 12.706
    assert gap.ci95 == pytest.approx(12.706 * differences.std(ddof=1) / np.sqrt(2), rel=1e-3, abs=1e-9)
    assert "4 classes of up to 2 photos, 12 asked about, 2 draws" in results_page(target.parent)
    assert json.loads(target.read_text())["rows"][0]["measures"]["auroc"]["count"] == 2
    assert cli.main([*words, "--way", "5"]) != 0
    assert "--way is an option of --task few-shot" in capsys.readouterr().err
    assert cli.main([*words, "--draws", "1"]) != 0
    assert "--draws is 1; expected at least 2" in capsys.readouterr().err
