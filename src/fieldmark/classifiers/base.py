"""What every classifier is: images in, scores of the classes that it was trained on out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fieldmark.registry import RememberingRegistry
from fieldmark.shapes import Float, Tensor

Encode = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` in [0, 1] to maps ``(B, C, h, w)``."""

CLASSIFIERS: RememberingRegistry[Classifier] = RememberingRegistry("classifier")


class Classifier(nn.Module):
    """Scores of images for a fixed set of classes, the ones that it was trained on.

    What a few-shot head is to episodes, a classifier is to supervised training. It is handed the encoder and the
    images, not their maps, because some look at the image again (part by part). Options are checked in the
    constructor; :meth:`setup` builds what depends on the backbone and the data.

    Attributes:
        made_as: The name and the options that it was made with by name; None if it was made otherwise.
    """

    made_as: tuple[str, dict[str, Any]] | None = None

    def setup(self, channels: int, classes: int) -> None:
        """Build the learned parts, with fresh weights.

        Args:
            channels: Channels C of the backbone's maps.
            classes: Number K of classes.
        """
        raise NotImplementedError

    def forward(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Score images for every class; large means likely, and the softmax is the classifier's probability.

        Args:
            encode: Images in [0, 1] to maps ``(B, C, h, w)``; differentiable.
            images: In [0, 1].
        """
        raise NotImplementedError
