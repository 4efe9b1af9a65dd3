"""Looking inside an embedding, against scikit-learn, torchmetrics and plain loops."""

import numpy as np
import pytest
import torch

from fieldmark import backbones, data
from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import analysis, encode
from fieldmark.evaluation.analysis.pictures import heated


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (90,), generator=generator)
    centres = 3 * torch.randn(5, 12, generator=generator)
    return centres[labels] + torch.randn(90, 12, generator=generator) + 40, labels


class TestSpectrum:
    def test_is_that_of_pca(self, features):
        from sklearn.decomposition import PCA

        pca = PCA().fit(features[0].double().numpy())
        found = analysis.spectrum(features[0])
        np.testing.assert_allclose(found.singular_values, pca.singular_values_, rtol=1e-9)
        np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-9)
        assert found.components_for(0.8) == PCA(0.8).fit(features[0].double().numpy()).n_components_
        assert found.components_for(1.0) == 12

    def test_effective_rank_counts_directions_used_alike(self):
        basis = torch.linalg.qr(torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).Q
        points = torch.cat([basis.T, -basis.T])  # centred, four directions of one length
        assert analysis.spectrum(points).effective_rank == pytest.approx(4, rel=1e-5)
        assert analysis.spectrum(points[[0, 4]]).effective_rank == pytest.approx(1)

    def test_fewer_images_than_channels(self, features):
        assert analysis.spectrum(features[0][:7]).singular_values.shape == (7,)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (torch.ones(4, 3), "no variance"),
            (torch.ones(1, 3), "at least 2 images"),
            (torch.full((4, 3), float("nan")), "not finite"),
        ],
    )
    def test_refused(self, bad, message):
        with pytest.raises(FieldmarkError, match=message):
            analysis.spectrum(bad)
        with pytest.raises(FieldmarkError, match="share is 0"):
            analysis.spectrum(torch.eye(3)).components_for(0)


class TestDaviesBouldin:
    def test_is_that_of_scikit_learn_and_torchmetrics(self, features):
        from sklearn.metrics import davies_bouldin_score
        from torchmetrics.functional.clustering import davies_bouldin_score as of_torchmetrics

        vectors, labels = features
        labels = labels * 3 + 2  # numbers may have gaps
        found = analysis.davies_bouldin(vectors, labels)
        assert found.index == pytest.approx(davies_bouldin_score(vectors.double().numpy(), labels.numpy()), rel=1e-9)
        assert found.index == pytest.approx(float(of_torchmetrics(vectors, labels)), rel=1e-4)

    def test_ratios_by_a_loop(self, features):
        vectors, labels = features[0].double(), features[1]
        found = analysis.davies_bouldin(vectors, labels)
        centres = [vectors[labels == c].mean(0) for c in range(5)]
        spreads = [(vectors[labels == c] - centres[c]).norm(dim=1).mean() for c in range(5)]
        for c in range(5):
            ratios = {o: (spreads[c] + spreads[o]) / (centres[c] - centres[o]).norm() for o in range(5) if o != c}
            worst = max(ratios, key=ratios.get)
            assert float(found.ratios[c]) == pytest.approx(float(ratios[worst]))
            assert int(found.nearest[c]) == worst
        named = found.to_dict([f"class {c}" for c in range(5)])
        assert named["classes"]["class 1"]["overlaps"] == f"class {int(found.nearest[1])}"

    def test_two_classes_with_one_centre_are_left_out(self):
        from sklearn.metrics import davies_bouldin_score

        vectors = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [9, 9], [8, 9]])
        labels = torch.tensor([0, 0, 1, 1, 2, 2])
        expected = davies_bouldin_score(vectors.numpy(), labels.numpy())
        assert analysis.davies_bouldin(vectors, labels).index == pytest.approx(expected, rel=1e-6)

    def test_tight_classes_far_apart_are_near_zero_and_points_are_zero(self):
        labels = torch.tensor([0, 0, 1, 1])
        wide = analysis.davies_bouldin(torch.tensor([[0.0], [2], [10], [12]]), labels)
        tight = analysis.davies_bouldin(torch.tensor([[0.9], [1.1], [10.9], [11.1]]), labels)
        assert tight.index < 0.11 * wide.index
        assert analysis.davies_bouldin(torch.tensor([[0.0], [0], [1], [1]]), labels).index == 0

    def test_refused(self, features):
        with pytest.raises(FieldmarkError, match="have one class"):
            analysis.davies_bouldin(features[0], torch.zeros(90, dtype=torch.long))
        with pytest.raises(FieldmarkError, match=r"expected \(M, C\) and \(M,\)"):
            analysis.davies_bouldin(features[0], features[1][:-1])


class TestNeighbours:
    def test_are_those_of_scikit_learn(self, features):
        from sklearn.neighbors import NearestNeighbors

        vectors = features[0].numpy()
        queries = np.array([3, 50, 7])
        found = analysis.nearest_neighbours(features[0], queries, 6)
        distances, index = NearestNeighbors(n_neighbors=7, metric="cosine").fit(vectors).kneighbors(vectors[queries])
        np.testing.assert_array_equal(found.nearest, index[:, 1:])
        np.testing.assert_allclose(found.similarities, 1 - distances[:, 1:], atol=1e-5)
        labels = features[1].numpy()
        hits = found.hits(labels)
        assert all(hits[q, k] == (labels[queries[q]] == labels[found.nearest[q, k]])
                   for q in range(3) for k in range(6))  # fmt: skip

    def test_queries_are_spread_over_classes_and_repeatable(self, features):
        labels = features[1].numpy()
        assert sorted(labels[analysis.choose_queries(labels, 5)]) == [0, 1, 2, 3, 4]
        many = analysis.choose_queries(labels, 12, seed=1)
        assert len(set(many)) == 12
        assert np.bincount(labels[many]).min() >= 2
        np.testing.assert_array_equal(many, analysis.choose_queries(labels, 12, seed=1))
        assert (many != analysis.choose_queries(labels, 12, seed=2)).any()

    @pytest.mark.parametrize(
        ("queries", "count", "message"),
        [([0], 90, "expected 1 to 89"), ([90], 3, "0 to 89"), ([-1], 3, "0 to 89"), ([], 3, "at least one")],
    )
    def test_refused(self, features, queries, count, message):
        with pytest.raises(FieldmarkError, match=message):
            analysis.nearest_neighbours(features[0], np.array(queries), count)
        with pytest.raises(FieldmarkError, match="91 queries of 90"):
            analysis.choose_queries(features[1].numpy(), 91)


class TestClassifier:
    def test_is_scikit_learn_s(self, features):
        from sklearn.linear_model import LogisticRegression

        vectors, labels = features[0] - 40, features[1].numpy() + 1  # class 0 has no image
        found = analysis.fit_classifier(vectors, labels)
        unit = torch.nn.functional.normalize(vectors, dim=1).double().numpy()
        model = LogisticRegression(tol=1e-10, max_iter=5000).fit(unit, labels)
        probabilities = found.logits(vectors).softmax(1)
        np.testing.assert_allclose(probabilities[:, 1:], model.predict_proba(unit), atol=1e-4)
        assert (probabilities[:, 0] == 0).all()

    def test_score_of_maps_is_the_logit_of_their_mean(self, features):
        classifier = analysis.fit_classifier(*features)
        maps = torch.rand(3, 12, 2, 5)
        classes = torch.tensor([4, 0, 2])
        logits = classifier.logits(maps.mean((2, 3)))
        expected = torch.stack([logits[0, 4], logits[1, 0], logits[2, 2]])
        torch.testing.assert_close(classifier.score_of(classes)(maps), expected)

    def test_one_class_is_refused(self, features):
        with pytest.raises(FieldmarkError, match="have one class"):
            analysis.fit_classifier(features[0], np.zeros(90, dtype=int))


@pytest.fixture(scope="module")
def glyphs():
    whole = data.load("glyphs", split="test")
    return whole.subset(np.flatnonzero(whole.labels < 5))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(backbones.create("conv4", last_pool=False), (0.5,) * 3, (0.25,) * 3)


class TestExamples:
    def test_the_other_class_is_the_likeliest_that_is_not_its_own(self, glyphs, encoder):
        pooled = encode(encoder, glyphs)["pooled"].squeeze(1)
        classifier = analysis.fit_classifier(pooled, glyphs.labels)
        images = analysis.choose_queries(glyphs.labels, 11)
        found = analysis.explain_classifier(encoder, glyphs, classifier, images)
        logits = classifier.logits(pooled[images])
        for row, one in enumerate(found):
            own = int(glyphs.labels[images[row]])
            probabilities = logits[row].softmax(0)
            others = [c for c in range(5) if c != own]
            other = max(others, key=lambda c: float(probabilities[c]))
            assert one["names"] == [glyphs.class_names[c].rsplit("/", 1)[-1] for c in (own, other)]
            assert one["probabilities"] == pytest.approx([float(probabilities[c]) for c in (own, other)], abs=1e-4)
            assert one["right"] == (own == int(logits[row].argmax()))
            assert one["cams"][0].shape == (4, 4)
            assert one["image"].shape == (32, 32, 3)

    def test_a_cropped_model_shows_its_crop(self, glyphs, encoder):
        cropping = Encoder(encoder.backbone, (0.5,) * 3, (0.25,) * 3, crop=24)
        classifier = analysis.fit_classifier(encode(cropping, glyphs)["pooled"].squeeze(1), glyphs.labels)
        (one,) = analysis.explain_classifier(cropping, glyphs, classifier, np.array([3]))
        np.testing.assert_array_equal(one["image"], glyphs.gather([3])[0, :, 4:28, 4:28].permute(1, 2, 0))


class TestMeasure:
    def test_numbers_are_those_of_the_embedding(self, glyphs, encoder):
        pooled = encode(encoder, glyphs)["pooled"].squeeze(1)
        labels = torch.as_tensor(glyphs.labels).long()
        expected = {
            "davies_bouldin": analysis.davies_bouldin(pooled, labels).index,
            "effective_rank": analysis.spectrum(pooled).effective_rank,
        }
        assert analysis.measure_embedding(encoder, glyphs) == pytest.approx(expected, rel=1e-5)
        spatial = encode(encoder, glyphs, ["spatial"])
        assert analysis.measure_embedding(None, glyphs, spatial) == pytest.approx(expected, rel=1e-5)

    def test_a_collapsed_embedding_has_rank_0(self, glyphs):
        found = analysis.measure_embedding(None, glyphs, {"pooled": torch.ones(len(glyphs), 1, 3)})
        assert found == {"davies_bouldin": 0, "effective_rank": 0}


class TestPictures:
    def test_frames_are_green_for_hits_and_red_for_misses(self, glyphs, encoder):
        pooled = encode(encoder, glyphs)["pooled"].squeeze(1)
        found = analysis.nearest_neighbours(pooled, analysis.choose_queries(glyphs.labels, 4), 5)
        figure = analysis.neighbours_picture(found, glyphs, "conv4")
        colours = [axes.patches[0].get_edgecolor()[:3] for axes in figure.axes]
        assert len(colours) == 4 * 6
        hits = found.hits(glyphs.labels)
        green, red = (tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)) for text in ("#1a7f4b", "#c2410c"))
        for line in range(4):
            expected = [green if hit else red for hit in hits[line]]
            assert np.allclose(colours[6 * line + 1 : 6 * line + 6], expected)

    def test_heat_is_where_the_map_is(self):
        grey = np.full((8, 8, 3), 100, np.uint8)
        hot = heated(grey, np.array([[0.0, 0.0], [0.0, 3.0]])).astype(int)
        assert hot[7, 7].sum() > hot[0, 0].sum() + 100
        np.testing.assert_array_equal(hot, heated(grey, np.array([[0.0, 0.0], [0.0, 0.5]])))
        assert np.ptp(heated(grey, np.zeros((2, 2))), axis=(0, 1)).max() == 0

    def test_curves_hold_the_numbers(self, features):
        spectra = {"one": analysis.spectrum(features[0]), "$two": analysis.spectrum(features[0][:30] ** 2)}
        figure = analysis.spectrum_picture(spectra)
        lines = figure.axes[0].lines
        np.testing.assert_allclose(lines[0].get_ydata(), 100 * spectra["one"].cumulative)
        np.testing.assert_allclose(lines[1].get_ydata(), 100 * spectra["$two"].cumulative)
        values = figure.axes[1].lines[1].get_ydata()
        np.testing.assert_allclose(
            values, spectra["$two"].singular_values / spectra["$two"].singular_values[0], atol=1e-6
        )

    def test_bars_are_the_largest_ratios(self, features):
        found = analysis.davies_bouldin(*features)
        figure = analysis.clusters_picture(found, [f"c{c}" for c in range(5)], most=3)
        bars = [bar.get_width() for bar in figure.axes[0].patches]
        np.testing.assert_allclose(bars, found.ratios.sort(descending=True).values[:3])
