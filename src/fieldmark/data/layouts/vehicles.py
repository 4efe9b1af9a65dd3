"""Stanford Cars and FGVC-Aircraft."""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fieldmark.data.layouts.base import (
    CLASS_SPLITS,
    TRAIN_TEST,
    TRAIN_VAL_TEST,
    DataSet,
    by_class,
    locate,
    require_files,
    table,
)
from fieldmark.data.readers import ImageRecord, read_class_folders
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError

_ANNOTATIONS = {  # file -> folder of its images, split
    "cars_train_annos.mat": ("cars_train/", "train"),
    "cars_test_annos_withlabels.mat": ("cars_test/", "test"),
}


def read_mat(source: Source, name: str) -> dict[str, Any]:
    """A Matlab file as plain arrays and dicts."""
    from scipy.io import loadmat

    try:
        return loadmat(io.BytesIO(source.read(name)), simplify_cells=True)
    except FieldmarkError:
        raise
    except Exception as error:
        raise FieldmarkError(f"{source.where(name)} cannot be read as a Matlab file ({error})") from None


def read_cars(source: Source) -> list[ImageRecord]:
    """The devkit's annotations (in either of its two forms), else class folders.

    With the devkit, classes are named "001.AM General Hummer SUV 2000" by their official number.
    """
    if locate(source, "cars_annos.mat") is not None:
        return _read_merged(source, f"{locate(source, 'cars_annos.mat')}cars_annos.mat")
    meta = locate(source, "cars_meta.mat")
    if meta is None:
        return read_class_folders(source)
    titles = [str(title) for title in read_mat(source, f"{meta}cars_meta.mat")["class_names"]]
    records = []
    for file, (folder, split) in _ANNOTATIONS.items():
        place = locate(source, file)
        if place is None:
            continue
        top = locate(source, folder[:-1])
        for row in _rows(read_mat(source, place + file)["annotations"]):
            class_name = _car(int(row["class"]), titles, source)
            records.append(ImageRecord(f"{top or ''}{folder}{row['fname']}", class_name, split=split))
    require_files(source, records)
    return by_class(records)


def read_aircraft(source: Source) -> list[ImageRecord]:
    """images_variant_train.txt, _val.txt and _test.txt beside images/; classes are the 100 variants."""
    prefix = locate(source, "images_variant_test.txt")
    if prefix is None:
        raise FieldmarkError(
            f"{source.path} has no images_variant_test.txt; expected data/ of the FGVC-Aircraft archive"
        )
    records = []
    for split in ("train", "val", "test"):
        for number, variant in table(source, f"{prefix}images_variant_{split}.txt"):
            records.append(ImageRecord(f"{prefix}images/{number}.jpg", variant, split=split))
    require_files(source, records)
    return by_class(records)


def car_number(class_name: str) -> str:
    """The official class number in a class name ("001.AM General ..." or "1"); the name itself when it has none.

    Example:
        >>> car_number("007.Acura Integra Type R 2001"), car_number("7")
        ('7', '7')
    """
    found = re.match(r"0*(\d+)(\.|$)", class_name)
    return found[1] if found else class_name


def _read_merged(source: Source, name: str) -> list[ImageRecord]:
    facts = read_mat(source, name)
    titles = [str(title) for title in facts["class_names"]]
    records = []
    for row in _rows(facts["annotations"]):
        path = str(row["relative_im_path"])
        top = locate(source, str(PurePosixPath(path).parent)) or ""
        split = "test" if int(row["test"]) else "train"
        records.append(ImageRecord(top + path, _car(int(row["class"]), titles, source), split=split))
    require_files(source, records)
    return by_class(records)


def _rows(annotations: Any) -> list[dict[str, Any]]:
    return [annotations] if isinstance(annotations, dict) else list(np.atleast_1d(annotations))


def _car(number: int, titles: list[str], source: Source) -> str:
    if not 1 <= number <= len(titles):
        raise FieldmarkError(f"{source.path}: class {number} is not among the {len(titles)} names of the devkit")
    return f"{number:03d}.{titles[number - 1]}"


_CARS: dict[str, Any] = {
    "read": read_cars,
    "classes": 196,
    "images": 16_185,
    "source": "J. Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR-13",
    "layout": "cars_train/, cars_test/ and the devkit's .mat files, or one folder for each class",
    "obtain": "Stanford Cars (with the devkit and the test annotations with labels)",
    "licence": "non-commercial research",
}
DataSet(
    name="stanford_cars",
    summary="196 models of cars; official train/test images",
    size=224,
    splits=TRAIN_TEST,
    **_CARS,
).register()
DataSet(
    name="stanford_cars-dn4",
    summary="196 models of cars; 130/17/49 classes (DN4's list, LSSA's sizes)",
    size=84,
    splits=CLASS_SPLITS,
    class_list="stanford_cars-dn4",
    class_key=car_number,
    **{**_CARS, "layout": "the devkit's .mat files with cars_train/, cars_test/, or class folders named 1 to 196"},
).register()
DataSet(
    name="stanford_cars-scl",
    summary="196 models of cars; 98/49/49 classes by a rule (list ours, sizes of SCL)",
    size=84,
    splits=CLASS_SPLITS,
    class_list="stanford_cars-scl",
    **_CARS,
).register()
DataSet(
    name="aircraft",
    summary="100 variants of aircraft; official train/val/test images",
    read=read_aircraft,
    source="S. Maji et al., Fine-Grained Visual Classification of Aircraft, 2013",
    classes=100,
    images=10_000,
    size=224,
    splits=TRAIN_VAL_TEST,
    layout="data/images/ and data/images_variant_train.txt, _val.txt, _test.txt",
    obtain="FGVC-Aircraft",
    licence="non-commercial research",
).register()
