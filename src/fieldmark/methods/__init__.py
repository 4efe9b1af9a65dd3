"""Training objectives by name: what is minimised, and nothing about files, loops or printing.

Example:
    >>> {"apinet", "cross_entropy", "protonet", "scl"} <= set(names())
    True
    >>> create("protonet", scale=0.5).sampling
    'episodes'
"""

from fieldmark.methods.apinet import APINet
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, EpisodeBatch, ImageBatch, Objective
from fieldmark.methods.cross_entropy import CrossEntropy
from fieldmark.methods.deepemd import DeepEMD
from fieldmark.methods.distillation import Distillation
from fieldmark.methods.head_episodes import HeadEpisodes
from fieldmark.methods.lssa import LSSA
from fieldmark.methods.matching_net import MatchingNet
from fieldmark.methods.metric_learning import MetricLearning
from fieldmark.methods.nts import NTS
from fieldmark.methods.protonet import ProtoNet
from fieldmark.methods.scl import SCL
from fieldmark.methods.ssanet import SSANet
from fieldmark.methods.triplet import Triplet

create = OBJECTIVES.create
names = OBJECTIVES.names

__all__ = [
    "LSSA",
    "NTS",
    "OBJECTIVES",
    "SCL",
    "APINet",
    "Batch",
    "CrossEntropy",
    "DeepEMD",
    "Distillation",
    "Encode",
    "EpisodeBatch",
    "HeadEpisodes",
    "ImageBatch",
    "MatchingNet",
    "MetricLearning",
    "Objective",
    "ProtoNet",
    "SSANet",
    "Triplet",
    "create",
    "names",
]
