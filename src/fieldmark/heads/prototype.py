"""Nearest class mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.functional.distances import METRICS, Metric
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive, pooled
from fieldmark.shapes import Float, Tensor

Transform = Literal["none", "l2", "centre_l2"]


@HEADS.add(
    "prototype",
    "nearest class mean (Euclid or cosine; centred and normalised as in SimpleShot)",
    source="Snell et al. 2017; Wang et al. 2019",
)
class Prototype(Head):
    """Similarity to the mean support vector of each class.

    Source: ProtoNet (Snell et al. 2017), eq. 2, with the squared Euclidean distance as there (easyfsl takes
    the plain one: same decisions, other probabilities); SimpleShot (Wang et al. 2019) for the transformations.

    Args:
        metric: ``"squared_euclidean"``, ``"euclidean"`` or ``"cosine"``.
        transform: Before averaging: ``"none"``, ``"l2"`` (unit length) or ``"centre_l2"`` (subtract the base
            classes' mean, then unit length: SimpleShot's CL2N).
        centre: The base classes' mean feature vector for ``"centre_l2"``; or set it by :meth:`fit_base`.
        scale: Factor on the scores; for cosines the softmax needs one, 10 for example.

    Example:
        >>> import torch
        >>> support = torch.tensor([[[[0.0, 0.0]], [[4.0, 0.0]]]])
        >>> query = torch.tensor([[[[1.0, 0.0]]]])
        >>> Prototype()(support, torch.tensor([[0, 1]]), query, way=2)
        tensor([[[-1., -9.]]])
    """

    descriptors: Kind = "pooled"
    centre: Tensor | None

    def __init__(
        self,
        metric: Metric = "squared_euclidean",
        transform: Transform = "none",
        centre: Tensor | Sequence[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_option("prototype", "metric", metric, METRICS)
        check_option("prototype", "transform", transform, get_args(Transform))
        check_positive("prototype", scale=scale)
        if centre is not None and transform != "centre_l2":
            raise FieldmarkError(f"head prototype was given a centre with transform {transform!r}; use 'centre_l2'")
        self.metric, self.transform, self.scale = metric, transform, scale
        self.register_buffer("centre", None if centre is None else torch.as_tensor(centre))

    @property
    def needs_base(self) -> bool:
        """True for ``"centre_l2"`` until the centre is known."""
        return self.transform == "centre_l2" and self.centre is None

    def fit_base(self, features: Float[Tensor, "*shape C"]) -> Prototype:
        """Take the mean of the base classes' features as the centre; returns the head itself."""
        self.centre = features.flatten(0, -2).mean(0)
        return self

    def _transformed(self, features: Tensor) -> Tensor:
        if self.transform == "none":
            return features
        if self.transform == "l2":
            return functional.l2_normalise(features)
        if self.centre is None:
            raise FieldmarkError("head prototype with transform 'centre_l2' has no centre; call fit_base(features)")
        return functional.centre_l2(features, self.centre.to(features))

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Similarity of each pooled query to each class mean."""
        support, query = self._transformed(pooled(support)), self._transformed(pooled(query))
        prototypes = functional.class_prototypes(support, labels, way)
        return self.scale * functional.similarity(query, prototypes, self.metric)
