import numpy as np
import pytest

from fieldmark.data.episodes import EpisodeIndex, draw_episodes
from fieldmark.errors import FieldmarkError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 30))


def test_every_image_is_of_its_class_and_none_is_twice_in_an_episode():
    index = draw_episodes(LABELS, way=5, shot=3, queries=7, episodes=50, seed=1)
    assert index.support.shape == (50, 15)
    assert index.query.shape == (50, 35)
    for e in range(50):
        assert len(set(index.classes[e])) == 5
        assert (LABELS[index.support[e]] == index.classes[e][index.support_labels[e]]).all()
        assert (LABELS[index.query[e]] == index.classes[e][index.query_labels[e]]).all()
        assert len({*index.support[e], *index.query[e]}) == 50


def test_draw_is_uniform_over_classes_and_images():
    index = draw_episodes(LABELS, way=4, shot=1, queries=2, episodes=6000, seed=3)
    classes = np.bincount(index.classes.ravel(), minlength=12) / (6000 * 4)
    assert np.abs(classes - 1 / 12).max() < 0.01
    images = np.bincount(index.query.ravel(), minlength=len(LABELS)) / index.query.size
    assert images.max() < 2 * images.min()


def test_same_seed_same_episodes_and_a_prefix_stays_a_prefix():
    long = draw_episodes(LABELS, episodes=40, seed=5)
    short = draw_episodes(LABELS, episodes=10, seed=5)
    assert long[:10].hash == short.hash
    assert draw_episodes(LABELS, episodes=10, seed=6).hash != short.hash


def test_chunks_do_not_change_the_draw(monkeypatch):
    whole = draw_episodes(LABELS, episodes=30, seed=2)
    monkeypatch.setattr("fieldmark.data.episodes._KEYS_AT_ONCE", 1000)
    assert draw_episodes(LABELS, episodes=30, seed=2).hash == whole.hash


def test_file_round_trip(tmp_path):
    index = draw_episodes(LABELS, episodes=7, seed=2)
    back = EpisodeIndex.load(index.save(tmp_path / "deep" / "episodes.npz"))
    assert back.hash == index.hash
    assert back.facts == index.facts
    assert back.query.dtype == np.int64
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["episodes.npz"]


@pytest.mark.parametrize("largest", [255, 256, 65_535, 65_536, 2**32])
def test_a_file_holds_image_numbers_of_any_size(tmp_path, largest):
    labels, images = np.array([[0, 1]]), np.array([[0, largest]])
    index = EpisodeIndex(labels, images, labels, images - 1, labels, {})
    assert EpisodeIndex.load(index.save(tmp_path / "e.npz")).hash == index.hash


def test_support_from_another_set_and_all_queries():
    test_labels = np.repeat(np.arange(12), [3, 5, 2, 4, 6, 1, 3, 5, 2, 4, 6, 1])
    index = draw_episodes(LABELS, None, 2, None, 4, seed=1, query_labels=test_labels)
    assert index.query.shape == (4, len(test_labels))
    assert sorted(index.query[0]) == list(range(len(test_labels)))
    assert (test_labels[index.query] == index.query_labels).all()
    assert (LABELS[index.support] == index.support_labels).all()


def test_uneven_classes_are_drawn_within_their_own_images():
    labels = np.repeat([0, 1, 2], [3, 100, 5])
    index = draw_episodes(labels, way=3, shot=1, queries=2, episodes=200, seed=0)
    assert (labels[index.query] == np.take_along_axis(index.classes, index.query_labels, 1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": 13}, "13-way episodes need 13 classes; the data has 12"),
        ({"shot": 20, "queries": 15}, "has 30 image.s., but shot . queries = 35"),
        ({"shot": 0}, "shot is 0; expected at least 1"),
        ({"episodes": 0}, "episodes is 0"),
        ({"queries": None}, "support split"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        draw_episodes(LABELS, **options)
    assert "\n" not in str(caught.value)


def test_class_name_is_said_when_it_is_too_small():
    with pytest.raises(FieldmarkError, match="class 'rare' has 2 image"):
        draw_episodes(np.array([0] * 30 + [1] * 2), way=2, shot=1, queries=5, class_names=["common", "rare"])


def test_not_an_episode_file(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"hello")
    with pytest.raises(FieldmarkError, match="not an episode file"):
        EpisodeIndex.load(tmp_path / "x.npz")
    with pytest.raises(FieldmarkError, match="no episode file"):
        EpisodeIndex.load(tmp_path / "y.npz")


def test_episodes_of_a_larger_set_are_refused():
    with pytest.raises(FieldmarkError, match="the data has 100"):
        draw_episodes(LABELS, episodes=50).require_fits(100, 100)
