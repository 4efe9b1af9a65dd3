"""Training on episodes through any head: the baselines that the papers re-train with their own schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fieldmark import heads
from fieldmark.descriptors import Extractor
from fieldmark.methods.base import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective


@OBJECTIVES.add("head", "episodes, scored by any head by name", source="Vinyals et al. 2016, eq. 6")
class HeadEpisodes(EpisodicObjective):
    """Cross-entropy of the scores of a head that is chosen by name.

    Source: Vinyals et al. 2016, eq. 6. DeepEMD's Table 1 trains k-NN over local descriptors (``local_knn``) and
    prediction fusion (``fusion``) in this way.

    Args:
        head: Name of the head (:data:`fieldmark.heads.HEADS`).
        head_options: Its options.
        descriptors: What a head on local descriptors is given; a recipe's ``descriptors`` take its place.

    Raises:
        FieldmarkError: For an unknown head, or an option that it does not take.

    Example:
        >>> HeadEpisodes("local_knn", {"k": 3}).head.k
        3
    """

    def __init__(
        self,
        head: str = "local_knn",
        head_options: Mapping[str, Any] | None = None,
        descriptors: str | Extractor = "dense",
    ) -> None:
        super().__init__(heads.create(head, **(head_options or {})), descriptors)
