"""Parts that align the maps of two images, for the maps of any backbone (LSSA)."""

from fieldmark.alignment.correspondence import SemanticCorrespondence
from fieldmark.alignment.foreground import ForegroundEnhancement
from fieldmark.alignment.manipulation import SpatialManipulation

__all__ = ["ForegroundEnhancement", "SemanticCorrespondence", "SpatialManipulation"]
