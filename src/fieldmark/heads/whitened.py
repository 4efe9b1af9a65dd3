"""Logistic regression on centre-weighted means, whitened by what varies within images."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import ClassVar

import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.heads.base import HEADS, Head, Kind, check_positive
from fieldmark.shapes import Float, Tensor


@HEADS.add(
    "whitened",
    "logistic regression on centre-weighted means, whitened by the scatter within images",
    source="this project; whitening as in Fisher's discriminant, an image as the class",
)
class Whitened(Head):
    """Multinomial logistic regression after three steps that cost next to nothing and need no labels.

    Of every number the (signed) root is taken, so that a few large activations do not drown the rest. The places of a
    map are averaged with weights that fall off from its centre, since that is where people hold what they photograph.
    Directions in which the places of one image differ among themselves are shrunk, since they say
    little about its class (:func:`fieldmark.functional.whitening`): a single photo of a class has enough places for
    that. The vectors are then centred by the support's mean and brought to unit length.

    Every score is a sum over the places of the query and over the support images.

    Args:
        C: Inverse strength of the penalty, as of ``logistic``.
        centre: Standard deviation of the weights, as a share of the side; None weighs all places alike. Sets that are
            no square maps are averaged with equal weights.
        shrinkage: See :func:`fieldmark.functional.whitening`; None: no whitening.
        power: Exponent of the sizes of the descriptors' numbers, whose signs stay; 1 leaves them as they are.

    Example:
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Whitened()(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "local"
    light: ClassVar[bool] = True
    whitening: Tensor | None

    def __init__(
        self, C: float = 100.0, centre: float | None = 0.25, shrinkage: float | None = 3.0, power: float = 0.5
    ) -> None:
        super().__init__()
        given = {"centre": centre, "shrinkage": shrinkage}
        check_positive(
            "whitened", C=C, power=power, **{name: value for name, value in given.items() if value is not None}
        )
        self.C, self.centre, self.shrinkage, self.power = C, centre, shrinkage, power
        self.register_buffer("whitening", None)

    def fit_base(self, features: Float[Tensor, "*images N C"]) -> Whitened:
        """Learn the whitening from descriptors of any images, labels unseen; otherwise each episode's support serves.

        Args:
            features: Sets of descriptors; the last axes are places and channels.
        """
        if self.shrinkage is not None:
            self.whitening = functional.whitening(self.rooted(features), self.shrinkage)
        return self

    def rooted(self, sets: Float[Tensor, "*shape C"]) -> Float[Tensor, "*shape C"]:
        """Descriptors with the power taken of the size of every number.

        Example:
            >>> Whitened().rooted(torch.tensor([4.0, -9.0]))
            tensor([ 2., -3.])
        """
        if self.power == 1:
            return sets
        sizes = sets.abs()
        return (sizes.sqrt() if self.power == 0.5 else sizes.pow(self.power)).copysign(sets)

    def place_weights(self, places: int) -> Float[Tensor, " N"]:
        """Weights of the places of a map, which sum to 1; float64.

        Example:
            >>> Whitened(centre=0.25).place_weights(9).view(3, 3).float()
            tensor([[0.0509, 0.1238, 0.0509],
                    [0.1238, 0.3012, 0.1238],
                    [0.0509, 0.1238, 0.0509]])
        """
        side = isqrt(places)
        if self.centre is None or side * side != places:
            return torch.full((places,), 1 / places, dtype=torch.float64)
        away = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side * self.centre)
        line = torch.exp(-away.square() / 2)
        weights = torch.outer(line, line).flatten()
        return weights / weights.sum()

    def vectors(
        self, support: Float[Tensor, "E S N C"], query: Float[Tensor, "E Q M C"]
    ) -> tuple[Float[Tensor, "E S C"], Float[Tensor, "E Q C"], Float[Tensor, "E 1 C"], Tensor | None]:
        """Averaged and whitened vectors of both sides, the centre to subtract, and the whitening (E, C, C)."""
        whitening = self._whitening(support)
        means = [self._means(sets) for sets in (support, query)]
        if whitening is not None:
            means = [one @ whitening.mT for one in means]
        return means[0], means[1], means[0].mean(1, keepdim=True), whitening

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits of the fitted model."""
        mine, theirs, _, _ = self.vectors(support, query)
        return _fitted(mine, labels, theirs, way, self.C)

    def two_steps(self) -> tuple[Callable[[Tensor], Tensor], Head] | None:
        """Averaging and whitening once for each image, where the whitening is that of :meth:`fit_base`, or none."""
        if self.shrinkage is not None and self.whitening is None:
            return None

        return self._shortened, _Rest(self.C)

    def _shortened(self, sets: Float[Tensor, "S N C"]) -> Float[Tensor, "S 1 C"]:
        means = self._means(sets.unsqueeze(0))[0]
        return (means if self.whitening is None else means @ self.whitening.to(means).mT).unsqueeze(1)

    def _means(self, sets: Float[Tensor, "E S N C"]) -> Float[Tensor, "E S C"]:
        flat = self.place_weights(sets.shape[2]).to(sets) @ self.rooted(sets).flatten(0, 1)
        return flat.view(*sets.shape[:2], -1)

    def _whitening(self, support: Tensor) -> Tensor | None:
        if self.shrinkage is None:
            return None
        if self.whitening is None:
            return torch.stack([functional.whitening(self.rooted(one), self.shrinkage) for one in support])
        if self.whitening.shape[-1] != support.shape[-1]:
            raise FieldmarkError(
                f"head whitened was fitted to {self.whitening.shape[-1]} channels and is given {support.shape[-1]}; "
                "call fit_base with descriptors of the same model"
            )
        return self.whitening.to(support).expand(len(support), -1, -1)


class _Rest(Head):
    """What is left when every image is one whitened vector."""

    descriptors: Kind = "pooled"
    light: ClassVar[bool] = True

    def __init__(self, C: float) -> None:
        super().__init__()
        self.C = C

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        return _fitted(support.squeeze(2), labels, query.squeeze(2), way, self.C)


def _fitted(mine: Tensor, labels: Tensor, theirs: Tensor, way: int, C: float) -> Tensor:
    """Logits for ``theirs`` (E, Q, C) of the model fitted to ``mine`` (E, S, C), around the mean of ``mine``."""
    centre = mine.mean(1, keepdim=True)
    mine, theirs = functional.l2_normalise(mine - centre), functional.l2_normalise(theirs - centre)
    weight, bias = functional.logistic_regression(mine, labels, way, C)
    return theirs @ weight.to(theirs).mT + bias.to(theirs).unsqueeze(1)
