"""The files of each known data set, and what is known about them; importing this registers them all."""

from fieldmark.data.layouts import birds, cifar, embedded, folders, grocery, imagenet, omniglot, vehicles
from fieldmark.data.layouts.base import DATASETS, DataSet

__all__ = [
    "DATASETS",
    "DataSet",
    "birds",
    "cifar",
    "embedded",
    "folders",
    "grocery",
    "imagenet",
    "omniglot",
    "vehicles",
]
