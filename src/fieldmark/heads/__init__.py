"""Heads: support sets and queries in, class scores out; all take many episodes at once."""

from fieldmark.heads.base import HEADS, Head, check_episodes
from fieldmark.heads.fine_tuned import CosineClassifier, Linear
from fieldmark.heads.fusion import Fusion
from fieldmark.heads.local_knn import LocalKNN
from fieldmark.heads.logistic import Logistic
from fieldmark.heads.matching import Matching
from fieldmark.heads.nearest import Nearest
from fieldmark.heads.prototype import Prototype

create = HEADS.create
names = HEADS.names

__all__ = [
    "HEADS",
    "CosineClassifier",
    "Fusion",
    "Head",
    "Linear",
    "LocalKNN",
    "Logistic",
    "Matching",
    "Nearest",
    "Prototype",
    "check_episodes",
    "create",
    "names",
]
