"""Logistic regression on the support set."""

from __future__ import annotations

from typing import ClassVar, Literal

from fieldmark import functional
from fieldmark.heads.base import HEADS, Head, check_positive, pooled
from fieldmark.shapes import Tensor


@HEADS.add(
    "logistic",
    "multinomial logistic regression fitted to the support set, to the optimum",
    source="Tian et al. 2020 (RFS); Ouali et al. 2021 (SCL)",
)
class Logistic(Head):
    """Logits of the L2-penalised multinomial logistic regression of each episode.

    Source: the evaluation of RFS and SCL (scikit-learn, C = 1, unit vectors). Solved for many episodes at once and to
    the optimum, where scikit-learn's default stops within 5e-4 of it; multinomial for two classes as well. No
    gradient flows into the solution, only through the query.

    Args:
        C: Inverse strength of the penalty.
        normalise: Scale the vectors to unit length first.
        tol: Relative gradient norm at which to stop; see :func:`fieldmark.functional.logistic_regression`.
        double: Solve in float64 (the scores keep the query's type).

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Logistic()(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: ClassVar[Literal["pooled", "local"]] = "pooled"

    def __init__(self, C: float = 1.0, normalise: bool = True, tol: float | None = None, double: bool = False) -> None:
        super().__init__()
        check_positive("logistic", C=C, **({} if tol is None else {"tol": tol}))
        self.C, self.normalise, self.tol, self.double_precision = C, normalise, tol, double

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits of the fitted model."""
        dtype = query.dtype
        support, query = pooled(support), pooled(query)
        if self.double_precision:
            support, query = support.double(), query.double()
        if self.normalise:
            support, query = functional.l2_normalise(support), functional.l2_normalise(query)
        weight, bias = functional.logistic_regression(support, labels, way, self.C, self.tol)
        return (query @ weight.to(query).mT + bias.to(query).unsqueeze(1)).to(dtype)
