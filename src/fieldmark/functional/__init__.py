"""Pure tensor functions, one idea a file; they need torch alone."""

from fieldmark.functional.attention import attention_log_probability
from fieldmark.functional.boxes import box_overlap, clip_boxes, make_anchors, top_boxes
from fieldmark.functional.clusters import Clusters, cluster_count, kmeans, mean_shift
from fieldmark.functional.compact_bilinear import compact_bilinear, count_sketch
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
from fieldmark.functional.orientation import oriented_patches, oriented_pool, oriented_score, pool_patches
from fieldmark.functional.pair_mining import Pairs, Triplets, mine_pairs, mine_triplets
from fieldmark.functional.part_losses import mac_loss, ranking_loss
from fieldmark.functional.pooling import spatial_features
from fieldmark.functional.prototypes import class_prototypes
from fieldmark.functional.regions import region_maps
from fieldmark.functional.scales import ScaleResponse, aligned_scale, circular_scale_response, scale_candidates
from fieldmark.functional.spatial_similarity import spatial_similarity
from fieldmark.functional.transport import TransportPlan, duality_gap, emd
from fieldmark.functional.weights import cross_reference_weights, equal_weights, normalise_weights
from fieldmark.functional.whitening import whitening, within_scatter

__all__ = [
    "Clusters",
    "LinearModel",
    "Matches",
    "Pairs",
    "ScaleResponse",
    "TransportPlan",
    "Triplets",
    "aligned_scale",
    "attention_log_probability",
    "box_overlap",
    "centre_l2",
    "circular_scale_response",
    "class_counts",
    "class_prototypes",
    "clip_boxes",
    "cluster_count",
    "compact_bilinear",
    "contrastive_distillation",
    "contrastive_loss",
    "correspondence",
    "cosine",
    "cosine_linear",
    "count_sketch",
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
    "mac_loss",
    "make_anchors",
    "mean_shift",
    "mine_pairs",
    "mine_triplets",
    "normalise_weights",
    "one_hot",
    "oriented_patches",
    "oriented_pool",
    "oriented_score",
    "pool_patches",
    "ranking_loss",
    "region_maps",
    "sample_at_offsets",
    "scale_candidates",
    "similarity",
    "spatial_features",
    "spatial_similarity",
    "squared_euclidean",
    "top_boxes",
    "whitening",
    "within_scatter",
]
