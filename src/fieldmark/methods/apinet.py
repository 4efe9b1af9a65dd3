"""API-Net: images learn to be told apart by looking at them in pairs."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch.nn import functional as F

from fieldmark import classifiers
from fieldmark.classifiers import Linear
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.pair_mining import Kind, Variant, mine_pairs
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.methods.gradient_cache import check_gradient_cache, pooled_features
from fieldmark.methods.pairwise_interaction import Gate, Mutual, PairwiseInteraction, check_interaction
from fieldmark.shapes import Float, Int, Tensor

_NAME = "objective apinet"
_DROPOUT = {"code": 0.5, "paper": 0.0}


class PairLoss(NamedTuple):
    """The losses of pairs, scalars.

    Attributes:
        loss: What is minimised.
        cross_entropy: Mean over all attended features.
        ranking: Mean over all images of all pairs; 0 without crossed features.
    """

    loss: Tensor
    cross_entropy: Tensor
    ranking: Tensor


@OBJECTIVES.add(
    "apinet", "classification of attentive pairs of images", source="Zhuang et al. 2020 (API-Net), eq. 1 to 10"
)
class APINet(Objective):
    """Classification of pairs of similar images, each seen through its own gate and through its partner's.

    Source: "Learning attentive pairwise interaction for fine-grained classification" (Zhuang et al. 2020). Every image
    of the batch is paired with its most similar one of the same class and of the other classes. A pair has a mutual
    vector, which gates the channels of both features (:class:`~fieldmark.methods.pairwise_interaction
    .PairwiseInteraction`); one classifier names all four gated features, and the image's own gate is to give its class
    a higher probability than its partner's gate, by a margin. At test the interaction is left out: the trained
    classifier, ``linear``, scores single images.

    The stage should set ``images_per_class`` (the paper: 4 images of 30 classes, ``batch_size`` 120). The rows of the
    paper's Table 2 are ``mutual``, of Table 3 ``gate`` and ``rank_weight``, of Table 4 ``intra`` and ``inter``, of
    Table 5 the stage's ``batch_size`` and ``images_per_class``.

    Args:
        mutual: ``"mlp"``, ``"individual"``, ``"compact_bilinear"``, ``"subtract_square"``, ``"sum"``, ``"product"`` or
            ``"weight_attention"``.
        gate: ``"pair"`` or ``"single"``; a single gate has no crossed features and so no ranking loss.
        rank_weight: Weight lambda of the ranking loss; 0 for none.
        margin: Of the ranking loss, in probability.
        intra: The partner of the own class: ``"similar"``, ``"dissimilar"`` or ``"none"``. With ``none`` for both,
            pairs are drawn at random.
        inter: The partner of another class.
        hidden: Width of the hidden layer of f_m.
        variant: ``"code"``: cross-entropy and ranking loss are means over all features and images, so that the loss is
            a quarter of the paper's with lambda 2; dropout of 0.5 in f_m and before the classifier; an image without
            another of its class is paired with the first of the batch. ``"paper"``: eq. 8 as printed (sums over the
            four features and the two images of a pair), mean over the pairs, no dropout.
        dropout: In place of the variant's.
        gradient_cache: Encode so many images at a time and keep only their pooled features, see
            :func:`~fieldmark.methods.gradient_cache.pooled_features`; default: all at once.

    Raises:
        FieldmarkError: For an unknown value, a number out of range, or options that do not go together.

    Example:
        >>> objective = APINet(hidden=4)
        >>> objective.setup(channels=8, classes=2)
        >>> maps = torch.rand(4, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> batch = ImageBatch(torch.zeros(4, 3, 16, 16), torch.tensor([0, 0, 1, 1]))
        >>> sorted(objective(lambda images: maps, batch))
        ['accuracy', 'cross_entropy', 'loss', 'pairs', 'ranking']
    """

    classifier: Linear
    interaction: PairwiseInteraction

    def __init__(
        self,
        mutual: Mutual = "mlp",
        gate: Gate = "pair",
        rank_weight: float | None = None,
        margin: float = 0.05,
        intra: Kind = "similar",
        inter: Kind = "similar",
        hidden: int = 512,
        variant: Variant = "code",
        dropout: float | None = None,
        gradient_cache: int | None = None,
    ) -> None:
        super().__init__()
        if variant not in get_args(Variant):
            raise unknown_name(f"variant of {_NAME}", variant, get_args(Variant))
        for name, kind in (("intra", intra), ("inter", inter)):
            if kind not in get_args(Kind):
                raise unknown_name(f"{name} of {_NAME}", kind, get_args(Kind))
        dropout = _DROPOUT[variant] if dropout is None else dropout
        check_interaction(mutual, gate, hidden, dropout, _NAME)
        check_gradient_cache(gradient_cache, _NAME)
        if rank_weight is None:
            rank_weight = 1.0 if gate == "pair" else 0.0
        if not rank_weight >= 0:
            raise FieldmarkError(f"rank_weight of {_NAME} is {rank_weight}; expected 0 or more")
        if gate == "single" and rank_weight:
            raise FieldmarkError(
                f"rank_weight of {_NAME} is {rank_weight} with gate 'single', which has no crossed features to rank; "
                "use rank_weight 0, or gate pair"
            )
        if not margin >= 0:
            raise FieldmarkError(f"margin of {_NAME} is {margin}; expected 0 or more")
        self.mutual, self.gate, self.rank_weight, self.margin = mutual, gate, float(rank_weight), margin
        self.intra, self.inter, self.hidden, self.variant = intra, inter, hidden, variant
        self.dropout, self.gradient_cache = dropout, gradient_cache

    def setup(self, channels: int, classes: int) -> None:
        """Build the interaction and the classifier."""
        self.interaction = PairwiseInteraction(channels, self.mutual, self.gate, self.hidden, self.dropout)
        classifier = classifiers.create("linear", dropout=self.dropout)
        assert isinstance(classifier, Linear)
        self.classifier = classifier
        self.classifier.setup(channels, classes)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """The loss, its parts, the number of pairs, and the accuracy of the single images, as at test."""
        assert isinstance(batch, ImageBatch)
        pooled = pooled_features(encode, batch.images, self.gradient_cache).float()
        pairs = mine_pairs(pooled, batch.labels, self.intra, self.inter, variant=self.variant)
        if not len(pairs.first):
            raise FieldmarkError(
                f"{_NAME}: a batch of {len(batch.labels)} images forms no pair; set the stage's images_per_class to 2 "
                "or more and batch_size to several times that"
            )
        found = self.losses(pooled, batch.labels, pairs.first, pairs.second)
        with torch.no_grad():
            alone = F.linear(pooled, self.classifier.layer.weight, self.classifier.layer.bias)
            accuracy = (alone.argmax(-1) == batch.labels).float().mean()
        return {
            "loss": found.loss,
            "accuracy": accuracy,
            "cross_entropy": found.cross_entropy.detach(),
            "ranking": found.ranking.detach(),
            "pairs": pooled.new_tensor(float(len(pairs.first))),
        }

    def losses(
        self, pooled: Float[Tensor, "B D"], labels: Int[Tensor, "B"], first: Int[Tensor, "P"], second: Int[Tensor, "P"]
    ) -> PairLoss:
        """Losses of given pairs, eq. 8 to 10.

        Args:
            pooled: Features of the batch.
            labels: Classes of its images.
            first: Places of the pairs' first images.
            second: Of their second ones.
        """
        found = self.interaction(pooled[first], pooled[second])
        features = [found.own[0], found.own[1]]
        if found.crossed is not None:
            # As the official code has them: first image with both gates, then the second.
            features = [found.own[0], found.crossed[0], found.own[1], found.crossed[1]]
        scores = self.classifier.scores(torch.stack(features))
        each = len(features) // 2
        wanted = torch.stack([labels[first]] * each + [labels[second]] * each)
        entropy = F.cross_entropy(scores.flatten(0, 1), wanted.flatten())
        if found.crossed is None:
            return PairLoss(entropy if self.variant == "code" else 2 * entropy, entropy, entropy.new_zeros(()))
        probability = scores.softmax(-1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        ranking = (probability[1::2] - probability[::2] + self.margin).clamp_min(0).mean()
        if self.variant == "paper":
            return PairLoss(4 * entropy + 2 * self.rank_weight * ranking, entropy, ranking)
        return PairLoss(entropy + self.rank_weight * ranking, entropy, ranking)
