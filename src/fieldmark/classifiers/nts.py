"""NTS-Net: the whole image and the parts that its navigator finds most telling, decided together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from fieldmark.classifiers.base import CLASSIFIERS, Encode
from fieldmark.classifiers.part_features import PartBoxes, PartClassifier, PartSource, Proposals
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


@dataclass(frozen=True)
class NTSScores:
    """What NTS-Net says about a batch.

    Attributes:
        found: Proposals of parts.
        logits: ``(B, L)`` from whole image and best parts together: its decision.
        whole: ``(B, L)`` from the whole image alone.
        parts: ``(B, M, L)`` from each proposal alone.
    """

    found: Proposals
    logits: Tensor
    whole: Tensor
    parts: Tensor


@CLASSIFIERS.add("nts", "whole image and its most telling parts, side by side", source="Yang et al. 2018 (NTS-Net)")
class NTSClassifier(PartClassifier):
    """Scores of the pooled whole image and the K best parts' pooled features put side by side.

    Source: "Learning to navigate for fine-grained classification" (Yang et al. 2018); what SSANET builds on and is
    compared with. Training looks at M proposals (:class:`fieldmark.methods.NTS`), the decision at the K best.

    Args:
        parts: K.
        proposals: M, at least K.
        features: ``"shared"`` (RoI align from one map) or ``"reextract"`` (each part is encoded by itself, as in the
            paper).
        part_size: Side in pixels of a part that is encoded by itself.
        roi_size: Rows and columns of a part's map.
        overlap: Threshold of the non-maximum suppression.
        anchor_size: Side of the anchors of scale 1, in strides.
        dropout: Share of the pooled features that is dropped in training, 0 to below 1.

    Raises:
        FieldmarkError: For an unknown value or one out of range.

    Example:
        >>> classifier = NTSClassifier()
        >>> classifier.setup(channels=8, classes=3)
        >>> classifier(lambda images: torch.rand(len(images), 8, 4, 4), torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 3])
    """

    kind: ClassVar[str] = "nts"
    whole: nn.Linear
    fc: nn.Linear
    together: nn.Linear

    def __init__(
        self,
        parts: int = 4,
        proposals: int = 6,
        features: PartSource = "shared",
        part_size: int = 224,
        roi_size: int = 7,
        overlap: float = 0.25,
        anchor_size: float = 1.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(parts, proposals, features, part_size, roi_size, overlap, anchor_size)
        if not 0 <= dropout < 1:
            raise FieldmarkError(f"dropout of classifier nts is {dropout}; expected 0 to below 1")
        self.dropout = nn.Dropout(dropout)

    def setup(self, channels: int, classes: int) -> None:
        """Build navigator and the three linear layers."""
        super().setup(channels, classes)
        self.whole, self.fc = nn.Linear(channels, classes), nn.Linear(channels, classes)
        self.together = nn.Linear((self.parts + 1) * channels, classes)

    def forward(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L"]:
        """Scores of the images."""
        return self.look(encode, images, self.parts).logits

    def part_boxes(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> PartBoxes:
        """The K best proposals, and what it decides."""
        found = self.look(encode, images, self.parts)
        return PartBoxes(found.found.boxes, None, self.part_maps(encode, found.found, found.found.boxes), found.logits)

    def look(self, encode: Encode, images: Float[Tensor, "B 3 H W"], proposals: int | None = None) -> NTSScores:
        """All scores, and where the parts are.

        Args:
            encode: Images to maps.
            images: In 0 to 1.
            proposals: How many are scored, at least K; default: M, as training wants them.
        """
        found = self.propose(encode, images, self.proposals if proposals is None else proposals)
        vectors = self.dropout(self.part_maps(encode, found, found.boxes).mean((-2, -1)))
        pooled = self.dropout(found.maps.mean((-2, -1)))
        sides = torch.cat([vectors[:, : self.parts].flatten(1), pooled], dim=1)
        return NTSScores(found, self.together(sides), self.whole(pooled), self.fc(vectors))
