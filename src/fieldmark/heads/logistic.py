"""Logistic regression on the support set."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch

from fieldmark import functional
from fieldmark.heads.base import HEADS, Head, Kind, check_option, check_positive
from fieldmark.heads.features import Features, kind_of, score_features
from fieldmark.shapes import Tensor

Solver = Literal["own", "scikit_learn"]


@HEADS.add(
    "logistic",
    "multinomial logistic regression fitted to the support set, to the optimum",
    source="Tian et al. 2020 (RFS); Ouali et al. 2021 (SCL)",
)
class Logistic(Head):
    """Logits of the L2-penalised multinomial logistic regression of each episode.

    Source: the evaluation of RFS and SCL (scikit-learn, C = 1, unit vectors). Solved for many episodes at once and to
    the optimum, where scikit-learn's default stops within 5e-4 of it; multinomial for two classes as well. No
    gradient flows into the solution, only through the query. SCL's own result is ``features="sum"``.

    Args:
        C: Inverse strength of the penalty.
        normalise: Scale the vectors to unit length first.
        tol: Relative gradient norm at which to stop, see :func:`fieldmark.functional.logistic_regression`; of
            scikit-learn its own ``tol``.
        double: Solve in float64 (the scores keep the query's type).
        features: ``"global"`` (the mean of the map), ``"spatial"`` (the largest activations in the cells of a 2 x 2
            grid), or a classifier for each, put together by the ``"sum"`` or ``"max"`` of their probabilities.
        solver: ``"own"``, or ``"scikit_learn"``: the estimator that the official codes call, one episode after the
            other. Its model for two classes is the binary one.

    Example:
        >>> import torch
        >>> support = torch.eye(2).view(1, 2, 1, 2)
        >>> Logistic()(support, torch.tensor([[0, 1]]), support, way=2).argmax(-1)
        tensor([[0, 1]])
    """

    descriptors: Kind = "pooled"
    light: ClassVar[bool] = True

    def __init__(
        self,
        C: float = 1.0,
        normalise: bool = True,
        tol: float | None = None,
        double: bool = False,
        features: Features = "global",
        solver: Solver = "own",
    ) -> None:
        super().__init__()
        check_positive("logistic", C=C, **({} if tol is None else {"tol": tol}))
        check_option("logistic", "solver", solver, get_args(Solver))
        self.descriptors = kind_of("logistic", features)
        self.C, self.normalise, self.tol, self.double_precision = C, normalise, tol, double
        self.features, self.solver = features, solver

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Logits of the fitted model; of two models the logarithm of their joint probability."""
        dtype = query.dtype
        if self.double_precision:
            support, query = support.double(), query.double()

        def fit(support: Tensor, query: Tensor) -> Tensor:
            if self.normalise:
                support, query = functional.l2_normalise(support), functional.l2_normalise(query)
            weight, bias = self.solve(support, labels, way)
            return query @ weight.to(query).mT + bias.to(query).unsqueeze(1)

        return score_features(self.features, support, query, fit).to(dtype)

    def solve(self, support: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """Weights ``(E, way, C)`` and biases ``(E, way)`` fitted to support vectors ``(E, S, C)``."""
        if self.solver == "own":
            return functional.logistic_regression(support, labels, way, self.C, self.tol)
        from sklearn.linear_model import LogisticRegression

        tol = 1e-4 if self.tol is None else self.tol
        weight, bias = support.new_zeros(len(support), way, support.shape[-1]), support.new_zeros(len(support), way)
        for episode, (vectors, classes) in enumerate(zip(support.detach().cpu(), labels.cpu(), strict=True)):
            model = LogisticRegression(C=self.C, tol=tol, max_iter=1000).fit(vectors.numpy(), classes.numpy())
            # For two classes there is one row, that of the second; the softmax of (0, score) is its probability.
            rows = slice(way - len(model.coef_), way)
            weight[episode, rows] = torch.as_tensor(model.coef_).to(weight)
            bias[episode, rows] = torch.as_tensor(model.intercept_).to(bias)
        return weight, bias
