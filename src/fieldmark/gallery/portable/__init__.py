"""A classifier as a file that runs without fieldmark: ONNX, or a program of ``torch.export``.

The gallery is an input of the model and lies in a file of its own, so classes are added and removed without exporting
again: the model also gives each photo's descriptors, and these, with their labels, *are* the gallery.
"""

from fieldmark.gallery.portable.export import FORMAT, TOLERANCE, Exported, export_classifier
from fieldmark.gallery.portable.formats import check_path

__all__ = ["FORMAT", "TOLERANCE", "Exported", "check_path", "export_classifier"]
