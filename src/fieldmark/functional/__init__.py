"""Pure tensor functions, one idea a file; they need torch alone."""

from fieldmark.functional.distances import cosine, euclidean, similarity, squared_euclidean
from fieldmark.functional.normalisation import centre_l2, l2_normalise
from fieldmark.functional.prototypes import class_prototypes, one_hot

__all__ = [
    "centre_l2",
    "class_prototypes",
    "cosine",
    "euclidean",
    "l2_normalise",
    "one_hot",
    "similarity",
    "squared_euclidean",
]
