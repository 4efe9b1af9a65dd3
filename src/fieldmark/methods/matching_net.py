"""MatchingNet: training on episodes with attention over the support images."""

from __future__ import annotations

from fieldmark import heads
from fieldmark.methods.base import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective


@OBJECTIVES.add(
    "matching_net", "episodes, cosine attention over the support images", source="Vinyals et al. 2016, eq. 1 and 6"
)
class MatchingNet(EpisodicObjective):
    """Negative log-probability of the true class under a cosine attention over all support images.

    Source: "Matching networks for one shot learning" (Vinyals et al. 2016), eq. 1:
    ``p(y | x) = sum_i a(x, x_i) y_i`` with a the softmax over the support images of the cosines, times a scale (the
    paper: 1). The scoring is the head ``matching``. Without full-context embeddings, as in DeepEMD's Table 1.

    Args:
        scale: Factor on the cosines before the softmax, above 0.

    Example:
        >>> MatchingNet(scale=10.0).sampling
        'episodes'
    """

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__(heads.create("matching", scale=scale))
