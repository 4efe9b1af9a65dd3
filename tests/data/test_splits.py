"""The shipped class lists: disjoint, of the published sizes, and equal to the shared ones."""

import hashlib
import json
from importlib import resources

import pytest

from fieldmark.data.splits import class_split, every_second, split_names, split_source, superclasses
from fieldmark.errors import FieldmarkError

SIZES = {
    "cifar_fs": (64, 16, 20),
    "fc100": (60, 20, 20),
    "mini_imagenet": (64, 16, 20),
    "tiered_imagenet": (351, 97, 160),
    "cub-feat": (100, 50, 50),
    "cub-closerlook": (100, 50, 50),
    "cub-frn": (100, 50, 50),
    "cub-dn4": (130, 20, 50),
    "cub-easyfsl": (140, 30, 30),
    "cub-retrieval": (100, 0, 100),
    "stanford_dogs-dn4": (70, 20, 30),
    "stanford_cars-dn4": (130, 17, 49),
    "stanford_cars-scl": (98, 49, 49),
    "places": (183, 91, 91),
    "plantae": (100, 50, 50),
    "nabirds-fieldmark": (350, 66, 139),
    "grocery-fieldmark": (41, 15, 25),
}
RULES = ("stanford_cars-scl", "places", "plantae", "nabirds-fieldmark")


def given(name):
    return [f"class {i:03d}" for i in range(sum(SIZES[name]))] if name in RULES else None


def test_every_split_has_published_sizes():
    assert set(SIZES) == set(split_names())


@pytest.mark.parametrize("name", SIZES)
def test_parts_are_disjoint_and_cover(name):
    parts = [class_split(name, part, given(name)) for part in ("train", "val", "test")]
    assert tuple(len(part) for part in parts) == SIZES[name]
    union = set().union(*parts)
    assert len(union) == sum(SIZES[name])
    assert set(class_split(name, "all", given(name))) == union
    assert class_split(name, "trainval", given(name)) == sorted(parts[0] + parts[1])
    assert split_source(name)


@pytest.mark.parametrize("name", RULES)
def test_rules_say_that_they_are_ours_and_want_all_classes(name):
    assert "ours" in split_source(name)
    with pytest.raises(FieldmarkError, match=str(sum(SIZES[name]))):
        class_split(name, "train")
    with pytest.raises(FieldmarkError, match="found 3 classes"):
        class_split(name, "train", ["a", "b", "c"])
    shuffled = given(name)[::-1]
    assert class_split(name, "test", shuffled) == class_split(name, "test", given(name))


def test_retrieval_halves_are_by_class_number():
    numbers = {part: [int(name[:3]) for name in class_split("cub-retrieval", part)] for part in ("train", "test")}
    assert numbers == {"train": list(range(1, 101)), "test": list(range(101, 201))}


def test_rule_of_every_second():
    names = [f"{i:02d}" for i in range(11)]
    parts = every_second(names[::-1])
    for i, name in enumerate(names):
        assert name in parts["train" if i % 2 == 0 else "val" if i % 4 == 1 else "test"]


def test_seeded_list_never_changes():
    names = class_split("nabirds-fieldmark", "test", given("nabirds-fieldmark"))
    assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == "51ad1ff337d6551f"


def test_fc100_keeps_super_classes_whole():
    for group in superclasses().values():
        assert sum(set(group) <= set(class_split("fc100", part)) for part in ("train", "val", "test")) == 1
    assert len(superclasses()) == 20


def test_grocery_is_what_its_rule_says_and_keeps_coarse_classes_whole():
    """The rule of docs/datasets.md, written out once more."""
    kinds = json.loads(resources.files("fieldmark.data").joinpath("splits/grocery.json").read_text("utf-8"))["kinds"]
    wanted = {"Fruit": (14, 5, 9), "Packages": (16, 6, 9), "Vegetables": (11, 4, 7)}
    found = {"train": [], "val": [], "test": []}
    for kind, groups in kinds.items():
        size = dict(zip(found, wanted[kind], strict=True))
        room = dict(size)
        by_hash = sorted(groups, key=lambda name: hashlib.sha256(f"grocery-fieldmark:{name}".encode()).hexdigest())
        for group in sorted(by_hash, key=lambda name: len(groups[name]), reverse=True):
            fitting = [part for part in ("test", "train", "val") if room[part] >= len(groups[group])]
            emptiest = max(fitting, key=lambda part: room[part] / size[part])
            room[emptiest] -= len(groups[group])
            found[emptiest] += groups[group]
    assert {part: sorted(names) for part, names in found.items()} == {
        part: class_split("grocery-fieldmark", part) for part in found
    }
    assert "ours" in split_source("grocery-fieldmark")
    test = set(class_split("grocery-fieldmark", "test"))
    assert {"Golden-Delicious", "Granny-Smith", "Pink-Lady", "Red-Delicious", "Royal-Gala"} <= test


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "keys"),
    [
        ("cifar_fs", "cifar_fs", []),
        ("fc100", "fc100", ["classes"]),
        ("mini_imagenet", "mini_imagenet", []),
        ("tiered_imagenet", "tiered_imagenet", []),
        ("cub-feat", "cub", ["feat"]),
        ("cub-closerlook", "cub", ["closer_look"]),
        ("cub-frn", "cub", ["frn"]),
        ("cub-dn4", "cub", ["dn4"]),
        ("cub-easyfsl", "cub", ["easyfsl"]),
        ("stanford_dogs-dn4", "stanford_dogs", ["dn4"]),
        ("stanford_cars-dn4", "stanford_cars", ["dn4"]),
    ],
)
def test_lists_are_the_shared_ones(name, file, keys, shared_file):
    lists = json.loads(shared_file(f"data/splits/{file}.json").read_text())
    for key in keys:
        lists = lists[key]
    for part in ("train", "val", "test"):
        assert class_split(name, part) == sorted(lists[part])


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(FieldmarkError, match="did you mean 'cub-feat'"):
        class_split("cub-feta", "train")
    with pytest.raises(FieldmarkError, match="did you mean 'test'"):
        class_split("cub-feat", "tst")
