"""Pure tensor functions, one idea a file; they need torch alone."""

from fieldmark.functional.attention import attention_log_probability
from fieldmark.functional.clusters import Clusters, cluster_count, kmeans, mean_shift
from fieldmark.functional.contrastive import contrastive_loss
from fieldmark.functional.correspondence import correspondence
from fieldmark.functional.dense_similarity import dense_similarity
from fieldmark.functional.distances import cosine, euclidean, similarity, squared_euclidean
from fieldmark.functional.distillation import contrastive_distillation, knowledge_distillation
from fieldmark.functional.emd_similarity import Matches, emd_matches, emd_similarity
from fieldmark.functional.foreground import foreground_mask
from fieldmark.functional.fusion import fused_log_probability
from fieldmark.functional.labels import class_counts, one_hot
from fieldmark.functional.linear import cosine_linear
from fieldmark.functional.local_similarity import local_similarity
from fieldmark.functional.logistic import LinearModel, logistic_regression
from fieldmark.functional.normalisation import centre_l2, l2_normalise
from fieldmark.functional.offsets import sample_at_offsets
from fieldmark.functional.pooling import spatial_features
from fieldmark.functional.prototypes import class_prototypes
from fieldmark.functional.spatial_similarity import spatial_similarity
from fieldmark.functional.transport import TransportPlan, duality_gap, emd
from fieldmark.functional.weights import cross_reference_weights, equal_weights, normalise_weights
from fieldmark.functional.whitening import whitening, within_scatter

__all__ = [
    "Clusters",
    "LinearModel",
    "Matches",
    "TransportPlan",
    "attention_log_probability",
    "centre_l2",
    "class_counts",
    "class_prototypes",
    "cluster_count",
    "contrastive_distillation",
    "contrastive_loss",
    "correspondence",
    "cosine",
    "cosine_linear",
    "cross_reference_weights",
    "dense_similarity",
    "duality_gap",
    "emd",
    "emd_matches",
    "emd_similarity",
    "equal_weights",
    "euclidean",
    "foreground_mask",
    "fused_log_probability",
    "kmeans",
    "knowledge_distillation",
    "l2_normalise",
    "local_similarity",
    "logistic_regression",
    "mean_shift",
    "normalise_weights",
    "one_hot",
    "sample_at_offsets",
    "similarity",
    "spatial_features",
    "spatial_similarity",
    "squared_euclidean",
    "whitening",
    "within_scatter",
]
