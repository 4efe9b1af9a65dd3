"""Training on episodes through a head: the very scoring that evaluation uses."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch.nn import functional as F

from fieldmark.descriptors import Extractor, as_extractor, describe
from fieldmark.heads import Head
from fieldmark.methods.base import Batch, Encode, EpisodeBatch, Objective
from fieldmark.shapes import Tensor


class EpisodicObjective(Objective):
    """Cross-entropy of a head's scores for the queries of each episode (Vinyals et al. 2016, eq. 6).

    Support and query images are encoded in one batch, as the papers' code does (batch statistics then are those of
    the whole episode), and scored by ``head``, so that training and evaluation cannot differ.

    Args:
        head: Turns descriptors of support and query into class scores.
        descriptors: Name of an extractor, or one made by :func:`fieldmark.descriptors.create`: what a head on local
            descriptors is given, in training mode while the objective is (``grid`` then draws the size of its cells).
            A recipe's ``descriptors`` take its place.
    """

    sampling: ClassVar[Literal["images", "episodes"]] = "episodes"

    def __init__(self, head: Head, descriptors: str | Extractor = "dense") -> None:
        super().__init__()
        self.head = head
        self.extractor = as_extractor(descriptors)

    def setup(self, channels: int, classes: int) -> None:
        """Build the learned parts of the head, if it has any."""
        self.head.setup(channels)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss and accuracy over all queries of all episodes."""
        assert isinstance(batch, EpisodeBatch)
        episodes, shots = batch.support_labels.shape
        images = torch.cat([batch.support, batch.query], dim=1)
        kind = self.head.descriptors
        sets = describe(encode, images.flatten(0, 1), [kind], self.extractor)[kind].unflatten(0, (episodes, -1))
        scores = self.head(sets[:, :shots], batch.support_labels, sets[:, shots:], batch.way)
        hits = scores.detach().argmax(-1) == batch.query_labels
        return {
            "loss": F.cross_entropy(scores.flatten(0, 1), batch.query_labels.flatten()),
            "accuracy": hits.float().mean(),
        }
