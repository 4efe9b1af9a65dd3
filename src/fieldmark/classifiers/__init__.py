"""Classifiers of a fixed set of classes: an encoder and images in, scores of the training classes out."""

from fieldmark.classifiers.base import CLASSIFIERS, Classifier, Encode
from fieldmark.classifiers.linear import Linear
from fieldmark.classifiers.trained import classifier_of

create = CLASSIFIERS.create
names = CLASSIFIERS.names

__all__ = ["CLASSIFIERS", "Classifier", "Encode", "Linear", "classifier_of", "create", "names"]
