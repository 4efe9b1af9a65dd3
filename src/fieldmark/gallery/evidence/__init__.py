"""Why a photo is of a class: which enrolled photos and which places of them decided, as numbers, picture and page."""

from fieldmark.gallery.evidence.explanation import (
    ClassEvidence,
    Explanation,
    PhotoEvidence,
    Region,
    explain,
    strongest,
)

__all__ = ["ClassEvidence", "Explanation", "PhotoEvidence", "Region", "explain", "strongest"]
