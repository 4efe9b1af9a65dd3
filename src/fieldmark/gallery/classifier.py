"""A classifier of your own photos with the conventions of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fieldmark.descriptors import Kind
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.calibration import FALSE_REJECT, PRIOR, PRIORS, Calibration, calibrate
from fieldmark.gallery.embedder import Embedder
from fieldmark.gallery.labels import as_labels, check_counts, joined, plain
from fieldmark.gallery.pictures import Input, Pictures, as_inputs, name_of
from fieldmark.gallery.prediction import NONE_OF_THESE, Prediction
from fieldmark.heads import HEADS, Head, create_for
from fieldmark.shapes import Tensor

if TYPE_CHECKING:
    from fieldmark.gallery.evidence import Explanation

DEFAULT_HEAD = "whitened"

_QUERIES_AT_ONCE = 32
_IMAGES_AT_ONCE = 64
_BYTES_AT_ONCE = 256 * 2**20

# The model that was opened last by name; cross-validation makes one classifier a fold.
_EMBEDDERS: dict[str, Embedder] = {}


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Recognises classes from a few photos of each, says how sure it is, and why.

    A scikit-learn estimator: it works in ``Pipeline``, ``cross_val_score``, ``GridSearchCV`` and with ``clone``. ``X``
    is a list (or array) of paths, PIL images or uint8 arrays ``(H, W, 3)``, or one uint8 array ``(M, H, W, 3)``.
    Photos are encoded once, when they are given; no network is trained.

    Args:
        backbone: Name of a backbone, path of a model file or run folder, or an encoder.
        head: Name of a head.
        head_options: Its options.
        descriptors: Name of an extractor of local descriptors; None: those the model was trained with, else ``dense``.
        descriptor_options: Its options.
        size: Side of the images the model sees; None: its own.
        image_fit: ``crop``, ``squash`` or ``pad``; None: as the model was trained, else ``crop``.
        reject: Whether :meth:`predict` answers ``"none of these"`` below the line.
        false_reject: Share of photos of enrolled classes that the line may reject, as far as the support photos tell.
        calibrated: Find temperature and line at :meth:`fit`; without, probabilities are the head's own.
        device: ``auto``, ``cpu``, ``cuda`` ...
        random_state: Seed of what is drawn (heads that start from random weights).

    Attributes:
        classes_: Labels, sorted.
        calibration_: Temperature, line, and what they were found from; None with ``calibrated=False``.
        embedder_: Describes images.
        head_: Scores descriptors.

    Raises:
        FieldmarkError: One line for whatever is wrong: a name, an option, an image, the number of labels.

    Example:
        >>> from fieldmark import backbones
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> images[:2, :, :16] = 255
        >>> images[2:, :16] = 255
        >>> classifier = FewShotClassifier(backbones.create("conv4"), size=32)
        >>> classifier.fit(images, ["left", "left", "top", "top"]).predict(images[[0, 3]]).tolist()
        ['left', 'top']
    """

    def __init__(
        self,
        backbone: Any = "efficientnet_lite0",
        head: str = DEFAULT_HEAD,
        *,
        head_options: Mapping[str, Any] | None = None,
        descriptors: str | None = None,
        descriptor_options: Mapping[str, Any] | None = None,
        size: int | tuple[int, int] | None = None,
        image_fit: str | None = None,
        reject: bool = False,
        false_reject: float = FALSE_REJECT,
        calibrated: bool = True,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.head_options = head_options
        self.descriptors = descriptors
        self.descriptor_options = descriptor_options
        self.size = size
        self.image_fit = image_fit
        self.reject = reject
        self.false_reject = false_reject
        self.calibrated = calibrated
        self.device = device
        self.random_state = random_state

    def fit(self, X: Iterable[Input], y: Iterable[Any]) -> FewShotClassifier:
        """Take photos and their labels.

        Args:
            X: Images.
            y: A label for each: texts or whole numbers.

        Raises:
            FieldmarkError: For bad images, or labels that do not fit.
        """
        self._check_options()
        items, labels = as_inputs(X), as_labels(y)
        check_counts(items, labels)
        embedder = self._make_embedder()
        head = self._make_head(embedder)
        pictures = embedder.read(items)
        sets = embedder.embed(pictures, kinds_of(head))
        return self._take(embedder, head, sets, labels, _kept(items, pictures), pictures.names)

    def partial_fit(
        self, X: Iterable[Input], y: Iterable[Any], classes: Iterable[Any] | None = None
    ) -> FewShotClassifier:
        """Add photos to classes, or new classes; what was given before is not encoded again.

        Args:
            X: Images.
            y: Their labels.
            classes: For the convention only: a class is known from its first photo on, so it need not be announced.

        Raises:
            FieldmarkError: For bad images, or labels that do not fit.
        """
        if not hasattr(self, "classes_"):
            return self.fit(X, y)
        items, labels = as_inputs(X), as_labels(y)
        check_counts(items, labels)
        pictures = self.embedder_.read(items)
        kinds = [kind for kind in get_args(Kind) if kind in self.descriptors_]
        new = self.embedder_.embed(pictures, kinds)
        sets = {kind: torch.cat([self.descriptors_[kind], new[kind]]) for kind in kinds}
        return self._take(
            self.embedder_, self._make_head(self.embedder_), sets, joined(self.labels_, labels),
            [*self.photos_, *_kept(items, pictures)], [*self.names_, *pictures.names],
        )  # fmt: skip

    @classmethod
    def from_descriptors(
        cls,
        embedder: Embedder,
        descriptors: Mapping[str, Tensor | np.ndarray],
        labels: Iterable[Any],
        photos: Sequence[Input | None] | None = None,
        names: Sequence[str] | None = None,
        **options: Any,
    ) -> FewShotClassifier:
        """A fitted classifier from descriptors that were made before (a gallery's).

        Args:
            embedder: What made them; queries are described by it.
            descriptors: ``(M, N, C)`` for each kind: ``"local"`` and ``"pooled"``, or at least what the head takes.
            labels: ``(M,)``.
            photos: The photos for pictures of evidence: paths, bytes of image files, PIL images or arrays; None for
                one that cannot be shown.
            names: What to call the photos.
            options: Of the classifier; those of the embedder (backbone, size ...) need not be given.

        Raises:
            FieldmarkError: If the head takes a kind that is not there, or numbers of photos differ.
        """
        made = cls(**{"backbone": embedder.encoder, **options})
        made._check_options()
        head, values = made._make_head(embedder), as_labels(labels)
        sets = {kind: torch.as_tensor(one, dtype=torch.float32) for kind, one in descriptors.items()}
        if head.descriptors not in sets:
            raise FieldmarkError(
                f"head {made.head!r} takes {head.descriptors} descriptors, and there are {', '.join(sets) or 'none'}; "
                "embed the photos with this kind as well, or take another head"
            )
        for kind, one in sets.items():
            check_counts(one, values, f"{kind} descriptors")
        kept = [None] * len(values) if photos is None else list(photos)
        called = [_name(photo, i) for i, photo in enumerate(kept)] if names is None else list(names)
        check_counts(kept, values, "photos")
        check_counts(called, values, "names")
        return made._take(embedder, head, sets, values, kept, called)

    def decision_function(self, X: Iterable[Input]) -> np.ndarray:
        """Scores ``(n, classes)``, large means near; for two classes ``(n,)``, the second's minus the first's."""
        scores = self._scores(X).numpy()
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Iterable[Input]) -> np.ndarray:
        """Calibrated probabilities ``(n, classes)``, given that each photo is of one of the classes."""
        return self.probabilities(self._scores(X)).numpy()

    def predict(self, X: Iterable[Input]) -> np.ndarray:
        """The label of each photo; with ``reject=True`` ``"none of these"`` where the score is below the line."""
        scores = self._scores(X)
        labels = self.classes_[scores.argmax(-1).numpy()]
        if not self.reject:
            return labels
        out = labels.astype(object)
        out[self.rejected(scores)] = NONE_OF_THESE
        return out

    def predict_detailed(self, X: Iterable[Input], top: int = 5) -> list[Prediction]:
        """Label, confidence, whether it is rejected, and the nearest classes, for each photo.

        Args:
            X: Images.
            top: How many classes to list.
        """
        if top < 1:
            raise FieldmarkError(f"top is {top}; expected at least 1 class")
        return self.answers(self._scores(X), top)

    def answers(self, scores: Tensor, top: int = 5) -> list[Prediction]:
        """The answers for scores ``(n, classes)`` that are there already."""
        known = self.line is not None
        below, probability = self.rejected(scores), self.probabilities(scores)
        order = probability.argsort(dim=-1, descending=True, stable=True)[:, :top]
        out = []
        for row, (best, chance) in enumerate(zip(order.tolist(), probability.tolist(), strict=True)):
            rejected = bool(below[row]) if known else None
            listed = [(plain(self.classes_[i]), chance[i]) for i in best]
            label = NONE_OF_THESE if self.reject and rejected else listed[0][0]
            out.append(Prediction(label, chance[best[0]], rejected, float(scores[row].max()), listed))
        return out

    def explain(self, image: Input, **options: Any) -> Explanation:
        """Why: what matched which photos of the nearest class and of the next, adding up to the scores.

        Args:
            image: One image.
            options: See :func:`fieldmark.gallery.evidence.explain`.
        """
        from fieldmark.gallery.evidence import explain

        check_is_fitted(self, "classes_")
        return explain(self, image, **options)

    def score_descriptors(self, sets: Mapping[str, Tensor]) -> Tensor:
        """Scores ``(n, classes)`` of photos that were described by :attr:`embedder_`, by kind."""
        check_is_fitted(self, "classes_")
        query, everything = self._prepared(sets[self.head_.descriptors]), torch.arange(len(self.targets_))
        return self._score(query, everything, self.targets_, len(self.classes_))

    def probabilities(self, scores: Tensor) -> Tensor:
        """Calibrated probabilities ``(n, classes)`` for scores that are there already."""
        return torch.softmax(scores.double() / self.temperature, -1)

    def rejected(self, scores: Tensor) -> np.ndarray:
        """Which of the scores' photos ``(n,)`` are of none of the classes; none where there is no line to be below."""
        line = self.line
        return np.zeros(len(scores), bool) if line is None else (scores.max(-1).values < line).numpy()

    @property
    def temperature(self) -> float:
        """Scores are divided by it before the softmax; 1 without calibration."""
        check_is_fitted(self, "classes_")
        return 1.0 if self.calibration_ is None else self.calibration_.temperature

    @property
    def line(self) -> float | None:
        """Photos whose largest score is below it are of none of the classes; None where nothing is known."""
        check_is_fitted(self, "classes_")
        return None if self.calibration_ is None else self.calibration_.threshold

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools should know: images, no numbers, in any shape."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def _check_options(self) -> None:
        if not 0 <= self.false_reject < 1:
            raise FieldmarkError(f"false_reject is {self.false_reject}; expected a share of at least 0 and below 1")
        HEADS.get(self.head)

    def _make_embedder(self) -> Embedder:
        options = (self.size, self.image_fit, self.descriptors, self.descriptor_options, self.device)
        if not isinstance(self.backbone, str):
            return Embedder(self.backbone, *options)  # type: ignore[arg-type]
        key = repr((self.backbone, *options))
        if key not in _EMBEDDERS:
            _EMBEDDERS.clear()
            _EMBEDDERS[key] = Embedder(self.backbone, *options)  # type: ignore[arg-type]
        return _EMBEDDERS[key]

    def _make_head(self, embedder: Embedder) -> Head:
        return create_for(embedder.encoder, self.head, **dict(self.head_options or {}))

    def _take(
        self,
        embedder: Embedder,
        head: Head,
        sets: dict[str, Tensor],
        labels: np.ndarray,
        photos: list[Any],
        names: list[str],
    ) -> FewShotClassifier:
        with _all_or_nothing(self):
            classes, targets = np.unique(labels, return_inverse=True)
            if type(head).fit_base is not Head.fit_base:
                head.fit_base(sets[head.descriptors])
            self.embedder_, self.head_, self.descriptors_ = embedder, head, dict(sets)
            self.labels_, self.photos_, self.names_, self.classes_ = labels, photos, names, classes
            self.targets_ = torch.from_numpy(targets.astype(np.int64))
            self._steps = head.two_steps()
            self._support = self._prepared(sets[head.descriptors])
            self.calibration_: Calibration | None = None
            if self.calibrated:
                self.calibration_ = calibrate(
                    self._score_held_out, self.targets_, len(classes), self.false_reject,
                    prior=PRIORS.get(self.head, PRIOR),
                )  # fmt: skip
        return self

    def _scores(self, X: Iterable[Input]) -> Tensor:
        check_is_fitted(self, "classes_")
        sets = self.embedder_.embed(as_inputs(X), [self.head_.descriptors])
        return self.score_descriptors(sets)

    def _score_held_out(self, stay: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        return self._score(self._support[query], stay, labels, way)

    @torch.no_grad()
    def _prepared(self, sets: Tensor) -> Tensor:
        """What the head does to each image once; held-out photos then cost little more than the last step."""
        if self._steps is None:
            return sets
        device, shorten = self.embedder_.encoder.device, self._steps[0]
        self.head_.to(device)
        return torch.cat([shorten(part.to(device)).cpu() for part in sets.split(_IMAGES_AT_ONCE)])

    @torch.no_grad()
    def _score(self, query: Tensor, stay: Tensor, labels: Tensor, way: int) -> Tensor:
        """Scores of queries ``(Q, N, C)`` from some of the support photos; the head runs where the model is."""
        device = self.embedder_.encoder.device
        support = self._support[stay].unsqueeze(0).to(device)
        head = (self.head_ if self._steps is None else self._steps[1]).to(device)
        target = labels.unsqueeze(0).to(device)
        each = query.shape[1] * query.shape[2] * query.element_size()
        step = max(1, _BYTES_AT_ONCE // each) if head.light else _QUERIES_AT_ONCE
        parts = []
        with torch.random.fork_rng(devices=[]):
            for part in query.split(step):
                torch.manual_seed(self.random_state)
                parts.append(head(support, target, part.unsqueeze(0).to(device), way)[0].float().cpu())
        found = torch.cat(parts) if parts else torch.empty(0, way)
        if not torch.isfinite(found).all():
            raise FieldmarkError(f"head {self.head!r} gives scores that are not finite for these photos; take another")
        return found


@contextmanager
def _all_or_nothing(thing: Any) -> Iterator[None]:
    """What fails, or is interrupted, leaves the object as it was."""
    before = dict(vars(thing))
    try:
        yield
    except BaseException:
        thing.__dict__ = before
        raise


def kinds_of(head: Head) -> list[Kind]:
    """What is kept of the support photos: what the head takes, and local descriptors, for evidence."""
    return list(dict.fromkeys([head.descriptors, "local"]))


def _kept(items: Sequence[Any], pictures: Pictures) -> list[Any]:
    """What is kept of the photos for pictures of evidence: a path where there is one, else the image as it was seen."""
    return [
        os.fspath(items[at]) if isinstance(items[at], str | os.PathLike) else pictures.images[i]
        for i, at in enumerate(pictures.positions)
    ]


def _name(photo: Any, position: int) -> str:
    return name_of(photo, position) if photo is not None else f"photo {position}"
