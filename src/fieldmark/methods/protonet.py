"""ProtoNet: training on episodes with the nearest class mean, and other losses beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from fieldmark import heads
from fieldmark.errors import FieldmarkError
from fieldmark.methods.auxiliary import Auxiliaries
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, EpisodeBatch
from fieldmark.methods.episodic import EpisodicObjective
from fieldmark.shapes import Tensor


@OBJECTIVES.add(
    "protonet",
    "episodes, nearest class mean, with optional auxiliary losses",
    source="Snell et al. 2017, eq. 2 and algorithm 1; Ouali et al. 2021 (SCL), section 5 (auxiliary losses)",
)
class ProtoNet(EpisodicObjective):
    """Negative log-probability of the true class under a softmax over distances to the class means.

    Source: "Prototypical networks for few-shot learning" (Snell et al. 2017), eq. 2:
    ``p(y = k | x) = softmax_k(-scale * d(f(x), c_k))``, c_k the mean of the class's support vectors, d the squared
    Euclidean distance. The scoring is the head ``prototype``. Where a paper's code divides by a temperature, scale is
    its inverse (the paper: 1); with the *mean*-pooled map of conv4 (64 values) instead of the paper's flattened one
    the distances are smaller, and a scale above 1 can help.

    Auxiliary losses are added with a weight each (Ouali et al. 2021, section 5 and Table 10), on support and query
    together: :mod:`fieldmark.methods.auxiliary` has them. The contrastive ones compare these images with their second
    view, so the recipe needs a ``second_view``; both views are encoded in one batch.

    Args:
        metric: ``"squared_euclidean"``, ``"euclidean"`` or ``"cosine"``.
        scale: Factor on the scores, above 0.
        auxiliary: Any of ``"gc"``, ``"sc"``, ``"ss_gc"``, ``"ss_sc"``, ``"rotation"``, ``"jigsaw"``.
        auxiliary_weight: Weight of each of them (the paper: 0.5), above 0.
        auxiliary_options: Of the contrastive ones: ``inner`` (64), ``temperature`` (0.1), ``aggregation`` ("mean"),
            ``variant`` ("code"), ``pool`` (3), ``scale`` (6); of jigsaw: ``permutations`` (35).

    Raises:
        FieldmarkError: For an unknown or repeated auxiliary loss or option, or a weight that is not positive.

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
        auxiliary: Sequence[str] = (),
        auxiliary_weight: float = 0.5,
        auxiliary_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(heads.create("prototype", metric=metric, scale=scale))
        if not auxiliary_weight > 0:
            raise FieldmarkError(
                f"auxiliary_weight of objective protonet is {auxiliary_weight}; expected a number above 0 "
                "(for no auxiliary loss leave auxiliary empty)"
            )
        self.auxiliary_weight = auxiliary_weight
        self.auxiliaries = Auxiliaries(auxiliary, auxiliary_options or {})

    def setup(self, channels: int, classes: int) -> None:
        """Build what the auxiliary losses learn."""
        self.auxiliaries.setup(channels)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss and accuracy over all queries of all episodes, and each auxiliary loss before weighting."""
        assert isinstance(batch, EpisodeBatch)
        if not len(self.auxiliaries):
            return super().forward(encode, batch)
        images = torch.cat([batch.support, batch.query], dim=1)
        count = images.shape[0] * images.shape[1]
        both = images if batch.second is None or not self.auxiliaries.compare else torch.cat([images, batch.second])
        maps = encode(both.flatten(0, 1))
        out = super().forward(lambda _: maps[:count], batch)
        out["episode_loss"] = out["loss"].detach()
        labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)
        views = maps.unflatten(0, (-1, *images.shape[:2]))
        for name, values in self.auxiliaries(encode, images, views, labels).items():
            out["loss"] = out["loss"] + self.auxiliary_weight * values["loss"]
            out.update({f"{name}_{key}": value.detach() for key, value in values.items()})
        return out
