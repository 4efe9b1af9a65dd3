"""Best matching of local descriptors (DeepEMD)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.functional.clusters import Clusters
from fieldmark.functional.local_similarity import class_slots
from fieldmark.functional.transport import SOLVERS
from fieldmark.functional.weights import Variant
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.shapes import Float, Int, Tensor

Shots = Literal["mean", "nearest", "fusion", "merge"]
NodeWeights = Literal["cross_reference", "equal", "kmeans", "mean_shift"]


@HEADS.add(
    "emd", "best matching of local descriptors under an earth mover's distance", source="Zhang et al. 2020 (DeepEMD)"
)
class EMD(Head):
    """Similarity under the optimal matching of the query's local descriptors with those of each class.

    Source: DeepEMD (Zhang et al. 2020), eq. 2 to 12, Table 2 (weights) and Fig. 5 (several shots).

    Args:
        shots: What a class with several images is: ``"mean"`` of their maps, place by place; its ``"nearest"`` image;
            ``"fusion"``, the mean similarity to its images (the paper sums, which is the same decision with equal
            shots); ``"merge"``, one set of all their descriptors.
        weights: ``"cross_reference"``; ``"equal"``; ``"kmeans"`` or ``"mean_shift"``: the nodes are the means of the
            clusters of a set, their weights the sizes.
        clusters: Of k-means.
        bandwidth: Of mean shift; None: estimated for every image.
        variant: ``"code"`` or ``"paper"``, see :func:`fieldmark.functional.emd_similarity`.
        centre: Centre descriptors across channels for the costs; None: as the variant does.
        temperature: Factor on the similarity.
        solver: Name of a transport solver.
        weight_gradient: False takes the weights as constants in training, as the official code with OpenCV does.

    Example:
        >>> support = torch.eye(4).view(1, 2, 2, 4)
        >>> query = torch.eye(4)[[1, 0, 2, 3]].view(1, 2, 2, 4)
        >>> EMD(variant="paper")(support, torch.tensor([[0, 1]]), query, way=2)
        tensor([[[12.5000,  0.0000],
                 [ 0.0000, 12.5000]]])
    """

    descriptors: Kind = "local"

    def __init__(
        self,
        shots: Shots = "mean",
        weights: NodeWeights = "cross_reference",
        clusters: int = 5,
        bandwidth: float | None = None,
        variant: Variant = "code",
        centre: bool | None = None,
        temperature: float = 12.5,
        solver: str = "simplex",
        weight_gradient: bool = True,
    ) -> None:
        super().__init__()
        check_option("emd", "shots", shots, get_args(Shots))
        check_option("emd", "weights", weights, get_args(NodeWeights))
        check_option("emd", "variant", variant, get_args(Variant))
        check_positive("emd", temperature=temperature)
        if clusters < 1:
            raise FieldmarkError(f"clusters of head emd is {clusters}; expected at least 1")
        if bandwidth is not None and not bandwidth >= 0:
            raise FieldmarkError(f"bandwidth of head emd is {bandwidth}; expected 0 or more, or None to estimate it")
        self.shots, self.weights, self.clusters, self.bandwidth = shots, weights, clusters, bandwidth
        self.options: dict[str, Any] = {
            "variant": variant,
            "centre": centre,
            "temperature": temperature,
            "solver": SOLVERS.create(solver),
            "weight_gradient": weight_gradient,
        }

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Similarity to each class."""
        if self.shots == "mean":
            return self.similarity(query, class_mean(support, labels, way))
        if self.shots == "merge":
            return self.similarity(query, *_merged(support, labels, way))
        near = self.similarity(query, support)
        if self.shots == "fusion":
            return functional.class_prototypes(near.mT, labels, way).mT
        start = near.new_full((*near.shape[:2], way), -torch.inf)
        return start.scatter_reduce(-1, labels.long().unsqueeze(1).expand_as(near), near, "amax")

    def similarity(
        self, query: Float[Tensor, "E Q N C"], support: Float[Tensor, "E S M C"], real: Tensor | None = None
    ) -> Float[Tensor, "E Q S"]:
        """Similarity of every query with every set; ``real`` (E, S, M) says which support nodes exist."""
        if self.weights in ("cross_reference", "equal"):
            return functional.emd_similarity(query, support, real=real, weights=self.weights, **self.options)
        mine, theirs = self.cluster(query), self.cluster(support, real)
        return functional.emd_similarity(
            mine.means.view(*query.shape[:2], *mine.means.shape[1:]),
            theirs.means.view(*support.shape[:2], *theirs.means.shape[1:]),
            mine.sizes.view(*query.shape[:2], 1, -1),
            theirs.sizes.view(support.shape[0], 1, support.shape[1], -1),
            **self.options,
        )

    def cluster(self, sets: Float[Tensor, "E S N C"], real: Tensor | None = None) -> Clusters:
        """The clusters of each set (``weights`` "kmeans" or "mean_shift"), E * S of them in order."""
        flat, exists = sets.flatten(0, 1), None if real is None else real.flatten(0, 1)
        if self.weights == "kmeans":
            return functional.kmeans(flat, self.clusters, real=exists)
        if self.weights == "mean_shift":
            return functional.mean_shift(flat, self.bandwidth, real=exists)
        raise FieldmarkError(f"head emd with weights {self.weights!r} makes no clusters; use 'kmeans' or 'mean_shift'")


def class_mean(support: Float[Tensor, "E S N C"], labels: Int[Tensor, "E S"], way: int) -> Float[Tensor, "E way N C"]:
    """Mean of the maps of each class, place by place.

    Example:
        >>> class_mean(torch.tensor([[[[1.0]], [[3.0]], [[7.0]]]]), torch.tensor([[0, 0, 1]]), 2).flatten()
        tensor([2., 7.])
    """
    return functional.class_prototypes(support.flatten(2), labels, way).unflatten(-1, support.shape[2:])


def _merged(support: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor | None]:
    """All descriptors of each class (E, way, shot * N, C), and which exist if the shots differ."""
    index, real = class_slots(labels, way)
    episode = torch.arange(len(support), device=support.device)[:, None, None]
    sets = support[episode, index].flatten(2, 3)
    return sets, None if bool(real.all()) else real.repeat_interleave(support.shape[2], dim=-1)
