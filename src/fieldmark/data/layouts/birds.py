"""CUB-200-2011 (official split and the five few-shot lists, whole or cut to boxes) and NABirds."""

from __future__ import annotations

from typing import Any

from fieldmark.data.layouts.base import CLASS_SPLITS, TRAIN_TEST, DataSet, by_class, locate, require_files, table
from fieldmark.data.readers import ImageRecord, read_class_folders
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError


def read_cub(source: Source) -> list[ImageRecord]:
    """images.txt, bounding_boxes.txt and train_test_split.txt; without them the class folders alone."""
    prefix = locate(source, "images.txt")
    if prefix is None:
        top = locate(source, "images")
        return read_class_folders(source, None if top is None else f"{top}images/")
    names = set(source.names())
    paths = dict(table(source, f"{prefix}images.txt"))
    _check_labels(source, prefix, paths)
    train = dict(table(source, f"{prefix}train_test_split.txt")) if f"{prefix}train_test_split.txt" in names else {}
    boxes = _boxes(source, f"{prefix}bounding_boxes.txt") if f"{prefix}bounding_boxes.txt" in names else {}
    records = [
        ImageRecord(
            f"{prefix}images/{path}",
            path.split("/")[0],
            boxes.get(number),
            {"1": "train", "0": "test"}.get(train.get(number, ""), ""),
        )
        for number, path in paths.items()
    ]
    require_files(source, records)
    return by_class(records)


def read_nabirds(source: Source) -> list[ImageRecord]:
    """images.txt, image_class_labels.txt, classes.txt and train_test_split.txt; class "0817.Mallard"."""
    prefix = locate(source, "image_class_labels.txt")
    if prefix is None:
        raise FieldmarkError(f"{source.path} has no image_class_labels.txt; expected the unpacked NABirds archive")
    paths = dict(table(source, f"{prefix}images.txt"))
    labels = dict(table(source, f"{prefix}image_class_labels.txt"))
    titles = {str(int(number)): title for number, title in table(source, f"{prefix}classes.txt")}
    train = dict(table(source, f"{prefix}train_test_split.txt"))
    records = []
    for number, path in paths.items():
        if number not in labels or str(int(labels[number])) not in titles:
            raise FieldmarkError(f"{source.path}: image {number} of images.txt has no class in image_class_labels.txt")
        label = str(int(labels[number]))
        split = {"1": "train", "0": "test"}.get(train.get(number, ""), "")
        records.append(ImageRecord(f"{prefix}images/{path}", f"{int(label):04d}.{titles[label]}", split=split))
    require_files(source, records)
    return by_class(records)


def _boxes(source: Source, name: str) -> dict[str, tuple[float, float, float, float]]:
    boxes = {}
    for number, *numbers in table(source, name, columns=5):
        x, y, width, height = (float(value) for value in numbers)
        boxes[number] = (x, y, x + width, y + height)
    return boxes


def _check_labels(source: Source, prefix: str, paths: dict[str, str]) -> None:
    """The class of a folder's name and of image_class_labels.txt must be one."""
    name = f"{prefix}image_class_labels.txt"
    if name not in set(source.names()):
        return
    for number, label in table(source, name):
        folder = paths.get(number, "").split("/")[0]
        if folder.split(".")[0].lstrip("0") != label:
            raise FieldmarkError(f"{source.where(name)} gives image {number} class {label}, but it lies in {folder!r}")


_CUB: dict[str, Any] = {
    "read": read_cub,
    "classes": 200,
    "images": 11_788,
    "layout": "images/ and images.txt, image_class_labels.txt, bounding_boxes.txt, train_test_split.txt",
    "obtain": "CUB-200-2011",
    "licence": "non-commercial research",
    "overlap": "shares species with NABirds; some images are said to be in ImageNet",
}
_PAPER = "C. Wah et al., Caltech technical report 2011"
_LISTS = {
    "feat": ("100/50/50 classes", "H.-J. Ye et al., FEAT, CVPR 2020"),
    "closerlook": ("100/50/50 classes", "W.-Y. Chen et al., A Closer Look at Few-shot Classification, ICLR 2019"),
    "frn": ("100/50/50 classes", "D. Wertheimer et al., FRN, CVPR 2021"),
    "dn4": ("130/20/50 classes", "W. Li et al., DN4, CVPR 2019"),
    "easyfsl": ("140/30/30 classes", "easyfsl, Sicara"),
}

for _suffix, _crop, _fit, _how in (("", "raw", "crop", ""), ("-cropped", "box", "squash", ", cut to boxes")):
    DataSet(
        name=f"cub{_suffix}",
        summary=f"200 species of birds; official train/test images{_how}",
        source=_PAPER,
        size=224,
        splits=TRAIN_TEST,
        crop=_crop,  # type: ignore[arg-type]
        fit=_fit,  # type: ignore[arg-type]
        **_CUB,
    ).register()
    for _list, (_sizes, _origin) in _LISTS.items():
        DataSet(
            name=f"cub-{_list}{_suffix}",
            summary=f"200 species of birds; {_sizes}, list of {_list}{_how}",
            source=f"{_PAPER}; list of {_origin}",
            size=84,
            splits=CLASS_SPLITS,
            class_list=f"cub-{_list}",
            crop=_crop,  # type: ignore[arg-type]
            fit=_fit,  # type: ignore[arg-type]
            **_CUB,
        ).register()

DataSet(
    name="cub-retrieval",
    summary="200 species of birds; image retrieval: classes 1 to 100 train, 101 to 200 test",
    source=f"{_PAPER}; halves of H. Oh Song et al., CVPR 2016",
    size=224,
    splits={"train": "class", "test": "class"},
    class_list="cub-retrieval",
    **_CUB,
).register()

_NABIRDS: dict[str, Any] = {
    "read": read_nabirds,
    "classes": 555,
    "images": 48_562,
    "source": "G. Van Horn et al., Building a bird recognition app and large scale dataset, CVPR 2015",
    "layout": "images/ and images.txt, image_class_labels.txt, classes.txt, train_test_split.txt",
    "obtain": "NABirds",
    "licence": "non-commercial research",
    "overlap": "shares species with CUB: a test class of one may be a training class of the other",
}
DataSet(
    name="nabirds",
    summary="555 kinds of North American birds; official train/test images",
    size=224,
    splits=TRAIN_TEST,
    **_NABIRDS,
).register()
DataSet(
    name="nabirds-fieldmark",
    summary="555 kinds of North American birds; 350/66/139 classes (list ours, sizes of LSSA)",
    size=84,
    splits=CLASS_SPLITS,
    class_list="nabirds-fieldmark",
    **_NABIRDS,
).register()
