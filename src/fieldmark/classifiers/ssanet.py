"""SSANET: parts whose scales and orientations are aligned while they are recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from fieldmark.classifiers.base import CLASSIFIERS, Encode
from fieldmark.classifiers.part_features import PartBoxes, PartClassifier, PartSource, Proposals, check_choice, sides
from fieldmark.classifiers.part_scores import FeaturePyramid, OrientedPooling, ScaleMining, SpatialPyramid
from fieldmark.errors import FieldmarkError
from fieldmark.functional.orientation import check_patches
from fieldmark.functional.scales import scale_candidates
from fieldmark.shapes import Float, Int, Tensor

DSM = Literal["full", "fixed", "max", "spp", "fpn", "none"]
Pooling = Literal["oriented", "gap", "gmp", "none"]
DSMFeature = Literal["pooled", "flatten"]
OPWeights = Literal["shared", "per_part"]
_MINED = ("full", "fixed", "max")


@dataclass(frozen=True)
class SSANETScores:
    """What SSANET says about a batch.

    Attributes:
        found: Proposals of parts; the first K are the parts.
        logits: ``(B, L)``: its decision, the sum of the scores below that count.
        vectors: ``(B, K, C)`` pooled features of the parts.
        parts: ``(B, M, L)`` from each proposal alone, by the one layer of all parts (FC of eq. 1).
        scale: ``(B, L)`` from the scales (DSM or what stands in its place); None without.
        oriented: ``(B, L)`` from the oriented pooling; None without.
        candidates: ``(B, K, S, 4)`` boxes of all scales; None without.
        winner: ``(B, K)`` numbers of the chosen candidates; None without.
        boxes: ``(B, K, 4)`` of the parts, with the aligned scale where there are scales.
        maps: ``(B, K, C, roi, roi)`` of these boxes.
    """

    found: Proposals
    logits: Tensor
    vectors: Tensor
    parts: Tensor
    scale: Tensor | None
    oriented: Tensor | None
    candidates: Tensor | None
    winner: Tensor | None
    boxes: Tensor
    maps: Tensor


@CLASSIFIERS.add("ssanet", "parts with aligned scales and orientations", source="SSANET, sections 3.1 to 3.3")
class SSANetClassifier(PartClassifier):
    """Scores of the K best parts, from their scales (DSM) plus from the oriented pooling (OP) of the aligned ones.

    Source: "SSANET", sections 3.1 to 3.3; the whole image has no score of its own. There is no public code; where the
    paper is silent, see the page of the method. The winning shift of the true class in training, of the class that the
    scales favour otherwise, says which candidate is the part.

    Args:
        parts: K.
        proposals: M: boxes whose order the navigator learns, at least K.
        scales: S: candidates of each part, odd.
        scale_ratio: Of the sizes of neighbouring candidates, above 1.
        dsm: ``"full"``; the rows of Table 5: ``"fixed"`` (no shift), ``"max"`` (DSM(1): one filter, the best
            candidate), ``"spp"`` and ``"fpn"`` (pyramids of the part's map); or ``"none"``.
        dsm_feature: Of a candidate: ``"pooled"``, the mean of its map, or ``"flatten"``, all of it (paper).
        dsm_method: Of the circular response: ``"auto"``, ``"fft"`` or ``"direct"``.
        pooling: ``"oriented"``; the rows of Table 4: ``"gap"``, ``"gmp"`` (mean or maximum over the part's places, then
            the one layer of all parts); or ``"none"``.
        patch: Side of the patches of the oriented pooling.
        patch_stride: Places between them.
        op_weights: ``"shared"`` by all parts (paper) or ``"per_part"``.
        features: ``"shared"`` (RoI align from one map) or ``"reextract"`` (each box is encoded by itself, as in the
            paper).
        part_size: Side in pixels of a part that is encoded by itself.
        roi_size: Rows and columns of a part's map.
        overlap: Threshold of the non-maximum suppression.
        anchor_size: Side of the anchors of scale 1, in strides.

    Raises:
        FieldmarkError: For an unknown value or one out of range, or if neither dsm nor pooling is left.

    Example:
        >>> classifier = SSANetClassifier(scales=3)
        >>> classifier.setup(channels=8, classes=3)
        >>> found = classifier.look(lambda images: torch.rand(len(images), 8, 4, 4), torch.zeros(2, 3, 64, 64))
        >>> found.logits.shape, found.candidates.shape
        (torch.Size([2, 3]), torch.Size([2, 4, 3, 4]))
    """

    kind: ClassVar[str] = "ssanet"
    fc: nn.Linear
    dsm: nn.Module
    op: nn.Module

    def __init__(
        self,
        parts: int = 4,
        proposals: int = 6,
        scales: int = 5,
        scale_ratio: float = 1.2,
        dsm: DSM = "full",
        dsm_feature: DSMFeature = "pooled",
        dsm_method: Literal["auto", "fft", "direct"] = "auto",
        pooling: Pooling = "oriented",
        patch: int = 3,
        patch_stride: int = 2,
        op_weights: OPWeights = "shared",
        features: PartSource = "shared",
        part_size: int = 224,
        roi_size: int = 7,
        overlap: float = 0.25,
        anchor_size: float = 1.5,
    ) -> None:
        super().__init__(parts, proposals, features, part_size, roi_size, overlap, anchor_size)
        for option, value, known in (
            ("dsm", dsm, DSM), ("dsm_feature", dsm_feature, DSMFeature), ("pooling", pooling, Pooling),
            ("op_weights", op_weights, OPWeights), ("dsm_method", dsm_method, Literal["auto", "fft", "direct"]),
        ):  # fmt: skip
            check_choice(self.kind, option, value, get_args(known))
        if dsm == pooling == "none":
            raise FieldmarkError("dsm and pooling of classifier ssanet are both none; nothing is left to decide by")
        scale_candidates(torch.zeros(1, 1, 4), (1, 1), scales, scale_ratio)  # refuses what cannot be
        if pooling == "oriented":
            check_patches(roi_size, patch, patch_stride)
        self.scales, self.scale_ratio, self.pooling = scales, scale_ratio, pooling
        self.dsm_kind: DSM = dsm
        self.dsm_feature, self.dsm_method, self.op_weights = dsm_feature, dsm_method, op_weights
        self.patch, self.patch_stride = patch, patch_stride

    def setup(self, channels: int, classes: int) -> None:
        """Build navigator, the layer of all parts, and what scores scales and orientations."""
        super().setup(channels, classes)
        self.fc = nn.Linear(channels, classes)
        # Parts that are switched off stay as empty modules, so that recipes can freeze them by name all the same.
        self.dsm, self.op = nn.Identity(), nn.Identity()
        if self.dsm_kind in ("full", "fixed", "max"):
            self.dsm = ScaleMining(
                self.dsm_kind, self.dsm_feature == "flatten", self.parts, classes, self.scales, channels,
                self.roi_size**2, self.dsm_method,
            )  # fmt: skip
        elif self.dsm_kind != "none":
            kind = SpatialPyramid if self.dsm_kind == "spp" else FeaturePyramid
            self.dsm = kind(self.parts, classes, channels)
        if self.pooling == "oriented":
            sets = self.parts if self.op_weights == "per_part" else 1
            self.op = OrientedPooling(sets, classes, channels, self.roi_size, self.patch, self.patch_stride)

    def forward(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L"]:
        """Scores of the images."""
        return self.look(encode, images).logits

    def part_boxes(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> PartBoxes:
        """The K best proposals, the same with aligned scale, and what it decides."""
        found = self.look(encode, images)
        return PartBoxes(found.found.boxes, found.boxes if found.winner is not None else None, found.maps, found.logits)

    def look(
        self,
        encode: Encode,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, "B"] | None = None,
        proposals: int | None = None,
    ) -> SSANETScores:
        """All scores, and where the parts are.

        Args:
            encode: Images to maps.
            images: In 0 to 1.
            labels: Their classes, in training; they decide which candidate is the part.
            proposals: How many are scored, at least K; default: K.
        """
        found = self.propose(encode, images, self.parts if proposals is None else proposals)
        maps = self.part_maps(encode, found, found.boxes)
        vectors = maps.amax((-2, -1)) if self.pooling == "gmp" else maps.mean((-2, -1))
        parts = self.fc(vectors)
        boxes, own = found.boxes[:, : self.parts], maps[:, : self.parts]
        scale = candidates = winner = oriented = None
        if self.dsm_kind in _MINED:
            candidates = scale_candidates(boxes, sides(found.images), self.scales, self.scale_ratio)
            every = self._candidate_maps(encode, found, candidates, own)
            value, choices = self.dsm.respond(every)  # type: ignore[operator]
            scale = value.mean(1)
            chosen_by = scale.argmax(1) if labels is None else labels
            winner = choices.gather(2, chosen_by.view(-1, 1, 1).expand(-1, self.parts, 1)).squeeze(2)
            boxes, own = _pick(candidates, winner), _pick(every, winner)
        elif self.dsm_kind != "none":
            scale = self.dsm(own).mean(1)
        if self.pooling == "oriented":
            oriented = self.op(own).value.mean(1)
        pooled = parts[:, : self.parts].mean(1) if self.pooling in ("gap", "gmp") else None
        logits = torch.stack([one for one in (scale, oriented, pooled) if one is not None]).sum(0)
        return SSANETScores(
            found, logits, vectors[:, : self.parts], parts, scale, oriented, candidates, winner, boxes, own
        )

    def _candidate_maps(self, encode: Encode, found: Proposals, candidates: Tensor, own: Tensor) -> Tensor:
        """Maps (B, K, S, C, roi, roi); the middle candidate is the proposal, whose map is there already."""
        middle = self.scales // 2
        if self.scales == 1:
            return own.unsqueeze(2)
        others = torch.cat([candidates[:, :, :middle], candidates[:, :, middle + 1 :]], dim=2)
        maps = self.part_maps(encode, found, others.flatten(1, 2)).unflatten(1, (self.parts, -1))
        return torch.cat([maps[:, :, :middle], own.unsqueeze(2), maps[:, :, middle:]], dim=2)


def _pick(every: Float[Tensor, "B K S *rest"], chosen: Int[Tensor, "B K"]) -> Float[Tensor, "B K *rest"]:
    """The chosen one of S for each part."""
    images, parts = (torch.arange(side, device=chosen.device) for side in chosen.shape)
    return every[images.unsqueeze(1), parts, chosen]
