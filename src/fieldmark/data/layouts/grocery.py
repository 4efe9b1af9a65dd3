"""Grocery Store: smartphone photos of 81 kinds of fruit, vegetables and cartons; official images, or classes split."""

from __future__ import annotations

import csv
from typing import Any

from fieldmark.data.layouts.base import CLASS_SPLITS, TRAIN_VAL_TEST, DataSet, locate, require_files
from fieldmark.data.readers import ImageRecord
from fieldmark.data.sources import Source
from fieldmark.errors import FieldmarkError


def read_grocery(source: Source) -> list[ImageRecord]:
    """train.txt, val.txt and test.txt (path, fine number, coarse number), named by classes.csv; in official order."""
    prefix = locate(source, "classes.csv")
    if prefix is None:
        raise FieldmarkError(f"{source.path} has no classes.csv; expected the dataset folder of Grocery Store")
    rows = list(csv.reader(source.text(f"{prefix}classes.csv").splitlines()))[1:]
    titles = {int(row[1]): row[0] for row in rows if len(row) > 1}
    records = []
    for split in ("train", "val", "test"):
        for line in source.text(f"{prefix}{split}.txt").splitlines():
            path, fine, *_ = (cell.strip() for cell in line.split(","))
            records.append((int(fine), ImageRecord(prefix + path, titles[int(fine)], split=split)))
    records.sort(key=lambda item: (item[0], item[1].name))
    listed = [record for _, record in records]
    require_files(source, listed)
    return listed


_FACTS: dict[str, Any] = {
    "read": read_grocery,
    "source": "M. Klasson et al., A Hierarchical Grocery Store Image Dataset, WACV 2019",
    "classes": 81,
    "images": 5_421,
    "layout": "classes.csv, train.txt, val.txt, test.txt and their image folders",
    "obtain": "GroceryStoreDataset",
    "licence": "MIT",
}
DataSet(
    name="grocery",
    summary="81 fine-grained classes of groceries; official train/val/test images",
    size=224,
    splits=TRAIN_VAL_TEST,
    **_FACTS,
).register()
DataSet(
    name="grocery-fieldmark",
    summary="81 fine-grained classes of groceries; 41/15/25 classes, coarse classes whole (list ours)",
    size=84,
    splits=CLASS_SPLITS,
    class_list="grocery-fieldmark",
    overlap="same images as grocery in another split: never train on one and test on the other",
    **_FACTS,
).register()
