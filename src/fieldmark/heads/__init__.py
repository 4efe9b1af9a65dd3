"""Heads: support sets and queries in, class scores out; all take many episodes at once."""

from fieldmark.heads.base import HEADS, Head, check_episodes
from fieldmark.heads.dense_connections import DenseConnections
from fieldmark.heads.emd import EMD
from fieldmark.heads.fine_tuned import CosineClassifier, Linear
from fieldmark.heads.fusion import Fusion
from fieldmark.heads.local_knn import LocalKNN
from fieldmark.heads.logistic import Logistic
from fieldmark.heads.matching import Matching
from fieldmark.heads.nearest import Nearest
from fieldmark.heads.prototype import Prototype
from fieldmark.heads.spatial_alignment import SpatialAlignment
from fieldmark.heads.structured_fc import StructuredFC
from fieldmark.heads.trained import create_for
from fieldmark.heads.whitened import Whitened

create = HEADS.create
names = HEADS.names

__all__ = [
    "EMD",
    "HEADS",
    "CosineClassifier",
    "DenseConnections",
    "Fusion",
    "Head",
    "Linear",
    "LocalKNN",
    "Logistic",
    "Matching",
    "Nearest",
    "Prototype",
    "SpatialAlignment",
    "StructuredFC",
    "Whitened",
    "check_episodes",
    "create",
    "create_for",
    "names",
]
