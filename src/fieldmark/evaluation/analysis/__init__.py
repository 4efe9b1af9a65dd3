"""Looking inside an embedding: neighbours, spectrum, how tight the classes lie, and where a classifier looks."""

from fieldmark.evaluation.analysis.cams import explain_classifier
from fieldmark.evaluation.analysis.classifier import LinearClassifier, fit_classifier
from fieldmark.evaluation.analysis.clusters import DaviesBouldin, davies_bouldin
from fieldmark.evaluation.analysis.measure import measure_embedding
from fieldmark.evaluation.analysis.neighbours import Neighbours, choose_queries, nearest_neighbours
from fieldmark.evaluation.analysis.pictures import (
    clusters_picture,
    grad_cam_picture,
    neighbours_picture,
    spectrum_picture,
)
from fieldmark.evaluation.analysis.spectrum import Spectrum, spectrum

__all__ = [
    "DaviesBouldin",
    "LinearClassifier",
    "Neighbours",
    "Spectrum",
    "choose_queries",
    "clusters_picture",
    "davies_bouldin",
    "explain_classifier",
    "fit_classifier",
    "grad_cam_picture",
    "measure_embedding",
    "nearest_neighbours",
    "neighbours_picture",
    "spectrum",
    "spectrum_picture",
]
