"""The graphs of an exported classifier: images and gallery to scores, and gallery to fitted model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fieldmark.backbones import Encoder
from fieldmark.descriptors import Extractor, describe
from fieldmark.descriptors.base import MapExtractor
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.classifier import FewShotClassifier
from fieldmark.gallery.portable.heads import FittedHead, Portable, portable_head
from fieldmark.shapes import Float, Int, Tensor, UInt8

_QUERIES, _PHOTOS, _CLASSES = 2, 5, 3  # of the example that is traced; the exported graph takes any


class _Model(nn.Module):
    """Images and the gallery in, scores and descriptors out."""

    def __init__(self, encoder: Encoder, extractor: Extractor, head: Portable) -> None:
        super().__init__()
        self.encoder, self.extractor, self.head = encoder, extractor, head
        self.kind = head.head.descriptors
        self.inputs = ("images", *head.gallery)

    def forward(self, images: UInt8[Tensor, "Q H W 3"], *gallery: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2)
        found = self.head.digest(describe(self.encoder, pixels, [self.kind], self.extractor)[self.kind])
        if isinstance(self.head, FittedHead):
            return self.head.score_fitted(found, *gallery), found
        support, labels, classes = gallery
        index, members = membership(labels, classes)
        return self.head.score(found, support, index, members), found


class _Fit(nn.Module):
    """The gallery in, the fitted model out."""

    def __init__(self, head: FittedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, support: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        return self.head.fit(support, membership(labels, classes)[1])


def membership(
    labels: Int[Tensor, " S"], classes: Int[Tensor, " way"]
) -> tuple[Int[Tensor, " S"], Float[Tensor, "S way"]]:
    """Place of each label among the classes, which may be any whole numbers, and the same as rows of the identity.

    Example:
        >>> membership(torch.tensor([7, 3, 7]), torch.tensor([3, 7]))[0]
        tensor([1, 0, 1])
    """
    members = (labels.unsqueeze(1) == classes).float()
    return members.argmax(1), members


@dataclass(frozen=True)
class Plan:
    """The parts of a classifier as they are exported.

    Attributes:
        classifier: The fitted classifier.
        head: Its head as plain tensor operations.
        model: Images and the gallery in, scores and descriptors out.
    """

    classifier: FewShotClassifier
    head: Portable
    model: _Model

    @classmethod
    def of(cls, classifier: FewShotClassifier) -> Plan:
        """The plan of a fitted classifier.

        Raises:
            FieldmarkError: Its head or descriptors cannot be exported.
        """
        embedder = classifier.embedder_
        if classifier.head_.descriptors == "local" and not isinstance(embedder.extractor, MapExtractor):
            raise FieldmarkError(
                f"descriptors {embedder.extractor.name!r} cut many windows out of each image and cannot be exported; "
                "take dense or feature_pyramid, or a head on pooled vectors (prototype)"
            )
        head = portable_head(classifier.head_, classifier.head)
        encoder = embedder.encoder
        if encoder.device.type != "cpu":
            encoder = copy.deepcopy(encoder).cpu()
        return cls(classifier, head, _Model(encoder, embedder.extractor, head).eval())

    @property
    def fits(self) -> bool:
        """Whether there is a second graph."""
        return self.head.fitted

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that the model takes."""
        return self.classifier.embedder_.size

    @torch.no_grad()
    def row(self) -> torch.Size:
        """Shape of what is kept of one photo."""
        return self.head.digest(self.classifier.descriptors_[self.model.kind][:1]).shape[1:]

    @torch.no_grad()
    def support(self) -> dict[str, Tensor]:
        """The gallery as photos: support, labels, classes."""
        one = self.classifier
        return {
            "support": torch.cat([self.head.digest(part) for part in one.descriptors_[self.model.kind].split(64)]),
            "labels": one.targets_.clone(),
            "classes": torch.arange(len(one.classes_)),
        }

    @torch.no_grad()
    def tensors(self) -> dict[str, np.ndarray]:
        """What lies in the file of the gallery."""
        found = self.support()
        if isinstance(self.head, FittedHead):
            fitted = self.head.fit_eagerly(found["support"], found["labels"], len(found["classes"]))
            found |= dict(zip(self.head.gallery, fitted, strict=True))
        return {name: np.ascontiguousarray(one.numpy()) for name, one in found.items()}

    def example(self) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
        """Model, inputs and their free sizes."""
        queries, photos, classes = (torch.export.Dim(name) for name in ("queries", "photos", "way"))
        images = torch.zeros(_QUERIES, *self.size, 3, dtype=torch.uint8)
        shape, way = self.row(), classes
        if self.fits:
            # A linear model: weight, bias, centre.
            inputs = torch.zeros(_CLASSES, shape[-1]), torch.zeros(_CLASSES), torch.zeros(shape[-1])
            return self.model, (images, *inputs), ({0: queries}, ({0: way}, {0: way}, {}))
        photos_in = torch.zeros(_PHOTOS, *shape), torch.arange(_PHOTOS) % _CLASSES, torch.arange(_CLASSES)
        return self.model, (images, *photos_in), ({0: queries}, ({0: photos}, {0: photos}, {0: way}))

    def fit_example(self) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
        """Likewise, of the fit."""
        assert isinstance(self.head, FittedHead)
        photos, way = (torch.export.Dim(name) for name in ("photos", "way"))
        inputs = torch.zeros(_PHOTOS, *self.row()), torch.arange(_PHOTOS) % _CLASSES, torch.arange(_CLASSES)
        return _Fit(self.head).eval(), inputs, ({0: photos}, {0: photos}, {0: way})
