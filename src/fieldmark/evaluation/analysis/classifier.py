"""A linear classifier on the embedding of all images: what Grad-CAM explains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fieldmark import functional
from fieldmark.errors import FieldmarkError
from fieldmark.explain.grad_cam import Score
from fieldmark.shapes import Float, Int, Tensor


class LinearClassifier(NamedTuple):
    """Logits ``weight @ unit vector + bias`` of pooled features.

    Attributes:
        weight: ``(way, C)``.
        bias: ``(way,)``.
    """

    weight: Float[Tensor, "way C"]
    bias: Float[Tensor, " way"]

    def logits(self, features: Float[Tensor, "B C"]) -> Float[Tensor, "B way"]:
        """Of pooled features of any length."""
        return functional.l2_normalise(features) @ self.weight.T.to(features) + self.bias.to(features)

    def score_of(self, classes: Int[Tensor, " B"]) -> Score:
        """What Grad-CAM differentiates: maps ``(B, C, h, w)`` to the logit of each image's given class, ``(B,)``."""

        def score(maps: Tensor) -> Tensor:
            logits = self.logits(maps.mean((-2, -1)))
            return logits.gather(1, classes.to(maps.device).unsqueeze(1)).squeeze(1)

        return score


def fit_classifier(features: Float[Tensor, "M C"], labels: np.ndarray, C: float = 1.0) -> LinearClassifier:
    """Multinomial logistic regression on unit vectors of all images.

    Source: SCL (Ouali et al. 2021), Fig. 2b: "a linear classifier on the whole test set on top of the frozen embedding
    model".

    Args:
        features: One vector an image.
        labels: Classes 0 to way - 1; classes without an image get no weight.
        C: Inverse strength of the penalty.

    Raises:
        FieldmarkError: For fewer than two classes with images.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> fit_classifier(features, np.array([0, 0, 1])).logits(features).argmax(1)
        tensor([0, 0, 1])
    """
    known, index = np.unique(np.asarray(labels), return_inverse=True)
    if len(known) < 2:
        raise FieldmarkError(f"a classifier needs two classes with images; the {len(features)} images have one class")
    vectors = functional.l2_normalise(features.detach().cpu())[None]
    model = functional.logistic_regression(vectors, torch.from_numpy(index)[None], len(known), C)
    way = int(known[-1]) + 1
    weight = torch.zeros(way, features.shape[1])
    bias = torch.full((way,), -torch.inf)
    weight[known], bias[known] = model.weight[0].float(), model.bias[0].float()
    return LinearClassifier(weight, bias)
