"""The plain classifier: one linear layer on the pooled map."""

from __future__ import annotations

from torch import nn

from fieldmark.classifiers.base import CLASSIFIERS, Classifier, Encode
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


@CLASSIFIERS.add("linear", "one linear layer on the mean of the map", source="Krizhevsky et al. 2012")
class Linear(Classifier):
    """Scores ``W mean(map) + b``.

    Args:
        dropout: Share of the pooled features that is dropped in training, 0 to below 1.

    Raises:
        FieldmarkError: For a dropout outside that range.

    Example:
        >>> import torch
        >>> classifier = Linear()
        >>> classifier.setup(channels=8, classes=3)
        >>> classifier(lambda images: torch.ones(len(images), 8, 2, 2), torch.zeros(4, 3, 16, 16)).shape
        torch.Size([4, 3])
    """

    layer: nn.Linear

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise FieldmarkError(f"dropout of classifier linear is {dropout}; expected 0 to below 1")
        self.dropout = nn.Dropout(dropout)

    def setup(self, channels: int, classes: int) -> None:
        """Build the layer."""
        self.layer = nn.Linear(channels, classes)

    def forward(self, encode: Encode, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Scores of the images."""
        return self.scores(encode(images).mean((-2, -1)))

    def scores(self, pooled: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch K"]:
        """Scores of pooled maps."""
        return self.layer(self.dropout(pooled))
