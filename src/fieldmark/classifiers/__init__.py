"""Classifiers of a fixed set of classes: an encoder and images in, scores of the training classes out."""

from fieldmark.classifiers.base import CLASSIFIERS, Classifier, Encode
from fieldmark.classifiers.linear import Linear

create = CLASSIFIERS.create
names = CLASSIFIERS.names

__all__ = ["CLASSIFIERS", "Classifier", "Encode", "Linear", "create", "names"]
