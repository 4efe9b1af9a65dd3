"""Class splits of the few-shot literature, by name.

A list is a fact of a result: five different ones circulate as "CUB". Lists are shipped as JSON; where a paper gives
only sizes, a rule makes the list from the sorted class names, and says that the list is ours.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources

from fieldmark.errors import FieldmarkError, unknown_name

PARTS = ("train", "val", "test")
SPLITS = (*PARTS, "trainval", "all")

Parts = dict[str, list[str]]


def class_split(dataset: str, split: str, classes: Sequence[str] | None = None) -> list[str]:
    """The class names of one part of a named few-shot split.

    Args:
        dataset: Name of the list: "cifar_fs", "cub-feat", "places" ... (`split_names`).
        split: "train", "val", "test", "trainval" or "all".
        classes: All class names of the data set; needed where a rule makes the list.

    Returns:
        Names as the data set's reader gives them, sorted.

    Raises:
        FieldmarkError: Unknown list or split; or a rule without (all) class names.

    Example:
        >>> len(class_split("cifar_fs", "test")), class_split("cifar_fs", "test")[0]
        (20, 'baby')
    """
    if split not in SPLITS:
        raise unknown_name(f"split of {dataset!r}", split, SPLITS)
    if dataset in _LISTS:
        parts = _LISTS[dataset]()
    elif dataset in _RULES:
        total, rule = _RULES[dataset]
        if classes is None or len(classes) != total:
            found = "no" if classes is None else str(len(classes))
            raise FieldmarkError(
                f"the split of {dataset!r} is made by a rule from all its {total} class names; found {found} classes"
            )
        parts = rule(sorted(classes))
    else:
        raise unknown_name("class split", dataset, split_names())
    chosen = {"trainval": ("train", "val"), "all": PARTS}.get(split, (split,))
    return sorted(name for part in chosen for name in parts[part])


def split_names() -> list[str]:
    """Names of all class splits.

    Example:
        >>> "cub-feat" in split_names()
        True
    """
    return sorted([*_LISTS, *_RULES])


def split_source(dataset: str) -> str:
    """Where a class split comes from, and whether it is ours."""
    if dataset in _RULES:
        return {"nabirds-fieldmark": "ours: sizes of the LSSA paper, order by SHA-256"}.get(
            dataset, "ours: sizes of the SCL paper; sorted, 0-based, i%2==0 train, i%4==1 val, i%4==3 test"
        )
    return str(_read(_FILES[dataset])["source"])


def superclasses() -> dict[str, list[str]]:
    """CIFAR-100's twenty super-classes with their five classes each.

    Example:
        >>> sorted(superclasses()["people"])
        ['baby', 'boy', 'girl', 'man', 'woman']
    """
    return dict(_read("cifar100_superclasses")["classes"])


@functools.cache
def _read(name: str) -> dict:
    return json.loads(resources.files("fieldmark.data").joinpath(f"splits/{name}.json").read_text("utf-8"))


def _plain(name: str) -> Callable[[], Parts]:
    def parts() -> Parts:
        facts = _read(name)
        return {part: list(facts[part]) for part in PARTS}

    return parts


def _fc100() -> Parts:
    groups, facts = superclasses(), _read("fc100")
    return {part: [name for group in facts[part] for name in groups[group]] for part in PARTS}


def _grocery() -> Parts:
    facts = _read("grocery")
    groups = {name: classes for kind in facts["kinds"].values() for name, classes in kind.items()}
    return {part: [name for group in facts[part] for name in groups[group]] for part in PARTS}


def _numbered(name: str, which: str) -> Callable[[], Parts]:
    """Lists that are stored as positions in one list of names."""

    def parts() -> Parts:
        facts = _read(name)
        return {part: [facts["classes"][i] for i in facts["lists"][which][part]] for part in PARTS}

    return parts


def every_second(classes: Sequence[str]) -> Parts:
    """SCL's sizes: i % 2 == 0 train, i % 4 == 1 validation, i % 4 == 3 test over the sorted names.

    Example:
        >>> every_second(["a", "b", "c", "d"])
        {'train': ['a', 'c'], 'val': ['b'], 'test': ['d']}
    """
    names = sorted(classes, key=_bare)
    return {"train": names[0::2], "val": names[1::4], "test": names[3::4]}


def _hashed(seed: str, sizes: tuple[int, int, int]) -> Callable[[Sequence[str]], Parts]:
    """A shuffle that no version of any library can change: order by the hash of seed and name."""

    def parts(classes: Sequence[str]) -> Parts:
        order = sorted(classes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        train, val, _ = sizes
        return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}

    return parts


def _bare(name: str) -> str:
    """A class name without a leading number ("001.AM General Hummer")."""
    return re.sub(r"^\d+\.", "", name)


_FILES = {
    "cifar_fs": "cifar_fs",
    "fc100": "fc100",
    "mini_imagenet": "mini_imagenet",
    "tiered_imagenet": "tiered_imagenet",
    "cub-feat": "cub",
    "cub-closerlook": "cub",
    "cub-frn": "cub",
    "cub-dn4": "cub",
    "cub-easyfsl": "cub",
    "cub-retrieval": "cub",
    "stanford_dogs-dn4": "stanford_dogs",
    "stanford_cars-dn4": "stanford_cars",
    "grocery-fieldmark": "grocery",
}
_LISTS: dict[str, Callable[[], Parts]] = {
    "cifar_fs": _plain("cifar_fs"),
    "fc100": _fc100,
    "mini_imagenet": _plain("mini_imagenet"),
    "tiered_imagenet": _plain("tiered_imagenet"),
    **{f"cub-{name}": _numbered("cub", name) for name in ("feat", "closerlook", "frn", "dn4", "easyfsl", "retrieval")},
    "stanford_dogs-dn4": _plain("stanford_dogs"),
    "stanford_cars-dn4": _plain("stanford_cars"),
    "grocery-fieldmark": _grocery,
}
_RULES: dict[str, tuple[int, Callable[[Sequence[str]], Parts]]] = {
    "stanford_cars-scl": (196, every_second),
    "places": (365, every_second),
    "plantae": (200, every_second),
    "nabirds-fieldmark": (555, _hashed("nabirds-fieldmark", (350, 66, 139))),
}
