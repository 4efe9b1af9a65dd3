"""Training on episodes through a head: the very scoring that evaluation uses."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch.nn import functional as F

from fieldmark.heads import Head
from fieldmark.methods.base import Batch, Encode, EpisodeBatch, Objective
from fieldmark.shapes import Tensor


class EpisodicObjective(Objective):
    """Cross-entropy of a head's scores for the queries of each episode (Vinyals et al. 2016, eq. 6).

    Support and query images are encoded in one batch, as the papers' code does (batch statistics then are those of
    the whole episode), and scored by ``head``, so that training and evaluation cannot differ.

    Args:
        head: Turns descriptors of support and query into class scores.
    """

    sampling: ClassVar[Literal["images", "episodes"]] = "episodes"

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss and accuracy over all queries of all episodes."""
        assert isinstance(batch, EpisodeBatch)
        episodes, shots = batch.support_labels.shape
        images = torch.cat([batch.support, batch.query], dim=1)
        sets = as_sets(encode(images.flatten(0, 1)), self.head.descriptors)
        sets = sets.unflatten(0, (episodes, -1))
        scores = self.head(sets[:, :shots], batch.support_labels, sets[:, shots:], batch.way)
        hits = scores.detach().argmax(-1) == batch.query_labels
        return {
            "loss": F.cross_entropy(scores.flatten(0, 1), batch.query_labels.flatten()),
            "accuracy": hits.float().mean(),
        }


def as_sets(maps: Tensor, kind: Literal["pooled", "local"]) -> Tensor:
    """Maps ``(B, C, h, w)`` as descriptors: pooled ``(B, 1, C)`` or local ``(B, h * w, C)``.

    Example:
        >>> as_sets(torch.ones(2, 8, 3, 3), "local").shape, as_sets(torch.ones(2, 8, 3, 3), "pooled").shape
        (torch.Size([2, 9, 8]), torch.Size([2, 1, 8]))
    """
    return maps.mean((-2, -1)).unsqueeze(1) if kind == "pooled" else maps.flatten(2).transpose(1, 2)
