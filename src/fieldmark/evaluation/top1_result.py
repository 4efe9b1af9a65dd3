"""What an evaluation of top-1 accuracy leaves: right and wrong by image, by class and by pair of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.statistics import (
    Estimate,
    Interval,
    estimate,
    hits_for_file,
    paired_difference,
    shares_for_file,
)


@dataclass(frozen=True)
class Top1Result:
    """Outcome of one classifier, or one fitted head, on the images of a split.

    Attributes:
        hits: ``(N,)`` whether the right class came first, for each image.
        hits5: ``(N,)`` whether it was among the first five (with fewer classes always).
        predicted: ``(N,)`` number of the class that came first.
        class_accuracies: Accuracy for each class name over its images.
        confusion: ``(classes, classes)`` counts, true class by row, predicted class by column.
        class_names: The classes, in the order of these numbers.
        head: ``"classifier"`` for the model's own, else the name of the head that was fitted.
        head_options: Of the classifier its name and options, of a head those that were given.
        descriptors: Name and options of the extractor that made a head's sets.
        support: What a head was fitted on: the manifest of these images; None for a classifier.
        notes: What a reader has to know before comparing, one sentence each.
        manifest: What the images were.
        image_hash: The same for the same images in the same order.
        seconds: Time for encoding and for scoring (of a classifier both are one).
    """

    hits: np.ndarray = field(repr=False)
    hits5: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    class_accuracies: dict[str, float] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    class_names: list[str] = field(repr=False)
    head: str
    head_options: dict[str, Any]
    descriptors: dict[str, Any]
    support: dict[str, Any] | None = field(repr=False)
    notes: list[str] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    image_hash: str = field(repr=False)
    seconds: dict[str, float]
    interval: Interval = "normal"

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy over the images, 0 to 1."""
        return float(self.hits.mean())

    @property
    def top5(self) -> float:
        """Top-5 accuracy over the images."""
        return float(self.hits5.mean())

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes of their top-1 accuracies: a class of few images counts as much as one of many."""
        return float(np.mean(list(self.class_accuracies.values())))

    @property
    def estimate(self) -> Estimate:
        """Top-1 accuracy with its 95% interval over the images."""
        return estimate(self.hits, "images", self.interval)

    @property
    def estimate5(self) -> Estimate:
        """Top-5 accuracy with its 95% interval over the images."""
        return estimate(self.hits5, "images", self.interval)

    def difference(self, other: Top1Result) -> Estimate:
        """Paired difference ``self - other`` in top-1 accuracy on the same images.

        Raises:
            FieldmarkError: If the images differ.
        """
        if self.image_hash != other.image_hash:
            raise FieldmarkError("a paired difference needs the same images; these results used different ones")
        return paired_difference(self.hits, other.hits, self.interval)

    def confused(self, pairs: int = 10) -> list[tuple[str, str, int]]:
        """The class pairs that are confused most often.

        Returns:
            At most ``pairs`` of (true class, class it was taken for, images), the most frequent first.
        """
        counts = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-counts, axis=None, kind="stable")[:pairs]
        rows, columns = np.unravel_index(order, counts.shape)
        found = [(r, c, int(counts[r, c])) for r, c in zip(rows, columns, strict=True)]
        return [(self.class_names[r], self.class_names[c], count) for r, c, count in found if count]

    def to_dict(self) -> dict[str, Any]:
        """Everything that belongs in a results file, as JSON values.

        The fields are those of a few-shot result, with an image as an episode of one query.
        """
        return {
            "task": "top1",
            **self.estimate.to_dict(),
            "top5": self.estimate5.to_dict(),
            "mean_class_accuracy": self.mean_class_accuracy,
            "head": self.head,
            "head_options": self.head_options,
            "descriptors": self.descriptors,
            "support": self.support,
            "protocol": {"source": "every image of the split, all classes", "classes": len(self.confusion)},
            "notes": self.notes,
            "episode_hash": self.image_hash,
            "queries_per_episode": 1,
            "hits_per_episode": hits_for_file(self.hits),
            "top5_hits_per_image": hits_for_file(self.hits5),
            "class_accuracies": shares_for_file(self.class_accuracies),
            "confused_pairs": [list(pair) for pair in self.confused()],
            "leaked_classes": [],
            "manifest": self.manifest,
            "seconds": self.seconds,
        }
