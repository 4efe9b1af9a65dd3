"""The enrolled photos nearest to an image: a shortlist by the pooled vector, put in order by aligning its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from fieldmark import heads
from fieldmark.descriptors import Kind
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.gallery.records import Photo
from fieldmark.gallery.table import LARGE

if TYPE_CHECKING:
    from fieldmark.gallery.embedder import Embedder
    from fieldmark.gallery.store import Gallery

Mode = Literal["auto", "exact", "index"]

SHORTLIST = 50
"""Photos that are aligned, if not told otherwise."""

PROBES = 32
"""Parts of the index that are looked into; there are as many as the square root of the number of photos."""


@dataclass(frozen=True)
class Found:
    """A photo that was found.

    Attributes:
        photo: Which.
        similarity: Cosine of the pooled vectors, at most 1.
        score: Of the alignment, large means near; None without.
    """

    photo: Photo
    similarity: float
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"similarity": self.similarity, "score": self.score, **self.photo.to_dict()}


def search(
    gallery: Gallery,
    image: Any,
    top: int = 10,
    *,
    rerank: str | None = None,
    shortlist: int = SHORTLIST,
    mode: Mode = "auto",
    probes: int = PROBES,
    embedder: Embedder | None = None,
) -> list[Found]:
    """The nearest photos of a gallery, nearest first.

    Args:
        gallery: Where to look.
        image: A path, PIL image or uint8 array (H, W, 3).
        top: How many photos.
        rerank: Name of a head that puts the shortlist in order, each photo a class of its own: ``emd`` and others that
            compare local descriptors; None: the order of the pooled vectors.
        shortlist: How many photos it puts in order; at least ``top``.
        mode: ``"exact"`` compares with all photos, ``"index"`` looks only where the index (IVF) says; ``"auto"``: the
            index from 20,000 photos on.
        probes: Parts of the index to look into.
        embedder: From :meth:`Gallery.embedder`, to use it several times; default: made anew.

    Raises:
        FieldmarkError: Bad image, unknown head or mode, numbers below 1, an empty gallery.
    """
    if mode not in get_args(Mode):
        raise unknown_name("mode of search", mode, get_args(Mode))
    for name, value in (("top", top), ("shortlist", shortlist), ("probes", probes)):
        if value < 1:
            raise FieldmarkError(f"{name} is {value}; expected at least 1")
    head = None if rerank is None else _reranker(rerank)
    embedder = embedder or gallery.embedder()
    gallery.refresh().check(embedder)
    kinds: list[Kind] = ["pooled"] if head is None else ["pooled", head.descriptors]
    query = {kind: sets.numpy() for kind, sets in embedder.embed([image], kinds, progress=False).items()}
    limit = top if head is None else max(top, shortlist)
    ids, similarities = nearest(gallery, query["pooled"][0, 0], limit, mode=mode, probes=probes)
    photos = {photo.id: photo for photo in gallery.photos(ids=ids)}
    # One that was removed by another process a moment ago is left out.
    found = [Found(photos[id_], s) for id_, s in zip(ids, similarities, strict=True) if id_ in photos]
    if head is None or not found:
        return found
    order = [one.photo.id for one in found]
    scores = rerank_scores(gallery, head, torch.from_numpy(query[head.descriptors]), order)
    ranked = [Found(one.photo, one.similarity, score) for one, score in zip(found, scores, strict=True)]
    return sorted(ranked, key=lambda one: -one.score if one.score is not None else 0.0)[:top]


def nearest(
    gallery: Gallery, vector: np.ndarray, limit: int, *, mode: Mode = "auto", probes: int = PROBES
) -> tuple[list[int], list[float]]:
    """Ids of the photos whose pooled vectors are nearest, and the cosines.

    Args:
        gallery: Where to look.
        vector: ``(C,)``.
        limit: How many.
        mode: As in :func:`search`.
        probes: As in :func:`search`.

    Raises:
        FieldmarkError: The index is asked for and there is none, or the gallery holds vectors of another length.
    """
    header = gallery.filled()
    if vector.shape != (header.shapes["pooled"][1],):
        raise FieldmarkError(f"vector has shape {vector.shape}; gallery {gallery.uri} holds {header.shapes['pooled']}")
    exact = mode == "exact" or (mode == "auto" and len(gallery) < LARGE)
    if mode == "index" and not gallery.table.indexed("pooled"):
        raise FieldmarkError(
            f"gallery {gallery.uri} has no index; it gets one from {LARGE} photos on, or by build_index"
        )
    ids, distances = gallery.table.nearest(vector.astype(np.float32), "pooled", limit, exact=exact, probes=probes)
    return ids, [1.0 - distance for distance in distances]


@torch.inference_mode()
def rerank_scores(gallery: Gallery, head: heads.Head, query: torch.Tensor, ids: list[int]) -> list[float]:
    """Scores of photos for a query ``(1, N, C)``, each photo a class of its own; in the order of the ids."""
    found, _, sets = gallery.descriptors([head.descriptors], ids)
    place = {int(id_): i for i, id_ in enumerate(found)}
    support = torch.from_numpy(sets[head.descriptors])[[place[id_] for id_ in ids]]
    labels = torch.arange(len(ids))
    return head(support[None], labels[None], query[None], len(ids))[0, 0].tolist()


def _reranker(name: str) -> heads.Head:
    """The head, if it can put photos in order."""
    if name not in heads.HEADS:
        raise unknown_name("head", name, heads.names())
    head = heads.create(name)
    if head.learned or head.needs_base:
        raise FieldmarkError(
            f"head {name} has to be trained first and cannot put photos in order; take emd or local_knn"
        )
    return head.eval()
