"""Augmentation of whole batches on the device, each image with its own parameters."""

from fieldmark.data.augment.base import AUGMENTATIONS, Augment, Augmentation, create_pipeline
from fieldmark.data.augment.colour import ColourJitter, Grayscale
from fieldmark.data.augment.geometry import (
    CenterCrop,
    Flip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate90,
    resize_windows,
    rotate90,
)
from fieldmark.data.augment.policy import AutoAugment, RandAugment
from fieldmark.data.augment.views import scl_first, scl_second

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "Augmentation",
    "AutoAugment",
    "CenterCrop",
    "ColourJitter",
    "Flip",
    "Grayscale",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Resize",
    "Rotate90",
    "create_pipeline",
    "resize_windows",
    "rotate90",
    "scl_first",
    "scl_second",
]
