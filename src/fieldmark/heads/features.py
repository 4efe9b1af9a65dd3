"""Global and spatial features of an image for one classifier each, and how the two are put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.heads.base import Kind, check_option, pooled
from fieldmark.shapes import Float, Tensor

Features = Literal["global", "spatial", "sum", "max"]

FitAndScore = Callable[[Tensor, Tensor], Tensor]
"""Vectors of support ``(E, S, d)`` and query ``(E, Q, d)`` to logits ``(E, Q, way)``."""


def kind_of(head: str, features: str) -> Kind:
    """The sets that a choice of features needs.

    Raises:
        FieldmarkError: For an unknown choice; the nearest is named.

    Example:
        >>> kind_of("logistic", "global"), kind_of("logistic", "sum")
        ('pooled', 'spatial')
    """
    check_option(head, "features", features, get_args(Features))
    return "pooled" if features == "global" else "spatial"


def score_features(
    features: Features,
    support: Float[Tensor, "E S N C"],
    query: Float[Tensor, "E Q M C"],
    fit: FitAndScore,
) -> Float[Tensor, "E Q way"]:
    """Logits of one classifier, or the logarithm of what two classifiers' probabilities give together.

    Source: SCL (Ouali et al. 2021), Table B.2 and its meta-test: one classifier on the mean of the map, one on the
    largest activations in the cells of a 2 x 2 grid, flattened; their probabilities are added, or the larger counts.

    Args:
        features: ``"global"``, ``"spatial"``, or both by ``"sum"`` or ``"max"`` of the probabilities.
        support: Sets of kind ``"pooled"`` for global features, else of kind ``"spatial"`` (the mean first, then the
            cells). A flat vector (N = 1) is the map of a single place: global and spatial features are then the same.
        query: Likewise.
        fit: Fits a classifier to the vectors of the support and scores those of the query.

    Raises:
        FieldmarkError: If the sets are not of that kind.

    Example:
        >>> support, query = torch.eye(3).view(1, 3, 1, 3), torch.eye(3).view(1, 3, 1, 3)
        >>> cosine = lambda s, q: 5 * q @ s.mT
        >>> score_features("max", support, query, cosine).exp()[0, 0]
        tensor([0.9867, 0.0066, 0.0066])
    """
    if features == "global":
        return fit(pooled(support), pooled(query))
    parts = _parts(support), _parts(query)
    if features == "spatial":
        return fit(parts[0][1], parts[1][1])
    both = [torch.log_softmax(fit(s, q), -1) for s, q in zip(*parts, strict=True)]
    if features == "sum":
        return torch.logaddexp(*both) - math.log(2)
    return torch.log_softmax(torch.maximum(*both), -1)


def _parts(sets: Tensor) -> tuple[Tensor, Tensor]:
    """Global vectors ``(E, S, C)`` and spatial ones ``(E, S, 4 C)``."""
    if sets.shape[2] == 1:
        return sets.squeeze(2), sets.squeeze(2)
    if sets.shape[2] != 5:
        raise FieldmarkError(
            f"spatial features were asked of sets of {sets.shape[2]} descriptors; expected 5, the mean of the map and"
            " the largest activations of 2 x 2 cells: fieldmark.descriptors.describe(..., ['spatial'])"
        )
    return sets[:, :, 0], sets[:, :, 1:].flatten(2)
