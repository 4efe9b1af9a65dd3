"""Pictures of what matched what: which places of two images decided, and by how much."""

from fieldmark.explain.align import align
from fieldmark.explain.alignment import Alignment
from fieldmark.explain.alignment_picture import ALIGNMENT_PARTS, alignment_picture, drawable, parts_in_words
from fieldmark.explain.boxes import Nodes, cell_boxes, place_nodes, pyramid_boxes
from fieldmark.explain.contributions import contributions
from fieldmark.explain.correlations import correlations
from fieldmark.explain.flows import flows, is_readable
from fieldmark.explain.gates import Gates, gates, gates_picture, interaction_of
from fieldmark.explain.grad_cam import grad_cam
from fieldmark.explain.heat_maps import foreground, heat_map, heat_maps
from fieldmark.explain.images import read_image
from fieldmark.explain.matching import Matching, match
from fieldmark.explain.overlay import overlay
from fieldmark.explain.part_pictures import PART_PARTS, part_drawable, part_picture
from fieldmark.explain.parts import parts
from fieldmark.explain.picture import FORMATS, PARTS, picture, save_picture
from fieldmark.explain.reconstruction import reconstruct, reconstruction

__all__ = [
    "ALIGNMENT_PARTS",
    "FORMATS",
    "PARTS",
    "PART_PARTS",
    "Alignment",
    "Gates",
    "Matching",
    "Nodes",
    "align",
    "alignment_picture",
    "cell_boxes",
    "contributions",
    "correlations",
    "drawable",
    "flows",
    "foreground",
    "gates",
    "gates_picture",
    "grad_cam",
    "heat_map",
    "heat_maps",
    "interaction_of",
    "is_readable",
    "match",
    "overlay",
    "part_drawable",
    "part_picture",
    "parts",
    "parts_in_words",
    "picture",
    "place_nodes",
    "pyramid_boxes",
    "read_image",
    "reconstruct",
    "reconstruction",
    "save_picture",
]
