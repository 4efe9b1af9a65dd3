"""Classification with a triplet loss beside it: the baseline that API-Net re-implements as TripletNet."""

from __future__ import annotations

from torch.nn import functional as F

from fieldmark import classifiers
from fieldmark.classifiers import Linear
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.pair_mining import Kind, mine_triplets
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.methods.gradient_cache import check_gradient_cache, pooled_features
from fieldmark.shapes import Tensor

_NAME = "objective triplet"
_CHOICES = ("similar", "dissimilar")


@OBJECTIVES.add(
    "triplet",
    "classification with a triplet loss on the batch's pairs",
    source="Hoffer and Ailon 2015; API-Net, Table 6 (TripletNet)",
)
class Triplet(Objective):
    """Cross-entropy, and a triplet loss that draws images of one class together.

    Source: "Deep metric learning using triplet network" (Hoffer and Ailon 2015), as the baseline of API-Net's Table 6:
    ``L = L_CE + weight * mean max(0, |a - p| - |a - n| + margin)``. Every image is an anchor a; its positive p and
    negative n are its partners in API-Net's intra and inter pair. API-Net says no more of it than that an extra triplet
    loss is optimised: margin, weight and the unit length of the features are choices of ours.

    The stage should set ``images_per_class``. At test the trained classifier, ``linear``, scores single images.

    Args:
        weight: Of the triplet loss, above 0.
        margin: Of the triplet loss, above 0.
        normalise: Whether distances are between features of length 1.
        intra: The positive: ``"similar"``, or ``"dissimilar"`` for the hardest one (Hermans et al. 2017).
        inter: The negative: ``"similar"`` (the hardest) or ``"dissimilar"``.
        dropout: Share of the pooled features that is dropped before the classifier.
        gradient_cache: Encode so many images at a time, see
            :func:`~fieldmark.methods.gradient_cache.pooled_features`; default: all at once.

    Raises:
        FieldmarkError: For an unknown value or a number out of range.

    Example:
        >>> import torch
        >>> objective = Triplet()
        >>> objective.setup(channels=8, classes=2)
        >>> maps = torch.rand(4, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> batch = ImageBatch(torch.zeros(4, 3, 16, 16), torch.tensor([0, 0, 1, 1]))
        >>> sorted(objective(lambda images: maps, batch))
        ['accuracy', 'cross_entropy', 'loss', 'triplet']
    """

    classifier: Linear

    def __init__(
        self,
        weight: float = 1.0,
        margin: float = 0.3,
        normalise: bool = True,
        intra: Kind = "similar",
        inter: Kind = "similar",
        dropout: float = 0.0,
        gradient_cache: int | None = None,
    ) -> None:
        super().__init__()
        for name, kind in (("intra", intra), ("inter", inter)):
            if kind not in _CHOICES:
                raise unknown_name(f"{name} of {_NAME}", kind, _CHOICES)
        for name, value in (("weight", weight), ("margin", margin)):
            if not value > 0:
                raise FieldmarkError(f"{name} of {_NAME} is {value}; expected a number above 0")
        if not 0 <= dropout < 1:
            raise FieldmarkError(f"dropout of {_NAME} is {dropout}; expected 0 to below 1")
        check_gradient_cache(gradient_cache, _NAME)
        self.weight, self.margin, self.normalise = weight, margin, normalise
        self.intra, self.inter, self.dropout, self.gradient_cache = intra, inter, dropout, gradient_cache

    def setup(self, channels: int, classes: int) -> None:
        """Build the classifier."""
        classifier = classifiers.create("linear", dropout=self.dropout)
        assert isinstance(classifier, Linear)
        self.classifier = classifier
        self.classifier.setup(channels, classes)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """The loss, both of its parts before weighting, and the accuracy on the training classes."""
        assert isinstance(batch, ImageBatch)
        pooled = pooled_features(encode, batch.images, self.gradient_cache).float()
        scores = self.classifier.scores(pooled)
        entropy = F.cross_entropy(scores, batch.labels)
        features = F.normalize(pooled, dim=-1) if self.normalise else pooled
        chosen = mine_triplets(features, batch.labels, self.intra, self.inter)
        if len(chosen.anchor):
            triplet = F.triplet_margin_loss(
                features[chosen.anchor], features[chosen.positive], features[chosen.negative], margin=self.margin
            )
        else:
            triplet = entropy.new_zeros(())  # no image has both partners; the classifier learns all the same
        return {
            "loss": entropy + self.weight * triplet,
            "accuracy": (scores.detach().argmax(-1) == batch.labels).float().mean(),
            "cross_entropy": entropy.detach(),
            "triplet": triplet.detach(),
        }
