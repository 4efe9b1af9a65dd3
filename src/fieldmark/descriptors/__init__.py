"""Extractors by name: an image in, a set of local descriptors out.

Example:
    >>> names()
    ['dense', 'feature_pyramid', 'grid', 'sampling']
    >>> create("sampling", patches=9).crops
    9
"""

from fieldmark.descriptors.base import DESCRIPTORS, Encode, Extractor, Kind, MapExtractor, as_extractor, describe
from fieldmark.descriptors.crops import CropExtractor, Windows
from fieldmark.descriptors.dense import Dense
from fieldmark.descriptors.feature_pyramid import FeaturePyramid
from fieldmark.descriptors.grid import Grid
from fieldmark.descriptors.sampling import Sampling

create = DESCRIPTORS.create
names = DESCRIPTORS.names

__all__ = [
    "DESCRIPTORS",
    "CropExtractor",
    "Dense",
    "Encode",
    "Extractor",
    "FeaturePyramid",
    "Grid",
    "Kind",
    "MapExtractor",
    "Sampling",
    "Windows",
    "as_extractor",
    "create",
    "describe",
    "names",
]
