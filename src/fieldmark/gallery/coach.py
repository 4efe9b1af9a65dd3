"""What would make a gallery better: labels to check, copies, classes that need photos, what is confused and by what.

Every photo is left out in turn: its vector is compared with the mean of its own class without it and with the means of
the others. That has a closed form, so nothing is fitted again, and memory grows by one vector a photo, never with the
square of their number.

Example:
    >>> import tempfile, numpy as np
    >>> from fieldmark import backbones
    >>> from fieldmark.gallery import Embedder, Gallery
    >>> draw = np.random.default_rng(0)
    >>> dark, light = draw.integers(0, 99, (4, 32, 32, 3)), draw.integers(150, 255, (4, 32, 32, 3))
    >>> shots = list(np.concatenate([dark, light]).astype(np.uint8))
    >>> labels = ["dark"] * 4 + ["light"] * 3 + ["dark"]  # the last is light, too
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gallery = Gallery.open(folder, create=True)
    ...     done = gallery.enroll(shots, labels, embedder=Embedder(backbones.create("pixels"), size=32))
    ...     advice = coach(gallery)
    >>> [(one.photo.id - min(done.ids) + 1, one.looks_like) for one in advice.mislabelled]
    [(8, 'light')]
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fieldmark.data.readers import is_image_name
from fieldmark.errors import FieldmarkError
from fieldmark.explain.boxes import cell_boxes
from fieldmark.gallery.advice import Advice, Confusion, Mislabelled, Need, Part, ToLabel
from fieldmark.gallery.calibration import PRIOR, PRIOR_PHOTOS, best_temperature, spread
from fieldmark.gallery.evidence import strongest
from fieldmark.gallery.incoming import hash_of_content
from fieldmark.gallery.near_copies import near_copies
from fieldmark.gallery.place_vectors import PlaceVectors
from fieldmark.gallery.records import Photo
from fieldmark.progress import track
from fieldmark.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from fieldmark.gallery.embedder import Embedder
    from fieldmark.gallery.store import Gallery

SURE = 0.5
"""Probability from which on a photo is said to look mislabelled."""

WRONG = 0.05
"""Share of wrong labels that is expected beforehand: most photos that look like another class are just hard ones."""

_SCORES_AT_ONCE = 1 << 22
_TEMPERATURE_FROM = 2000  # photos
_AT_ONCE = 64  # unlabelled photos that are decoded before they are described


def coach(
    gallery: Gallery,
    unlabelled: str | os.PathLike[str] | None = None,
    *,
    sure: float = SURE,
    top: int = 10,
    embedder: Embedder | None = None,
    progress: bool = True,
) -> Advice:
    """Advice on a gallery.

    Args:
        gallery: A gallery with photos.
        unlabelled: A folder of photos without labels (or one file), of which some are to be labelled next.
        sure: Least probability of a wrong label for a photo to be named as mislabelled, 0 to 1.
        top: How many pairs of classes and unlabelled photos to name; of the rest everything is named.
        embedder: From :meth:`Gallery.embedder`; only needed for unlabelled photos, default: made anew.
        progress: Show bars for long work on a terminal.

    Raises:
        FieldmarkError: An empty gallery, no such folder, numbers out of range.
    """
    if not 0 <= sure <= 1:
        raise FieldmarkError(f"sure is {sure}; expected 0 to 1")
    if top < 1:
        raise FieldmarkError(f"top is {top}; expected at least 1")
    files = None if unlabelled is None else _files(unlabelled)
    gallery.refresh().filled()
    photos = gallery.photos()
    if not photos:
        raise FieldmarkError(f"gallery {gallery.uri} holds no photo; enroll some first")
    made, vectors = PlaceVectors.learn(gallery, [photo.id for photo in photos], progress)
    names, targets = np.unique(np.array([photo.class_name for photo in photos], dtype=object), return_inverse=True)
    classes = Classes(vectors, torch.from_numpy(targets.astype(np.int64)), [str(name) for name in names])
    judged = classes.judge()
    to_label, problems = ([], []) if files is None else _to_label(
        gallery, embedder or gallery.embedder(), files, photos, made, classes, top, progress
    )  # fmt: skip
    right = judged.wrong[judged.index] == 0
    return Advice(
        gallery=gallery.uri,
        photos=len(photos),
        classes=len(names),
        judged=len(judged.index),
        accuracy=float(right.mean()) if len(right) else None,
        mislabelled=_mislabelled(photos, classes, judged, sure),
        duplicates=near_copies(gallery, photos, progress),
        needs=_needs(classes, judged),
        confusions=_confusions(gallery, photos, made, classes, judged, top),
        to_label=to_label,
        problems=problems,
    )


@dataclass(frozen=True)
class Judged:
    """Every photo against its own class without it, and against the others; all ``(M,)``.

    Attributes:
        index: ``(J,)`` photos of classes with two or more, where there is another class.
        other: The best other class; -1 where there is none.
        own_score: Own class's score, NaN for photos that are alone.
        other_score: Best other class's.
        sure: Probability of the other class, of the two.
        wrong: 1 where the other class's score is larger.
    """

    index: np.ndarray
    other: np.ndarray
    own_score: np.ndarray
    other_score: np.ndarray
    sure: np.ndarray
    wrong: np.ndarray


class Classes:
    """Classes as means of unit vectors.

    Args:
        vectors: ``(M, C)`` of unit length.
        targets: ``(M,)`` classes, each at least once.
        names: Of the classes.
    """

    def __init__(self, vectors: Float[Tensor, "M C"], targets: Int[Tensor, " M"], names: list[str]) -> None:
        self.vectors, self.targets, self.names = vectors, targets, names
        self.counts = torch.bincount(targets, minlength=len(names))
        self.sums = torch.zeros(len(names), vectors.shape[1]).index_add_(0, targets, vectors)
        self.temperature = 1.0

    def scores(self, vectors: Float[Tensor, "Q C"], own: Int[Tensor, " Q"] | None = None) -> Float[Tensor, "Q way"]:
        """Cosines with the means of the classes.

        Args:
            vectors: Of unit length.
            own: For photos of the gallery their classes, which they are then left out of: minus infinity where none
                is left.
        """
        products, squares = vectors @ self.sums.mT, self.sums.square().sum(-1)
        found = products / squares.sqrt().clamp_min(1e-12)
        if own is not None:
            rows, mine = torch.arange(len(vectors)), products.gather(1, own[:, None])[:, 0]
            size = vectors.square().sum(-1)
            left = (squares[own] - 2 * mine + size).clamp_min(1e-12).sqrt()
            alone = self.counts[own] == 1
            found[rows, own] = torch.where(alone, -torch.inf, (mine - size) / left)
        return found

    def judge(self) -> Judged:
        """Leave every photo out in turn; a few at a time. Finds the temperature, too."""
        count, way = len(self.vectors), len(self.names)
        step = max(1, _SCORES_AT_ONCE // way)
        able = torch.nonzero(self.counts[self.targets] > 1).flatten() if way > 1 else torch.empty(0, dtype=torch.int64)
        if len(able):
            drawn = able[torch.randperm(len(able), generator=torch.Generator().manual_seed(0))[:_TEMPERATURE_FROM]]
            drawn = drawn[: max(1, 4 * _SCORES_AT_ONCE // way)]
            some = self.scores(self.vectors[drawn], self.targets[drawn])
            self.temperature = best_temperature(some, self.targets[drawn], PRIOR * spread(some), PRIOR_PHOTOS)
        own_score, other_score, other = torch.full((count,), torch.nan), torch.full((count,), torch.nan), -torch.ones(
            count, dtype=torch.int64
        )  # fmt: skip
        for part in torch.arange(count).split(step) if way > 1 else ():
            scores, own = self.scores(self.vectors[part], self.targets[part]), self.targets[part]
            mine = scores.gather(1, own[:, None])[:, 0]
            own_score[part] = torch.where(mine.isfinite(), mine, torch.nan)
            other_score[part], other[part] = scores.scatter(1, own[:, None], -torch.inf).max(-1)
        chance = torch.sigmoid((other_score - own_score).double() / self.temperature)
        return Judged(
            able.numpy(), other.numpy(), own_score.numpy(), other_score.numpy(), chance.numpy(),
            (other_score > own_score).to(torch.int64).numpy(),
        )  # fmt: skip

    def members(self, label: int) -> np.ndarray:
        """Numbers of a class's photos."""
        return np.flatnonzero(self.targets.numpy() == label)

    def likest(self, number: int, label: int) -> int:
        """The photo of a class that a photo is most like."""
        members = self.members(label)
        return int(members[int((self.vectors[members] @ self.vectors[number]).argmax())])


def _mislabelled(photos: list[Photo], classes: Classes, judged: Judged, sure: float) -> list[Mislabelled]:
    # By Bayes' rule, from the probability for labels that say nothing to that for labels that are mostly right.
    chance = judged.sure * WRONG / (judged.sure * WRONG + (1 - judged.sure) * (1 - WRONG))
    index = judged.index[(judged.wrong[judged.index] == 1) & (chance[judged.index] >= sure)]
    out = []
    for number in index[np.argsort(-chance[index], kind="stable")].tolist():
        label = int(judged.other[number])
        nearest = photos[classes.likest(number, label)]
        out.append(Mislabelled(photos[number], classes.names[label], float(chance[number]), nearest))
    return out


def _needs(classes: Classes, judged: Judged) -> list[Need]:
    way, targets = len(classes.names), classes.targets.numpy()[judged.index]
    seen = np.bincount(targets, minlength=way)
    mistaken = np.bincount(targets, judged.wrong[judged.index], way)
    margins = np.bincount(targets, (judged.own_score - judged.other_score)[judged.index], way)
    found = [
        Need(
            name, int(classes.counts[i]), int(mistaken[i]) if seen[i] else None,
            float(margins[i] / seen[i]) if seen[i] else None, float((mistaken[i] + 1) / (seen[i] + 2)),
        )
        for i, name in enumerate(classes.names)
    ]  # fmt: skip
    # One photo alone may be the best of its kind or the worst: such classes come before those that are half right.
    return sorted(found, key=lambda one: (-one.expected_error, -math.inf if one.margin is None else one.margin))


def _confusions(
    gallery: Gallery, photos: list[Photo], made: PlaceVectors, classes: Classes, judged: Judged, top: int
) -> list[Confusion]:
    pairs: dict[tuple[int, int], list[int]] = {}
    targets = classes.targets.numpy()
    for number in judged.index.tolist():
        pairs.setdefault(tuple(sorted((int(targets[number]), int(judged.other[number])))), []).append(number)  # type: ignore[arg-type]

    def urgency(pair: tuple[int, int]) -> tuple[float, float]:
        numbers = pairs[pair]
        return -float(judged.wrong[numbers].sum()), -float(judged.sure[numbers].sum())

    able = np.bincount(targets[judged.index], minlength=len(classes.names))
    out = []
    for pair in sorted(pairs, key=urgency)[:top]:
        numbers = np.array(pairs[pair])
        worst = int(numbers[int(judged.sure[numbers].argmax())])
        out.append(
            Confusion(
                (classes.names[pair[0]], classes.names[pair[1]]), int(judged.wrong[numbers].sum()),
                int(able[list(pair)].sum()), float(judged.sure[numbers].mean()),
                _part(gallery, photos, made, worst, classes.likest(worst, int(judged.other[worst]))),
            )
        )  # fmt: skip
    return out


def _part(gallery: Gallery, photos: list[Photo], made: PlaceVectors, number: int, other: int) -> Part | None:
    """What makes two photos alike most."""
    identity, ids = gallery.filled().identity, [photos[number].id, photos[other].id]
    found, _, sets = gallery.descriptors(["local"], ids)
    local = torch.from_numpy(sets["local"])[[list(found).index(id_) for id_ in ids]]
    side = math.isqrt(local.shape[1])
    if identity.descriptors != "dense" or side * side != local.shape[1]:
        return None
    mine, theirs = (made.places(one).double() for one in local)
    each = (mine @ theirs.mT).numpy()
    strong = strongest(each, 1)
    if not strong:
        return None
    boxes = cell_boxes((side, side), identity.size)
    return Part(
        photos[number], photos[other], tuple(boxes[strong[0].query].tolist()),
        tuple(boxes[strong[0].support].tolist()), strong[0].adds, float(each.sum()),
    )  # fmt: skip


def _files(place: str | os.PathLike[str]) -> list[str]:
    path = Path(place)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise FieldmarkError(f"no folder at {path}; expected a folder of photos without labels")
    found = sorted(str(one) for one in path.rglob("*") if is_image_name(one.name) and one.is_file())
    if not found:
        raise FieldmarkError(f"folder {path} holds no image; expected photos without labels")
    return found


def _to_label(
    gallery: Gallery, embedder: Embedder, files: list[str], photos: list[Photo], made: PlaceVectors, classes: Classes,
    top: int, progress: bool,
) -> tuple[list[ToLabel], list[str]]:  # fmt: skip
    """The photos that would teach most, each unlike those before it; those that are enrolled are passed over."""
    gallery.check(embedder)
    known = {photo.sha256 for photo in photos}
    parts: list[Tensor] = []
    kept: list[str] = []
    problems: list[str] = []
    for start in track(range(0, len(files), _AT_ONCE), "describing photos", _AT_ONCE, len(files), show=progress):
        new = [file for file in files[start : start + _AT_ONCE] if _hash(file) not in known]
        pictures = embedder.read(new, on_error="skip", progress=False)
        problems += [problem for _, problem in pictures.problems]
        if len(pictures):
            parts.append(made.vectors(embedder.embed(pictures, ["local"], progress=False)["local"]))
            kept += pictures.names
    if not kept:
        return [], problems
    vectors = torch.cat(parts)
    chances, best = _two_best(classes, vectors)
    out: list[ToLabel] = []
    margin = chances[:, 0] - chances[:, 1]
    different = torch.ones(len(vectors), dtype=torch.float64)
    free = torch.ones(len(vectors), dtype=torch.bool)
    for _ in range(min(top, len(vectors))):
        # The least sure first, but one that is like another that was named teaches nothing more.
        worth = torch.where(free, (1 - margin) * different, -1.0)
        number = int(worth.argmax())
        names = [classes.names[int(label)] for label in best[number]]
        out.append(
            ToLabel(
                kept[number], names[0], names[1] if len(names) > 1 else None, float(margin[number]),
                float(different[number]),
            )
        )  # fmt: skip
        free[number] = False
        different = different.minimum((1 - (vectors @ vectors[number]).double()).clamp(0, 1))
    return out, problems


def _two_best(classes: Classes, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities ``(Q, 2)`` of the two nearest classes, and which they are; of one class alone always 0."""
    way = len(classes.names)
    if way == 1:
        return torch.zeros(len(vectors), 2, dtype=torch.float64), torch.zeros(len(vectors), 1, dtype=torch.int64)
    found = []
    for part in vectors.split(max(1, _SCORES_AT_ONCE // way)):
        found.append(torch.softmax(classes.scores(part).double() / classes.temperature, -1).topk(2, dim=-1))
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def _hash(file: str) -> str:
    try:
        return hash_of_content(Path(file).read_bytes())
    except OSError:
        return ""  # it is named as a problem when it is read
