"""Spatial alignment of every support map with every query map, then their distance (LSSA)."""

from __future__ import annotations

from math import isqrt
from typing import Literal, get_args

import torch

from fieldmark.alignment import ForegroundEnhancement, SemanticCorrespondence, SpatialManipulation
from fieldmark.alignment.pairs import Distance, aligned_distances
from fieldmark.errors import FieldmarkError
from fieldmark.functional.correspondence import correspondence_keys
from fieldmark.functional.foreground import foreground_mask
from fieldmark.functional.offsets import Padding
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.shapes import Float, Tensor

Foreground = Literal["none", "full", "features", "mask"]


@HEADS.add(
    "spatial_alignment",
    "distance to support maps that are aligned with the query's map",
    source="Wu et al. 2021 (LSSA)",
)
class SpatialAlignment(Head):
    """Minus the distance between the query's map and the maps of each class, aligned with it place by place.

    Source: "Object-aware long-short-range spatial alignment for few-shot fine-grained image classification" (LSSA),
    section 3. Three parts, each of which can be left out: foreground object enhancement of every map, long-range
    semantic correspondence and short-range spatial manipulation of every support map for every query. Without any of
    them it is the matching of paired features, the paper's baseline. There is no official code; what the paper leaves
    open is decided as docs/heads/spatial_alignment.md says.

    By default only the correspondence is on, on the descriptors themselves: this needs no training. Other parts are
    built by :meth:`setup` and learned by the objective ``lssa``.

    With several shots each support image is aligned with the query, and the aligned maps of a class are averaged.
    Pairs are taken in chunks. What the backward pass needs of them is kept where it fits into ``memory``, and computed
    again where it does not. The result is that of all pairs at once, the batch norms of the manipulation included,
    whose statistics are those of all pairs of a call.

    Args:
        foreground: ``"none"``; ``"full"``; ``"features"``, the deformable convolution without the mask; ``"mask"``, the
            mask of the descriptors themselves, which needs no training.
        correspondence: Align by semantic correspondence.
        reduce: Compare g of the descriptors there, which is learned; otherwise the descriptors themselves.
        manipulation: Move each place of the aligned maps by a learned offset.
        temperature: Of the correspondence, divides the cosines; 1 in the paper. To be chosen on validation
            classes for features that were not trained with it.
        distance: ``"squared_euclidean"`` or ``"euclidean"``, the mean over the places; ``"sum"``, the squared distance
            of the flattened maps; ``"pooled"``, that of the mean vectors.
        scale: Factor on the scores.
        max_offset: Largest offset of the manipulation; the whole map is 2.
        padding: What the manipulation finds outside the map: ``"zeros"`` or ``"border"``.
        memory: Megabytes that pairs may take at once, about; None: 512 on a processor, 4096 elsewhere. It changes
            memory and speed, not the result.

    Example:
        >>> maps = torch.eye(4).view(1, 1, 4, 4)
        >>> support = torch.cat([maps, 2 * maps], dim=1)
        >>> SpatialAlignment(temperature=0.01)(support, torch.tensor([[0, 1]]), maps.flip(2), way=2)
        tensor([[[-0., -1.]]])
    """

    descriptors: Kind = "local"

    def __init__(
        self,
        foreground: Foreground = "none",
        correspondence: bool = True,
        reduce: bool = False,
        manipulation: bool = False,
        temperature: float = 1.0,
        distance: Distance = "squared_euclidean",
        scale: float = 1.0,
        max_offset: float = 1.0,
        padding: Padding = "zeros",
        memory: int | None = None,
    ) -> None:
        super().__init__()
        check_option("spatial_alignment", "foreground", foreground, get_args(Foreground))
        check_option("spatial_alignment", "distance", distance, get_args(Distance))
        check_option("spatial_alignment", "padding", padding, get_args(Padding))
        check_positive("spatial_alignment", temperature=temperature, scale=scale, max_offset=max_offset)
        if memory is not None and memory < 1:
            raise FieldmarkError(f"memory of head spatial_alignment is {memory}; expected at least 1 megabyte, or None")
        if reduce and not correspondence:
            raise FieldmarkError("reduce of head spatial_alignment is part of the correspondence, which is off")
        self.foreground, self.correspondence, self.reduce = foreground, correspondence, reduce
        self.manipulation, self.temperature, self.distance, self.scale = manipulation, temperature, distance, scale
        self.max_offset, self.padding, self.memory = max_offset, padding, memory
        self.enhance: ForegroundEnhancement | None = None
        self.correspond: SemanticCorrespondence | None = None
        self.manipulate: SpatialManipulation | None = None

    @property
    def learned(self) -> bool:
        """Whether any part that is on has to be trained."""
        return self.foreground in ("full", "features") or self.reduce or self.manipulation

    def setup(self, channels: int) -> None:
        """Build the learned parts that are on, with fresh weights."""
        if self.foreground in ("full", "features"):
            self.enhance = ForegroundEnhancement(channels, mask=self.foreground == "full")
        if self.reduce:
            self.correspond = SemanticCorrespondence(channels, temperature=self.temperature)
        if self.manipulation:
            self.manipulate = SpatialManipulation(channels, self.max_offset, self.padding)

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Minus the distances, times the scale."""
        self._check(support, query)
        given = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            dtype = next((one.dtype for one in self.parameters()), given)
            query, support = self.enhanced(query.to(dtype), support.to(dtype))
            keys = None
            if self.correspondence:
                sets = query, support
                if self.correspond is not None:
                    sets = self.correspond.reduced(*sets)
                keys = correspondence_keys(*sets, self.temperature)
            found = aligned_distances(
                query, support, labels, way, keys, self.manipulate, distance=self.distance, memory=self.memory
            )
        return (-self.scale * found).to(given)

    def enhanced(
        self, query: Float[Tensor, "E Q N C"], support: Float[Tensor, "E S M C"]
    ) -> tuple[Float[Tensor, "E Q N C"], Float[Tensor, "E S M C"]]:
        """Both sides' maps after foreground enhancement: all images in one batch."""
        if self.foreground == "none":
            return query, support
        if self.enhance is None:
            return query * foreground_mask(query).unsqueeze(-1), support * foreground_mask(support).unsqueeze(-1)
        side, channels = isqrt(query.shape[2]), query.shape[-1]
        sets = torch.cat([support, query], dim=1)
        maps = sets.flatten(0, 1).mT.reshape(-1, channels, side, side)
        found = self.enhance(maps).flatten(2).mT.reshape(sets.shape)
        return found[:, support.shape[1] :], found[:, : support.shape[1]]

    def _check(self, support: Tensor, query: Tensor) -> None:
        """Refuse what the parts that are on cannot take."""
        parts = {"foreground": self.enhance, "reduce": self.correspond, "manipulation": self.manipulate}
        wanted = {
            "foreground": self.foreground in ("full", "features"),
            "reduce": self.reduce,
            "manipulation": self.manipulation,
        }
        missing = [name for name, part in parts.items() if wanted[name] and part is None]
        if missing:
            raise FieldmarkError(
                f"head spatial_alignment has learned parts without weights ({', '.join(missing)}); train the objective"
                " lssa, use the model file that it wrote, or leave these options off"
            )
        for part in parts.values():
            if part is not None and part.channels != query.shape[-1]:
                raise FieldmarkError(
                    f"descriptors have {query.shape[-1]} channels, head spatial_alignment learned {part.channels};"
                    " use the backbone that it was trained with"
                )
        places, square = query.shape[2], isqrt(query.shape[2]) ** 2
        if places != square and (self.enhance or self.manipulate):
            raise FieldmarkError(
                f"sets have {places} descriptors; foreground and manipulation of head spatial_alignment need square"
                " maps (9, 16, 25 ... places), as the extractor dense gives for square images"
            )
        if places != support.shape[2] and (self.enhance or not self.correspondence):
            raise FieldmarkError(
                f"query sets have {places} descriptors and support sets {support.shape[2]}; head spatial_alignment"
                " needs as many with foreground, and without correspondence"
            )
