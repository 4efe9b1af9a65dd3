"""Classifiers of a fixed set of classes: an encoder and images in, scores of the training classes out.

Example:
    >>> names()
    ['linear', 'nts', 'ssanet']
"""

from fieldmark.classifiers.base import CLASSIFIERS, Classifier, Encode
from fieldmark.classifiers.linear import Linear
from fieldmark.classifiers.nts import NTSClassifier, NTSScores
from fieldmark.classifiers.ssanet import SSANetClassifier, SSANETScores
from fieldmark.classifiers.trained import classifier_of

create = CLASSIFIERS.create
names = CLASSIFIERS.names

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "Encode",
    "Linear",
    "NTSClassifier",
    "NTSScores",
    "SSANETScores",
    "SSANetClassifier",
    "classifier_of",
    "create",
    "names",
]
