"""Pure tensor functions, one idea a file; they need torch alone."""

from fieldmark.functional.attention import attention_log_probability
from fieldmark.functional.distances import cosine, euclidean, similarity, squared_euclidean
from fieldmark.functional.fusion import fused_log_probability
from fieldmark.functional.labels import class_counts, one_hot
from fieldmark.functional.linear import cosine_linear
from fieldmark.functional.local_similarity import local_similarity
from fieldmark.functional.logistic import LinearModel, logistic_regression
from fieldmark.functional.normalisation import centre_l2, l2_normalise
from fieldmark.functional.pooling import spatial_features
from fieldmark.functional.prototypes import class_prototypes

__all__ = [
    "LinearModel",
    "attention_log_probability",
    "centre_l2",
    "class_counts",
    "class_prototypes",
    "cosine",
    "cosine_linear",
    "euclidean",
    "fused_log_probability",
    "l2_normalise",
    "local_similarity",
    "logistic_regression",
    "one_hot",
    "similarity",
    "spatial_features",
    "squared_euclidean",
]
