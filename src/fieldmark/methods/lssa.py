"""LSSA: training on episodes through the spatial alignment of support and query maps."""

from __future__ import annotations

from typing import Literal

from fieldmark import heads
from fieldmark.descriptors import Extractor
from fieldmark.methods.base import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective


@OBJECTIVES.add(
    "lssa", "episodes, distances of spatially aligned maps", source="Wu et al. 2021 (LSSA), section 3, eq. 1-9"
)
class LSSA(EpisodicObjective):
    """Cross-entropy of minus the distances between the query's map and the aligned maps of the classes.

    Source: "Object-aware long-short-range spatial alignment for few-shot fine-grained image classification" (Wu et al.
    2021), eq. 9. The scoring is the head ``spatial_alignment``, here with every part on. The paper's phases are stages
    of this objective: first without the manipulation, then with it.

    Args:
        foreground: ``"full"``, ``"features"``, ``"mask"`` or ``"none"``.
        correspondence: Align by semantic correspondence.
        reduce: Compare g of the maps there.
        manipulation: Move each place of the aligned maps by a learned offset.
        temperature: Of the correspondence; 1 in the paper.
        distance: ``"squared_euclidean"``, ``"euclidean"``, ``"sum"`` or ``"pooled"``.
        scale: Factor on minus the distances.
        max_offset: Largest offset of the manipulation; the whole map is 2.
        padding: What the manipulation finds outside the map: ``"zeros"`` or ``"border"``.
        memory: Megabytes that pairs may take at once, about; it does not change the result.
        descriptors: What the sets consist of; a recipe's ``descriptors`` take its place.

    Example:
        >>> import torch
        >>> from fieldmark.methods import EpisodeBatch
        >>> objective = LSSA()
        >>> objective.setup(channels=3, classes=10)
        >>> labels = torch.tensor([[0, 1]])
        >>> images = torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> sorted(objective(lambda images: images, EpisodeBatch(images, labels, images, labels, way=2)))
        ['accuracy', 'loss']
    """

    def __init__(
        self,
        foreground: Literal["none", "full", "features", "mask"] = "full",
        correspondence: bool = True,
        reduce: bool = True,
        manipulation: bool = True,
        temperature: float = 1.0,
        distance: Literal["squared_euclidean", "euclidean", "sum", "pooled"] = "squared_euclidean",
        scale: float = 1.0,
        max_offset: float = 1.0,
        padding: Literal["zeros", "border"] = "zeros",
        memory: int | None = None,
        descriptors: str | Extractor = "dense",
    ) -> None:
        head = heads.create(
            "spatial_alignment",
            foreground=foreground, correspondence=correspondence, reduce=reduce and correspondence,
            manipulation=manipulation, temperature=temperature, distance=distance, scale=scale, max_offset=max_offset,
            padding=padding, memory=memory,
        )  # fmt: skip
        super().__init__(head, descriptors)
