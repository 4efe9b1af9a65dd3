"""Training objectives by name: what is minimised, and nothing about files, loops or printing.

Example:
    >>> names()
    ['cross_entropy', 'matching_net', 'protonet']
    >>> create("protonet", scale=0.5).sampling
    'episodes'
"""

from fieldmark.methods.base import OBJECTIVES, Batch, Encode, EpisodeBatch, ImageBatch, Objective
from fieldmark.methods.cross_entropy import CrossEntropy
from fieldmark.methods.matching_net import MatchingNet
from fieldmark.methods.protonet import ProtoNet

create = OBJECTIVES.create
names = OBJECTIVES.names

__all__ = [
    "OBJECTIVES",
    "Batch",
    "CrossEntropy",
    "Encode",
    "EpisodeBatch",
    "ImageBatch",
    "MatchingNet",
    "Objective",
    "ProtoNet",
    "create",
    "names",
]
