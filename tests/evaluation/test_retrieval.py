"""Retrieval against pytorch-metric-learning's calculator, and against plain loops from the definitions."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fieldmark import backbones, data, functional
from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore, Manifest
from fieldmark.descriptors import create
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import (
    encode,
    evaluate_metrics,
    evaluate_retrieval,
    load_record,
    make_record,
    retrieval_measures,
    save_record,
)
from fieldmark.evaluation.ranking import pooled_ranking, rerank, top_ranked
from fieldmark.evaluation.results import accuracies, compare_rows
from fieldmark.evaluation.table import results_page

SIZES = (1, 2, 3, 7, 4, 1)  # two classes of one image


def labels_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.fixture
def store():
    """Classes of unequal size, two of them of one image: a pattern under noise."""
    rng = np.random.default_rng(0)
    labels = labels_of(SIZES)
    patterns = rng.integers(0, 255, (len(SIZES), 16, 16, 3))
    images = (0.25 * patterns[labels] + rng.normal(90, 50, (len(labels), 16, 16, 3))).clip(0, 255).astype(np.uint8)
    order = rng.permutation(len(labels))
    names = [f"kind {number}" for number in range(len(SIZES))]
    return ImageStore.from_arrays(
        images[order], labels[order], names, Manifest("patterns", split="test", size=(16, 16))
    )


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    backbone = backbones.create("conv4", channels=8, last_pool=False, project=6)
    return Encoder(backbone, (0.5,) * 3, (0.25,) * 3)


def measures_by_hand(ranked, label, relevant):
    """The three definitions of Musgrave et al. 2020 for one query."""
    hits = [one == label for one in ranked[:relevant]]
    average = sum(sum(hits[: i + 1]) / (i + 1) for i in range(relevant) if hits[i]) / relevant
    return float(ranked[0] == label), sum(hits) / relevant, average


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_their_definitions(seed):
    rng = np.random.default_rng(seed)
    relevant = torch.from_numpy(rng.random((9, 12)) < 0.4)
    counts = torch.from_numpy(rng.integers(1, 13, 9))
    found = retrieval_measures(relevant, counts)
    for q in range(9):
        wanted = measures_by_hand(relevant[q].tolist(), True, int(counts[q]))
        assert [float(one[q]) for one in found] == pytest.approx(wanted, abs=1e-12)


def test_a_perfect_ranking_is_1_and_what_follows_rank_r_does_not_count():
    relevant = torch.tensor([[True, True, False, True], [False, False, True, True]])
    found = retrieval_measures(relevant, torch.tensor([2, 2]))
    assert [one.tolist() for one in found] == [[1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize("counts", [[0, 2], [1, 5]])
def test_measures_need_relevant_images_and_enough_ranks(counts):
    with pytest.raises(FieldmarkError, match="expected 1 to 4"):
        retrieval_measures(torch.ones(2, 4, dtype=torch.bool), torch.tensor(counts))


def test_of_equal_scores_the_first_is_the_nearer():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (40, 30), generator=generator).float()  # ties everywhere, also across rank k
    for k in (1, 7, 29, 30):
        for row, found in zip(scores.tolist(), top_ranked(scores, k).tolist(), strict=True):
            assert found == sorted(range(30), key=lambda i: (-row[i], i))[:k]


def test_the_measures_are_those_of_pytorch_metric_learning(store, encoder):
    """Classes of unequal size; those of one image are left out on both sides."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    embeddings, labels = encode(encoder, store)["pooled"][:, 0], torch.as_tensor(store.labels)

    def neighbours(query, k, reference, same):
        assert same
        distances = torch.cdist(torch.nn.functional.normalize(query), torch.nn.functional.normalize(reference))
        values, index = distances.fill_diagonal_(torch.inf).sort(dim=1)
        return values[:, :k], index[:, :k]

    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"), knn_func=neighbours,
        kmeans_func=lambda *_: None, k="max_bin_count", device=torch.device("cpu"),
    )  # fmt: skip
    theirs = calculator.get_accuracy(embeddings, labels, embeddings, labels, ref_includes_query=True)
    ours = evaluate_retrieval(encoder, store)
    assert ours.left_out == 2
    assert "2 images have no other image of their class" in ours.notes[0]
    assert ours.precision_at_1 == pytest.approx(theirs["precision_at_1"])
    assert ours.r_precision == pytest.approx(theirs["r_precision"])
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"])
    assert 0 < ours.map_at_r < ours.r_precision < 1


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def by_hand(store, score, queries):
    """Every query, one at a time: sort all other images by ``score(query, image)``."""
    rows = []
    for q in queries:
        others = [i for i in range(len(store)) if i != q]
        ranked = sorted(others, key=lambda i: -score(q, i))
        relevant = int((store.labels == store.labels[q]).sum()) - 1
        rows.append(measures_by_hand(store.labels[ranked], store.labels[q], relevant))
    return np.array(rows)


def test_the_pooled_metric_is_a_plain_loop(store, encoder):
    features = encode(encoder, store)["pooled"][:, 0].double()
    result = evaluate_retrieval(encoder, store)
    rows = by_hand(store, lambda q, i: cosine(features[q], features[i]), result.queries)
    for column, values in enumerate(result.values.values()):
        np.testing.assert_allclose(values, rows[:, column])
    for name, found in result.class_precision.items():
        own = [rows[n, 0] for n, q in enumerate(result.queries) if store.class_names[store.labels[q]] == name]
        assert found == pytest.approx(np.mean(own))
    assert set(result.class_precision) == {"kind 1", "kind 2", "kind 3", "kind 4"}
    written = result.to_dict()["class_accuracies"]
    assert written == pytest.approx(result.class_precision, abs=5e-7)
    assert all(len(repr(share)) <= len("0.123456") for share in written.values())


def transport_similarity(u, v):
    """DeepEMD's equations for two sets by POT: centred cosines, cross-reference weights with 1e-3, eq. 11 and 12."""
    import ot

    weights = []
    for one, other in ((u, v), (v, u)):
        raw = np.maximum(one @ other.mean(0), 0) + 1e-3
        weights.append(raw / raw.sum() * len(u))
    a, b = (x - x.mean(1, keepdims=True) for x in (u, v))
    cosines = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]
    flow = ot.emd(*weights, 1 - cosines)
    return float((flow * cosines).sum() / len(u))


@pytest.mark.parametrize(
    ("descriptors", "options"), [("dense", {}), ("feature_pyramid", {"levels": (2, 1)}), ("sampling", {"patches": 4})]
)
def test_a_shortlist_of_the_whole_gallery_is_the_exact_ranking(store, encoder, descriptors, options):
    """One query and one image at a time, by POT; nothing of the pooled ranking is left in it."""
    how = {"descriptors": descriptors, "descriptor_options": options, "seed": 3}
    result = evaluate_retrieval(encoder, store, "emd", None, **how)
    extractor = create(descriptors, **options)
    sets = encode(encoder, store, ("local",), descriptors=extractor, seed=3)["local"].double().numpy()
    rows = by_hand(store, lambda q, i: transport_similarity(sets[q], sets[i]), result.queries)
    for column, values in enumerate(result.values.values()):
        np.testing.assert_allclose(values, rows[:, column])
    assert result.shortlist == len(store) - 1
    assert result.beyond_shortlist == 0
    longer = evaluate_retrieval(encoder, store, "emd", 10_000, **how)
    np.testing.assert_array_equal(longer.nearest, result.nearest)


@pytest.mark.parametrize("shortlist", [1, 4])
def test_a_shortlist_is_ranked_anew_and_the_rest_keeps_its_order(store, encoder, shortlist):
    sets = encode(encoder, store, ("pooled", "local"))
    local = sets["local"].double().numpy()
    found = evaluate_metrics(encoder, store, ["pooled", "emd"], shortlist)
    for q, pooled, emd in zip(found["emd"].queries, found["pooled"].nearest, found["emd"].nearest, strict=True):
        first = sorted(pooled[:shortlist], key=lambda i: -transport_similarity(local[q], local[i]))
        assert emd.tolist() == [*first, *pooled[shortlist:]]
    largest = max(SIZES) - 1
    beyond = sum(size for size in SIZES if size - 1 > shortlist)
    assert found["emd"].beyond_shortlist == beyond
    assert any(f"{beyond} of {sum(SIZES) - 2} queries" in note for note in found["emd"].notes)
    assert shortlist < largest
    assert found["pooled"].beyond_shortlist == 0
    if shortlist == 1:
        assert found["emd"].map_at_r == found["pooled"].map_at_r


def test_chunks_change_nothing(store, encoder, monkeypatch):
    whole = evaluate_metrics(encoder, store, ["pooled", "emd"], 9)
    monkeypatch.setattr("fieldmark.evaluation.ranking._BYTES_AT_ONCE", 1)  # one pair at a time
    monkeypatch.setattr("fieldmark.evaluation.retrieval._BYTES_AT_ONCE", 1)  # one query at a time
    parts = evaluate_metrics(encoder, store, ["pooled", "emd"], 9, batch_size=5)
    for name in whole:
        np.testing.assert_array_equal(whole[name].nearest, parts[name].nearest)
        for key in whole[name].values:
            np.testing.assert_array_equal(whole[name].values[key], parts[name].values[key])


def test_equal_images_are_ranked_by_their_number():
    gallery = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))
    assert pooled_ranking(gallery, torch.tensor([2, 1]), 4).tolist() == [[0, 3, 1, 4], [0, 2, 3, 4]]
    same = rerank(
        lambda q, s: torch.ones(len(q), 1, s.shape[1]), gallery[:, None], torch.tensor([2]),
        torch.tensor([[3, 0, 4, 1]]), 3,
    )  # fmt: skip
    assert same.tolist() == [[3, 0, 4, 1]]


def test_a_collapsed_embedding_is_no_better_than_the_order_of_the_images(store):
    """All similarities are equal: the ranking is the order of the images, whatever they show."""
    blank = ImageStore.from_arrays(np.zeros_like(store.images), store.labels, store.class_names, store.manifest)
    result = evaluate_retrieval(backbones.create("pixels"), blank)
    for q, nearest in zip(result.queries, result.nearest, strict=True):
        assert nearest.tolist() == [i for i in range(len(blank)) if i != q][:10]


def test_options_reach_the_similarity(store, encoder):
    similarity = functional.emd_similarity
    sets = encode(encoder, store, ("local",))["local"]
    result = evaluate_retrieval(encoder, store, "emd", None, {"weights": "equal", "variant": "paper"})
    scores = similarity(sets, sets, weights="equal", variant="paper").fill_diagonal_(-torch.inf)
    best = scores.argmax(1)[torch.as_tensor(result.queries)]
    np.testing.assert_array_equal(result.nearest[:, 0], best)
    assert result.metric_options == {"weights": "equal", "variant": "paper"}


def test_differences_are_paired_over_queries(store, encoder):
    found = evaluate_metrics(encoder, store, ["pooled", "emd"], 9)
    for measure in ("precision_at_1", "r_precision", "map_at_r"):
        gap = found["emd"].difference(found["pooled"], measure)
        values = found["emd"].values[measure] - found["pooled"].values[measure]
        assert gap.mean == pytest.approx(values.mean())
        assert gap.ci95 == pytest.approx(1.96 * values.std() / math.sqrt(len(values)))
    other = evaluate_retrieval(encoder, store.subset(np.arange(len(store) - 1)))
    with pytest.raises(FieldmarkError, match="same queries"):
        found["emd"].difference(other)
    with pytest.raises(FieldmarkError, match="did you mean 'map_at_r'"):
        found["emd"].difference(found["pooled"], "map_at")


def test_a_result_is_a_record_and_a_line_of_the_page(store, encoder, tmp_path):
    found = evaluate_metrics(encoder, store, ["pooled", "emd"], 5, descriptors="feature_pyramid")
    rows = [{"model": "m", **result.to_dict()} for result in found.values()]
    published = [{"label": "DeepEMD", "mean": 0.5, "head": "emd"}]
    save_record(tmp_path / "r.json", make_record("patterns", rows, {"m": {"trained": False}}, published))
    pooled, emd = load_record(tmp_path / "r.json")["rows"]
    assert accuracies(emd).mean() == pytest.approx(found["emd"].precision_at_1)
    assert compare_rows(emd, pooled).mean == pytest.approx(found["emd"].difference(found["pooled"]).mean)
    assert np.mean(emd["map_at_r_per_query"]) == pytest.approx(found["emd"].map_at_r, abs=1e-5)
    assert emd["measures"]["r_precision"]["mean"] == pytest.approx(found["emd"].r_precision)
    assert emd["descriptors"]["name"] == "feature_pyramid"
    page = results_page(tmp_path)
    cells = [one.percent() for one in found["emd"].estimates.values()]
    cells = " | ".join([*cells, found["emd"].difference(found["pooled"]).percent()])
    assert f"| m | emd, feature_pyramid, shortlist 5 | {cells} | 50.00 (DeepEMD) |" in page
    assert f"retrieval, {sum(SIZES) - 2} queries among {sum(SIZES)} images" in page


def test_trained_classes_are_refused_unless_allowed(store, encoder):
    facts = {"training_classes": {"patterns": ["kind 3"]}}
    with pytest.raises(FieldmarkError, match="1 of 6 test classes were in the model's training"):
        evaluate_retrieval(encoder, store, facts=facts)
    assert evaluate_retrieval(encoder, store, facts=facts, allow_leakage=True).leaked_classes == ["kind 3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "emdd"}, "did you mean 'emd'"),
        ({"metric": "emd", "metric_options": {"variantt": 1}}, "did you mean 'variant'"),
        ({"metric": "emd", "metric_options": {"solver": "simplx"}}, "did you mean 'simplex'"),
        (
            {"metric": "emd", "metric_options": {"temperature": "abc"}},
            "temperature of retrieval metric emd is 'abc'; expected a number",
        ),
        ({"metric": "emd", "metric_options": {"real": 1}}, "unknown option of retrieval metric 'emd' 'real'"),
        ({"shortlist": 0}, "shortlist is 0; expected at least 1"),
        ({"descriptors": "grit"}, "did you mean 'grid'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_encoded(store, encoder, monkeypatch, options, message):
    monkeypatch.setattr("fieldmark.evaluation.retrieval.encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(FieldmarkError, match=message):
        evaluate_retrieval(encoder, store, **options)


def test_classes_of_one_image_have_nothing_to_find(store, encoder):
    lonely = store.subset(np.unique(store.labels, return_index=True)[1])
    with pytest.raises(FieldmarkError, match="no class of the 6 images has two of them"):
        evaluate_retrieval(encoder, lonely)


def test_intervals_are_over_queries(store, encoder):
    normal = evaluate_retrieval(encoder, store)
    student = evaluate_retrieval(encoder, store, interval="student")
    assert normal.estimates["map_at_r"].over == "queries"
    assert normal.estimates["map_at_r"].count == sum(SIZES) - 2
    assert student.estimates["map_at_r"].ci95 > normal.estimates["map_at_r"].ci95
    assert dataclasses.asdict(normal.estimates["precision_at_1"])["mean"] == normal.precision_at_1


def test_new_characters_are_found_among_many():
    """2,400 drawings of the embedded set by their pixels: far better than chance (1 in 60)."""
    glyphs = data.load("glyphs", split="test", progress=False)
    result = evaluate_retrieval(backbones.create("pixels"), glyphs)
    assert result.precision_at_1 > 0.4
