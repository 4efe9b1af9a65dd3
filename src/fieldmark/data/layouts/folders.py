"""Any folder of class folders, zip of these, or list file; and the data sets that come as plain class folders."""

from __future__ import annotations

import os
from pathlib import Path

from fieldmark.data.layouts.base import CLASS_SPLITS, DataSet, Root
from fieldmark.data.readers import LIST_EXTENSIONS, ImageRecord, find_list, open_list, read_class_folders, read_list
from fieldmark.data.sources import FolderSource, Source, open_source


class ListedSource(FolderSource):
    """The files that a list file names, with their classes."""

    records: list[ImageRecord]


def open_folder(root: Root) -> Source:
    """A folder, a zip, or a list file (.csv, .tsv, .txt) of paths and labels."""
    if isinstance(root, (str, os.PathLike)) and Path(root).suffix.lower() in LIST_EXTENSIONS and Path(root).is_file():
        folder, records = open_list(root)
        source = ListedSource(folder.path, folder.names())
        source.records = records
        return source
    return open_source(root)


def read_folder(source: Source) -> list[ImageRecord]:
    """Class folders, or the list file at the top of a folder or zip that has one."""
    if isinstance(source, ListedSource):
        return source.records
    name = find_list(source)
    return read_list(source, name) if name else read_class_folders(source)


DataSet(
    name="folder",
    summary="any folder of class folders, zip of these, or list file (path, label)",
    read=read_folder,
    opener=open_folder,
    source="yours",
    classes=0,
    images=0,
    size=224,
    layout="one folder of images for each class (optionally below train, val, test), or a list file: path, label",
    licence="yours",
).register()

_CROSS_DOMAIN = "H.-Y. Tseng et al., Cross-Domain Few-Shot Classification, ICLR 2020"

DataSet(
    name="places",
    summary="365 kinds of places; 183/91/91 classes by a rule (list ours, sizes of SCL)",
    read=read_class_folders,
    source=f"B. Zhou et al., Places, TPAMI 2018; few-shot use: {_CROSS_DOMAIN}",
    classes=365,
    images=0,
    size=84,
    splits=CLASS_SPLITS,
    class_list="places",
    obtain="Places365, validation images or any number per class, sorted into class folders",
).register()

DataSet(
    name="plantae",
    summary="200 plant species of iNaturalist; 100/50/50 classes by a rule (list ours, sizes of SCL)",
    read=read_class_folders,
    source=f"G. Van Horn et al., iNaturalist, CVPR 2018; few-shot use: {_CROSS_DOMAIN}",
    classes=200,
    images=0,
    size=84,
    splits=CLASS_SPLITS,
    class_list="plantae",
    obtain="Plantae of the cross-domain few-shot benchmark (200 species), as class folders",
    licence="photographers' own, mostly CC BY-NC",
).register()
