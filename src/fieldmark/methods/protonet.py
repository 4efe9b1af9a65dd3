"""ProtoNet: training on episodes with the nearest class mean."""

from __future__ import annotations

from typing import Literal

from fieldmark import heads
from fieldmark.methods.base import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective


@OBJECTIVES.add("protonet", "episodes, nearest class mean", source="Snell et al. 2017, eq. 2 and algorithm 1")
class ProtoNet(EpisodicObjective):
    """Negative log-probability of the true class under a softmax over distances to the class means.

    Source: "Prototypical networks for few-shot learning" (Snell et al. 2017), eq. 2:
    ``p(y = k | x) = softmax_k(-scale * d(f(x), c_k))``, c_k the mean of the class's support vectors, d the squared
    Euclidean distance. The scoring is the head ``prototype``. Where a paper's code divides by a temperature, scale is
    its inverse (the paper: 1); with the *mean*-pooled map of conv4 (64 values) instead of the paper's flattened one
    the distances are smaller, and a scale above 1 can help.

    Args:
        metric: ``"squared_euclidean"``, ``"euclidean"`` or ``"cosine"``.
        scale: Factor on the scores, above 0.

    Example:
        >>> import torch
        >>> from fieldmark.methods import EpisodeBatch
        >>> labels = torch.tensor([[0, 1]])
        >>> images = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 4, 4)
        >>> out = ProtoNet(scale=10.0)(lambda images: images, EpisodeBatch(images, labels, images, labels, way=2))
        >>> out["accuracy"].item()
        1.0
    """

    def __init__(
        self,
        metric: Literal["squared_euclidean", "euclidean", "cosine"] = "squared_euclidean",
        scale: float = 1.0,
    ) -> None:
        super().__init__(heads.create("prototype", metric=metric, scale=scale))
