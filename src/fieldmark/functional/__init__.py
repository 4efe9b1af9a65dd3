"""Pure tensor functions, one idea a file; they need torch alone."""

from fieldmark.functional.distances import cosine, euclidean, similarity, squared_euclidean
from fieldmark.functional.labels import class_counts, one_hot
from fieldmark.functional.logistic import LinearModel, logistic_regression
from fieldmark.functional.normalisation import centre_l2, l2_normalise
from fieldmark.functional.prototypes import class_prototypes

__all__ = [
    "LinearModel",
    "centre_l2",
    "class_counts",
    "class_prototypes",
    "cosine",
    "euclidean",
    "l2_normalise",
    "logistic_regression",
    "one_hot",
    "similarity",
    "squared_euclidean",
]
