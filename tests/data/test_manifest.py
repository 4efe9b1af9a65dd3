"""A manifest goes through JSON unchanged, and results of different data are not compared."""

import dataclasses
import json

import pytest

from fieldmark.data.manifest import Manifest, require_comparable
from fieldmark.errors import FieldmarkError

FULL = Manifest(
    "cub-feat",
    "1",
    "test",
    (84, 84),
    "crop",
    "raw",
    "bicubic",
    (0.5, 0.4, 0.3),
    (0.2, 0.2, 0.2),
    50,
    2953,
    "aa",
    "bb",
    ("x",),
)
OTHER = {
    "name": "cub-frn", "version": "2", "split": "val", "size": (32, 32), "fit": "pad", "crop": "box",
    "interpolation": "bilinear", "mean": (0.1, 0.1, 0.1), "std": None, "class_checksum": "cc", "checksum": "dd",
}  # fmt: skip


def test_round_trip_through_json():
    assert Manifest.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


@pytest.mark.parametrize("field", OTHER)
def test_each_difference_is_refused_by_name(field):
    changed = dataclasses.replace(FULL, **{field: OTHER[field]})
    assert changed.identity != FULL.identity
    with pytest.raises(FieldmarkError, match=f"not comparable: {field} is ") as caught:
        require_comparable(FULL, changed)
    assert "\n" not in str(caught.value)


def test_counts_do_not_make_an_identity():
    changed = dataclasses.replace(FULL, images=1, classes=1)
    assert changed.identity == FULL.identity
    require_comparable(FULL, changed)


def test_every_field_is_covered():
    assert {field.name for field in dataclasses.fields(Manifest)} == {*OTHER, "classes", "images", "skipped"}


@pytest.mark.parametrize(("facts", "text"), [({"name": "a", "colour": 1}, "'colour'"), ({}, "no field 'name'")])
def test_foreign_facts_are_refused(facts, text):
    with pytest.raises(FieldmarkError, match=text):
        Manifest.from_dict(facts)
