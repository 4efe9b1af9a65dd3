"""Distances of all queries to all classes after pairwise alignment (rough: all pairs at once)."""

from __future__ import annotations

from math import isqrt
from typing import Literal

import torch

from fieldmark.alignment.manipulation import SpatialManipulation
from fieldmark.functional.labels import class_counts, one_hot
from fieldmark.shapes import Tensor

Distance = Literal["squared_euclidean", "euclidean", "sum", "pooled"]


def aligned_distances(
    query, support, labels, way, keys=None, manipulation=None, *, distance="squared_euclidean", memory=None
):
    episodes, queries, places, channels = query.shape
    images = support.shape[1]
    shape = (episodes, queries, images, places, channels)
    if keys is None:
        aligned = support.unsqueeze(1).expand(shape)
    else:
        weights = torch.softmax(keys[0].unsqueeze(2) @ keys[1].unsqueeze(1).mT, dim=-1)
        aligned = weights @ support.unsqueeze(1)
    if manipulation is not None:
        side = isqrt(places)
        maps, theirs = (one.mT.reshape(-1, channels, side, side) for one in (aligned, query.unsqueeze(2).expand(shape)))
        aligned = manipulation(maps, theirs).flatten(2).mT.reshape(shape)
    members = one_hot(labels, way, support.dtype) / class_counts(labels, way).unsqueeze(1)
    classes = torch.einsum("eqsnc,esw->eqwnc", aligned, members)
    difference = classes - query.unsqueeze(2)
    if distance == "pooled":
        return difference.mean(3).square().sum(-1)
    lengths = torch.linalg.vector_norm(difference, dim=-1)
    if distance == "euclidean":
        return lengths.mean(-1)
    return lengths.square().sum(-1) if distance == "sum" else lengths.square().mean(-1)
