"""Search: the same as a plain comparison with every photo, then in the order of a head."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldmark import backbones, heads
from fieldmark.errors import FieldmarkError
from fieldmark.gallery import Embedder, Gallery
from fieldmark.gallery.embedder import Identity
from fieldmark.gallery.records import Described, Header, Photo, make_rows, now, to_jpeg
from fieldmark.gallery.search import nearest

sys.path.insert(0, str(Path(__file__).parent))
from drawn import COLOURS, picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")

CHANNELS = 32


@pytest.fixture(scope="module")
def embedder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Embedder(backbones.create("conv4"), size=32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, embedder):
    made = Gallery.open(tmp_path_factory.mktemp("search") / "gallery", create=True)
    names = [name for name in COLOURS for _ in range(6)]
    made.enroll([picture(name, i) for i, name in enumerate(names)], names, embedder=embedder)
    return made


def synthetic(folder: Path, count: int) -> tuple[Gallery, np.ndarray]:
    """A gallery of made-up vectors in clusters, and the vectors."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((count // 20, CHANNELS))
    vectors = (np.repeat(centres, 20, 0) + 0.5 * generator.standard_normal((count, CHANNELS))).astype(np.float32)
    made = Identity("made up", {}, "", (8, 8), "crop", None, None, (0.5,) * 3, (0.5,) * 3, "dense", {}, CHANNELS)
    header = Header(made, "made up", {"pooled": (1, CHANNELS), "local": (1, CHANNELS)})
    thumbnail = to_jpeg(np.zeros((8, 8, 3), np.uint8))
    photos = [Photo(i + 1, 1, "all", f"{i:064x}", "", now(), "", "", 8, 8) for i in range(count)]
    described = [Described(thumbnail, 8, 8, {"pooled": one[None], "local": one[None]}) for one in vectors]
    gallery = Gallery.open(folder, create=True)
    gallery.table.create(make_rows(photos, described, header), count, header)
    return gallery, vectors


def by_hand(vectors: np.ndarray, query: np.ndarray, limit: int) -> tuple[list[int], np.ndarray]:
    """Ids and cosines of the nearest by comparing with all, in double precision."""
    rows = vectors.astype(np.float64)
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines)[:limit]
    return (order + 1).tolist(), cosines[order]


def test_exact_search_is_a_comparison_with_all(tmp_path):
    gallery, vectors = synthetic(tmp_path / "gallery", 400)
    for query in np.random.default_rng(1).standard_normal((5, CHANNELS)):
        ids, similarities = nearest(gallery, query, 10, mode="exact")
        wanted, cosines = by_hand(vectors, query, 10)
        assert ids == wanted
        np.testing.assert_allclose(similarities, cosines, atol=1e-5)


def test_the_index_finds_nearly_all_of_them(tmp_path):
    gallery, vectors = synthetic(tmp_path / "gallery", 2000)
    with pytest.raises(FieldmarkError, match="has no index"):
        nearest(gallery, vectors[0], 5, mode="index")
    gallery.build_index()
    assert gallery.table.indexed("pooled") >= 2000
    # Queries like the photos: members of the clusters, seen with noise.
    generator = np.random.default_rng(2)
    queries = vectors[::100] + 0.3 * generator.standard_normal((20, CHANNELS))
    hits = [len({*nearest(gallery, one, 10, mode="index")[0]} & {*by_hand(vectors, one, 10)[0]}) for one in queries]
    assert np.mean(hits) / 10 >= 0.95
    # It is the index that is asked: far from all clusters, one part of it is not enough.
    far = generator.standard_normal((20, CHANNELS))
    few = [{*nearest(gallery, one, 10, mode="index", probes=1)[0]} == {*by_hand(vectors, one, 10)[0]} for one in far]
    assert not all(few)


def test_photos_added_after_the_index_are_found(tmp_path):
    gallery, _ = synthetic(tmp_path / "gallery", 400)
    gallery.build_index()
    header = gallery.filled()
    new = np.full((1, CHANNELS), 3.0, np.float32)
    photo = Photo(gallery.table.reserve(1), 1, "all", "f" * 64, "", now(), "", "", 8, 8)
    row = make_rows(
        [photo], [Described(to_jpeg(np.zeros((8, 8, 3), np.uint8)), 8, 8, {"pooled": new, "local": new})], header
    )
    gallery.table.put(row, replacing=False)
    assert nearest(gallery, new[0], 1, mode="index")[0] == [photo.id]
    gallery.remove(ids=[photo.id])
    assert photo.id not in nearest(gallery, new[0], 5, mode="index")[0]


def test_an_enrolled_photo_finds_itself_first(gallery, embedder):
    image = picture("green", 8)
    found = gallery.search(image, 3, embedder=embedder)
    assert len(found) == 3
    assert found[0].photo.class_name == "green"
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    assert found[0].score is None
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    assert set(found[0].to_dict()) >= {"similarity", "score", "id", "class_name", "path"}


@pytest.mark.parametrize("head", ["emd", "local_knn", "nearest"])
def test_reranking_is_the_order_of_the_head(gallery, embedder, head):
    image = picture("blue", 77)
    found = gallery.search(image, 8, rerank=head, shortlist=12, embedder=embedder)
    kind = heads.create(head).descriptors
    query = embedder.embed([image], [kind], progress=False)[kind]
    shortlist = {one.photo.id for one in gallery.search(image, 12, embedder=embedder)}
    scores = {}
    for photo in gallery.photos(ids=sorted(shortlist)):
        # One photo at a time, from its picture as it was enrolled: no gallery in between.
        number = gallery.photos().index(photo)
        one = embedder.embed([picture(photo.class_name, number)], [kind], progress=False)[kind]
        support = torch.stack([one[0], torch.zeros_like(one[0])])
        scores[photo.id] = heads.create(head)(support[None], torch.tensor([[0, 1]]), query[None], 2)[0, 0, 0].item()
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:8]
    for one in found:
        assert one.score == pytest.approx(scores[one.photo.id], abs=0.02)  # the gallery holds half precision
    assert {one.photo.id for one in found[:4]} <= set(best)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top is 0"),
        ({"shortlist": 0}, "shortlist is 0"),
        ({"mode": "exakt"}, "did you mean 'exact'"),
        ({"rerank": "edm"}, "did you mean 'emd'"),
        ({"mode": "index"}, "has no index"),
    ],
)
def test_bad_options_are_named(gallery, embedder, options, message):
    with pytest.raises(FieldmarkError, match=message):
        gallery.search(picture("red", 1), embedder=embedder, **options)
