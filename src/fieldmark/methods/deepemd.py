"""DeepEMD: training on episodes through the optimal matching of local descriptors."""

from __future__ import annotations

from typing import Literal

from fieldmark import heads
from fieldmark.descriptors import Extractor
from fieldmark.methods.base import OBJECTIVES
from fieldmark.methods.episodic import EpisodicObjective


@OBJECTIVES.add(
    "deepemd", "episodes, optimal matching of local descriptors", source="Zhang et al. 2020 (DeepEMD), eq. 1-12"
)
class DeepEMD(EpisodicObjective):
    """Cross-entropy of similarities under the best matching, with the exact gradient of the transport problem.

    Source: "DeepEMD: Differentiable earth mover's distance for few-shot learning" (Zhang et al. 2020). The scoring is
    the head ``emd``. The paper differentiates a regularised problem by an interior-point layer; the optimal flow and
    the dual potentials give the same gradient from one exact solution.

    Args:
        variant: ``"code"``, the official code's costs and weights, or ``"paper"``, the printed ones.
        weights: ``"cross_reference"`` or ``"equal"``.
        temperature: Factor on the similarities, above 0.
        weight_gradient: False takes the weights as constants, as the official code does with its OpenCV solver.
        descriptors: What the sets consist of; a recipe's ``descriptors`` take its place.

    Example:
        >>> import torch
        >>> from fieldmark.methods import EpisodeBatch
        >>> labels = torch.tensor([[0, 1]])
        >>> images = torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> out = DeepEMD()(lambda images: images, EpisodeBatch(images, labels, images, labels, way=2))
        >>> out["accuracy"].item()
        1.0
    """

    def __init__(
        self,
        variant: Literal["code", "paper"] = "code",
        weights: Literal["cross_reference", "equal"] = "cross_reference",
        temperature: float = 12.5,
        weight_gradient: bool = True,
        descriptors: str | Extractor = "dense",
    ) -> None:
        head = heads.create(
            "emd", variant=variant, weights=weights, temperature=temperature, weight_gradient=weight_gradient
        )
        super().__init__(head, descriptors)
