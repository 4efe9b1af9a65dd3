"""miniImageNet, tieredImageNet and Stanford Dogs: parts of ImageNet."""

from __future__ import annotations

import csv

from fieldmark.data.layouts.base import CLASS_SPLITS, TRAIN_TEST, DataSet, by_class, locate, require_files
from fieldmark.data.readers import ImageRecord, read_class_folders
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError

_LICENCE = "ImageNet terms: non-commercial research"
_WNIDS = "one folder for each class, named by WordNet number (n01532829), directly or below train, val and test"


def read_imagenet_part(source: Source) -> list[ImageRecord]:
    """Class folders, or the lists of Ravi & Larochelle (train.csv, val.csv, test.csv) beside a folder of images."""
    prefix = next(
        (p for p in (locate(source, f"{part}.csv") for part in ("train", "val", "test")) if p is not None), None
    )
    if prefix is None:
        return read_class_folders(source)
    names = set(source.names())
    images = f"{prefix}images/" if any(name.startswith(f"{prefix}images/") for name in names) else prefix
    records = []
    for part in ("train", "val", "test"):
        if f"{prefix}{part}.csv" not in names:
            continue
        for row in csv.DictReader(source.text(f"{prefix}{part}.csv").splitlines()):
            if not row.get("filename") or not row.get("label"):
                raise FieldmarkError(f"{source.where(f'{prefix}{part}.csv')} lacks the columns filename,label")
            records.append(ImageRecord(images + row["filename"], row["label"], split=part))
    require_files(source, records)
    return by_class(records)


def read_dogs(source: Source) -> list[ImageRecord]:
    """Stanford Dogs: Images/, and train_list.mat and test_list.mat where they are there."""
    top = locate(source, "Images")
    prefix = "" if top is None else f"{top}Images/"
    records = read_class_folders(source, prefix or None)
    tags: dict[str, str] = {}
    for part in ("train", "test"):
        place = locate(source, f"{part}_list.mat")
        if place is not None:
            from fieldmark.data.layouts.vehicles import read_mat

            listed = read_mat(source, f"{place}{part}_list.mat")["file_list"]
            tags.update({str(name): part for name in listed})
    return [ImageRecord(r.name, r.class_name, split=tags.get(r.name[len(prefix) :], "")) for r in records]


DataSet(
    name="mini_imagenet",
    summary="100 ImageNet classes of 600 images; 64/16/20 classes (Ravi & Larochelle)",
    read=read_imagenet_part,
    source="O. Vinyals et al., NeurIPS 2016; split of S. Ravi and H. Larochelle, ICLR 2017",
    classes=100,
    images=60_000,
    size=84,
    splits=CLASS_SPLITS,
    class_list="mini_imagenet",
    layout=f"{_WNIDS}, or train.csv, val.csv, test.csv and images/",
    obtain="miniImageNet",
    licence=_LICENCE,
    overlap="part of ImageNet: backbones pre-trained on ImageNet have seen the test classes",
).register()

DataSet(
    name="tiered_imagenet",
    summary="608 ImageNet classes; 351/97/160 classes, split by super-class",
    read=read_imagenet_part,
    source="M. Ren et al., ICLR 2018",
    classes=608,
    images=779_165,
    size=84,
    splits=CLASS_SPLITS,
    class_list="tiered_imagenet",
    layout=_WNIDS,
    obtain="tieredImageNet",
    licence=_LICENCE,
    overlap="part of ImageNet: backbones pre-trained on ImageNet have seen the test classes",
    part_by_split=True,
).register()

_DOGS = {
    "read": read_dogs,
    "source": "A. Khosla et al., FGVC workshop at CVPR 2011",
    "classes": 120,
    "images": 20_580,
    "layout": "Images/ with one folder for each breed, and train_list.mat, test_list.mat for the official split",
    "obtain": "Stanford Dogs",
    "licence": _LICENCE,
    "overlap": "its images are ImageNet's: backbones pre-trained on ImageNet have seen them, test images included",
}
DataSet(
    name="stanford_dogs",
    summary="120 breeds of dogs; official train/test images",
    size=224,
    splits=TRAIN_TEST,
    **_DOGS,  # type: ignore[arg-type]
).register()
DataSet(
    name="stanford_dogs-dn4",
    summary="120 breeds of dogs; 70/20/30 classes (DN4's list, LSSA's sizes)",
    size=84,
    splits=CLASS_SPLITS,
    class_list="stanford_dogs-dn4",
    **_DOGS,  # type: ignore[arg-type]
).register()
