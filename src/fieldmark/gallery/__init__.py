"""Your own photos: a classifier with reasons, and the store of classes that were enrolled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LATER = {
    "Advice": "advice",
    "BadPhotosError": "incoming",
    "Calibration": "calibration",
    "ClassSummary": "records",
    "Embedder": "embedder",
    "Enrolled": "enrolling",
    "Exported": "portable",
    "Explanation": "evidence",
    "FewShotClassifier": "classifier",
    "Found": "search",
    "Gallery": "store",
    "Identity": "embedder",
    "Photo": "records",
    "Pictures": "pictures",
    "Prediction": "prediction",
    "expected_calibration_error": "confidence_measures",
    "export_classifier": "portable",
    "open_picture": "pictures",
    "read_pictures": "pictures",
    "reliability": "confidence_measures",
    "risk_coverage": "confidence_measures",
}

__all__ = [
    "Advice",
    "BadPhotosError",
    "Calibration",
    "ClassSummary",
    "Embedder",
    "Enrolled",
    "Explanation",
    "Exported",
    "FewShotClassifier",
    "Found",
    "Gallery",
    "Identity",
    "Photo",
    "Pictures",
    "Prediction",
    "expected_calibration_error",
    "export_classifier",
    "open_picture",
    "read_pictures",
    "reliability",
    "risk_coverage",
]

if TYPE_CHECKING:
    from fieldmark.gallery.advice import Advice
    from fieldmark.gallery.calibration import Calibration
    from fieldmark.gallery.classifier import FewShotClassifier
    from fieldmark.gallery.confidence_measures import expected_calibration_error, reliability, risk_coverage
    from fieldmark.gallery.embedder import Embedder, Identity
    from fieldmark.gallery.enrolling import Enrolled
    from fieldmark.gallery.evidence import Explanation
    from fieldmark.gallery.incoming import BadPhotosError
    from fieldmark.gallery.pictures import Pictures, open_picture, read_pictures
    from fieldmark.gallery.portable import Exported, export_classifier
    from fieldmark.gallery.prediction import Prediction
    from fieldmark.gallery.records import ClassSummary, Photo
    from fieldmark.gallery.search import Found
    from fieldmark.gallery.store import Gallery


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"fieldmark.gallery.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fieldmark.gallery' has no attribute {name!r}")
