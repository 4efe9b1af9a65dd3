"""Pictures of what matched what: which places of two images decided, and by how much."""

from fieldmark.explain.boxes import Nodes, cell_boxes, place_nodes, pyramid_boxes
from fieldmark.explain.flows import flows, is_readable
from fieldmark.explain.grad_cam import grad_cam
from fieldmark.explain.matching import Matching, match, read_image
from fieldmark.explain.overlay import overlay
from fieldmark.explain.picture import FORMATS, PARTS, picture, save_picture
from fieldmark.explain.reconstruction import reconstruct, reconstruction

__all__ = [
    "FORMATS",
    "PARTS",
    "Matching",
    "Nodes",
    "cell_boxes",
    "flows",
    "grad_cam",
    "is_readable",
    "match",
    "overlay",
    "picture",
    "place_nodes",
    "pyramid_boxes",
    "read_image",
    "reconstruct",
    "reconstruction",
    "save_picture",
]
