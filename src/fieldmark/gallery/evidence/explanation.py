"""Why: for the nearest class and the next, which photos and which places of them speak for it, and by how much."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data.images import fit_image
from fieldmark.descriptors import Dense
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.boxes import cell_boxes
from fieldmark.gallery.evidence.decomposition import Parts, decomposition
from fieldmark.gallery.labels import plain
from fieldmark.gallery.pictures import Input, open_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fieldmark.gallery.classifier import FewShotClassifier
    from fieldmark.gallery.prediction import Prediction

REGIONS = 3
"""Matched regions that are drawn for a photo."""


@dataclass(frozen=True)
class Region:
    """A place of the query and a place of a support photo that match.

    Attributes:
        query: Number of the place in the query, row by row.
        support: Number of the place in the photo.
        adds: What the pair adds to the class's score.
    """

    query: int
    support: int
    adds: float


@dataclass(frozen=True)
class PhotoEvidence:
    """What one support photo says for its class.

    Attributes:
        name: Of the photo.
        index: Its number among the support photos.
        image: ``(H, W, 3)`` uint8 as the model saw it; None where it cannot be shown (moved, or never kept).
        adds: What it adds to the class's score.
        contributions: ``(N, M)`` what every pair of places adds; sums to ``adds``.
        regions: The pairs that add most, no place twice, the largest first.
    """

    name: str
    index: int
    image: np.ndarray | None = field(repr=False)
    adds: float
    contributions: np.ndarray = field(repr=False)
    regions: list[Region]


@dataclass(frozen=True)
class ClassEvidence:
    """The score of a class and what it is made of.

    Where the explanation is additive, ``score`` is the sum of what the shown photos add, ``rest`` (the other photos of
    this class), ``others`` (photos of other classes; a fitted classifier learns from them too) and ``constant``.

    Attributes:
        label: Of the class.
        score: The head's.
        probability: Calibrated.
        photos: The photos that add most.
        count: Photos of the class.
        rest: What the photos of this class that are not shown add.
        others: What the photos of other classes add.
        constant: What belongs to no photo.
        places: ``(N,)`` what each place of the query adds; with the constant these sum to the score as well.
    """

    label: Any
    score: float
    probability: float
    photos: list[PhotoEvidence]
    count: int
    rest: float
    others: float
    constant: float
    places: np.ndarray = field(repr=False)

    @property
    def terms(self) -> list[tuple[str, float]]:
        """Name and value of every term of the sum."""
        found = [(photo.name, photo.adds) for photo in self.photos]
        hidden = self.count - len(self.photos)
        if hidden:
            found.append((f"{hidden} more photo{'s' if hidden > 1 else ''} of this class", self.rest))
        if self.others:
            found.append(("photos of the other classes", self.others))
        if self.constant:
            found.append(("constant of the class", self.constant))
        return found


@dataclass(frozen=True)
class Explanation:
    """An answer with its reasons; :meth:`figure`, :meth:`to_html` and :meth:`to_dict` show them.

    Attributes:
        name: Of the query.
        image: ``(H, W, 3)`` uint8 as the model saw it.
        prediction: Answer, confidence, whether it is rejected.
        line: Scores below it are "none of these"; None where no line is known.
        classes: Evidence for the nearest class and for the one it is compared with (one class alone has no other).
        grid: Rows and columns of the places.
        additive: Whether the parts add up to the scores. Otherwise they are those of the optimal matching with each
            photo, which stands beside the head's own score.
        facts: Backbone, head, options, size and fit.
    """

    name: str
    image: np.ndarray = field(repr=False)
    prediction: Prediction
    line: float | None
    classes: list[ClassEvidence]
    grid: tuple[int, int]
    additive: bool
    facts: dict[str, Any]

    @property
    def difference(self) -> np.ndarray | None:
        """``(N,)`` how much more each place of the query adds to the nearest class than to the other."""
        return self.classes[0].places - self.classes[1].places if len(self.classes) > 1 else None

    def boxes(self, image: np.ndarray | None = None) -> np.ndarray:
        """``(N, 4)`` left, top, right, bottom of the places, in pixels."""
        height, width = (self.image if image is None else image).shape[:2]
        return cell_boxes(self.grid, (height, width))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as JSON values."""
        boxes = self.boxes().tolist()
        return {
            "query": self.name,
            "prediction": self.prediction.to_dict(),
            "line": self.line,
            "additive": self.additive,
            "grid": list(self.grid),
            "boxes": boxes,
            **self.facts,
            "classes": [_class_dict(one, boxes) for one in self.classes],
        }

    def figure(self) -> Figure:
        """All of it as a matplotlib figure; write it by ``savefig`` or :func:`fieldmark.explain.save_picture`."""
        from fieldmark.gallery.evidence.figure import draw

        return draw(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that needs nothing else: no script, no file, no address.

        Args:
            path: Where to write it as well, beside and renamed.
        """
        from fieldmark.files import write_beside
        from fieldmark.gallery.evidence.page import page

        text = page(self)
        if path is not None:
            write_beside(path, lambda file: file.write(text.encode()))
        return text


def _class_dict(one: ClassEvidence, boxes: list[list[float]]) -> dict[str, Any]:

    photos = [
        {
            "name": photo.name,
            "index": photo.index,
            "adds": photo.adds,
            "regions": [
                {"query_box": boxes[pair.query], "support_box": boxes[pair.support], "adds": pair.adds}
                for pair in photo.regions
            ],
        }
        for photo in one.photos
    ]
    return {
        "label": plain(one.label),
        "score": one.score,
        "probability": one.probability,
        "photos": photos,
        "photos_of_class": one.count,
        "rest": one.rest,
        "others": one.others,
        "constant": one.constant,
        "places": one.places.tolist(),
    }


def explain(
    classifier: FewShotClassifier, image: Input, *, photos: int = 3, against: Any = None, regions: int = REGIONS
) -> Explanation:
    """Evidence for the answer to one image.

    Args:
        classifier: A fitted one, with local descriptors of its photos.
        image: The image.
        photos: Support photos shown for each class: those that add most.
        against: Label of the class to compare the nearest with; default: the next nearest.
        regions: Matched regions shown for each photo.

    Raises:
        FieldmarkError: For an image that cannot be read, an unknown label, or descriptors that are no map of places.
    """
    if photos < 1 or regions < 1:
        raise FieldmarkError(f"photos is {photos} and regions {regions}; expected at least 1 of each")
    embedder, head = classifier.embedder_, classifier.head_
    if not isinstance(embedder.extractor, Dense) or "local" not in classifier.descriptors_:
        raise FieldmarkError(
            f"evidence needs the places of the map, and this classifier has {embedder.extractor.name!r} descriptors; "
            "make it with descriptors='dense'"
        )
    pictures = embedder.read([image])
    sets = embedder.embed(pictures, list(dict.fromkeys(["local", head.descriptors])))
    scores = classifier.score_descriptors(sets)
    prediction = classifier.answers(scores, len(classifier.classes_))[0]
    support, query = classifier.descriptors_["local"], sets["local"][0]
    decompose = decomposition(
        head.cpu(), support, classifier.targets_, query, len(classifier.classes_), scores[0].double()
    )
    labels = _chosen(classifier, scores[0].argsort(descending=True).tolist(), against)
    chosen = [decompose(label) for label in labels]
    probability = classifier.probabilities(scores)[0]
    height = math.isqrt(len(query))
    grid = (height, len(query) // height)
    if grid[0] * grid[1] != len(query):
        raise FieldmarkError(f"the map has {len(query)} places, which are no square; evidence needs square images")
    return Explanation(
        name=_short_name(pictures.names[0]) if isinstance(image, str | os.PathLike) else "photo",
        image=pictures.images[0],
        prediction=prediction,
        line=classifier.line,
        classes=[
            _evidence(classifier, label, parts, float(probability[label]), photos, regions)
            for label, parts in zip(labels, chosen, strict=True)
        ],
        grid=grid,
        additive=all(parts.additive for parts in chosen),
        facts=_facts(classifier),
    )


def _chosen(classifier: FewShotClassifier, order: list[int], against: Any) -> list[int]:
    if against is None:
        return order[:2]
    found = np.flatnonzero(classifier.classes_ == against)
    if not len(found):
        raise unknown_name("class", str(against), [str(label) for label in classifier.classes_])
    if int(found[0]) == order[0]:
        raise FieldmarkError(f"class {against!r} is the nearest itself; give another to compare it with, or none")
    return [order[0], int(found[0])]


def _evidence(
    classifier: FewShotClassifier, label: int, parts: Parts, probability: float, photos: int, regions: int
) -> ClassEvidence:
    own = np.flatnonzero(classifier.targets_.numpy() == label)
    order = own[np.argsort(-parts.totals[own], kind="stable")]
    shown = [_photo(classifier, int(photo), parts, regions) for photo in order[:photos]]
    others = np.setdiff1d(np.arange(len(parts.totals)), own)
    return ClassEvidence(
        label=classifier.classes_[label],
        score=parts.score,
        probability=probability,
        photos=shown,
        count=len(own),
        rest=float(parts.totals[order[photos:]].sum()),
        others=float(parts.totals[others].sum()),
        constant=parts.constant,
        places=parts.places,
    )


def _photo(classifier: FewShotClassifier, index: int, parts: Parts, regions: int) -> PhotoEvidence:
    each = parts.pairs(index)
    return PhotoEvidence(
        name=_short_name(classifier.names_[index]),
        index=index,
        image=_image_of(classifier, index),
        adds=float(parts.totals[index]),
        contributions=each,
        regions=strongest(each, regions),
    )


def strongest(contributions: np.ndarray, count: int) -> list[Region]:
    """The pairs of places that add most, each place of either side at most once; only those that add something.

    Example:
        >>> [(one.query, one.support) for one in strongest(np.array([[3.0, 2.9], [1.0, 0.5]]), 2)]
        [(0, 0), (1, 1)]
    """
    left, found = contributions.astype(np.float64).copy(), []
    for _ in range(min(count, *left.shape)):
        query, support = (int(at) for at in np.unravel_index(int(left.argmax()), left.shape))
        if not left[query, support] > 0:
            break
        found.append(Region(query, support, float(contributions[query, support])))
        left[query], left[:, support] = -np.inf, -np.inf
    return found


def _image_of(classifier: FewShotClassifier, index: int) -> np.ndarray | None:
    kept = classifier.photos_[index]
    if kept is None:
        return None
    embedder = classifier.embedder_
    try:
        picture = open_picture(kept)
    except FieldmarkError:
        return None  # the file was moved since; the evidence itself needs only the descriptors
    if isinstance(kept, np.ndarray) and kept.shape[:2] == embedder.size:
        return kept
    return fit_image(picture, embedder.size, embedder.fit)


def _facts(classifier: FewShotClassifier) -> dict[str, Any]:
    identity = classifier.embedder_.identity
    made_as = classifier.head_.made_as
    return {
        "backbone": identity.backbone,
        "head": classifier.head,
        "head_options": {} if made_as is None else made_as[1],
        "size": list(identity.size),
        "fit": identity.fit,
    }


def _short_name(name: str) -> str:
    return Path(name).name or name
