"""A class that a model was trained on is not new: it is refused as a test class unless that is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fieldmark.data import ImageStore
from fieldmark.errors import FieldmarkError

# Data sets that draw on the same classes under one or several names.
_KIN = (
    {"cub", "nabirds"},
    {"cifar_fs", "fc100", "cifar100"},
    {"mini_imagenet", "tiered_imagenet", "imagenet", "stanford_dogs"},
    {"omniglot", "omniglot_runs"},
)
_WORDNET = re.compile(r"n\d{8}")
_BIRDS = {"cub", "nabirds"}
# Species that CUB calls by an old, short or misspelt name; the genus Sayornis is three species.
_CALLED = {
    "artic tern": ("arctic tern",),
    "cardinal": ("northern cardinal",),
    "florida jay": ("florida scrub jay",),
    "forsters tern": ("forster tern",),
    "frigatebird": ("magnificent frigatebird",),
    "geococcyx": ("greater roadrunner",),
    "great gray shrike": ("northern shrike",),
    "leconte sparrow": ("le conte sparrow",),
    "mockingbird": ("northern mockingbird",),
    "myrtle warbler": ("yellow rumped warbler",),
    "nelson sharp tailed sparrow": ("nelson sparrow",),
    "nighthawk": ("common nighthawk",),
    "sayornis": ("black phoebe", "eastern phoebe", "say phoebe"),
    "tree sparrow": ("american tree sparrow",),
    "whip poor will": ("eastern whip poor will",),
    "white pelican": ("american white pelican",),
}


def require_new_classes(facts: Mapping[str, Any], data: ImageStore, *, allow: bool = False) -> list[str]:
    """Refuse to test on classes that the model has seen.

    Args:
        facts: What is known of the model: ``training_classes`` (data set name to class names) and ``pretraining``
            (a text such as ``"ImageNet-1k"``), both optional.
        data: The classes to be tested.
        allow: Go on all the same; the result names the classes.

    Returns:
        The test classes that were trained on.

    Raises:
        FieldmarkError: If there are such classes and ``allow`` is false.
    """
    family = family_of(data.manifest.name)
    seen: set[str] = set()
    species: set[str] = set()
    for name, classes in dict(facts.get("training_classes") or {}).items():
        trained = family_of(name)
        if related(family, trained):
            seen |= {plain_name(c) for c in classes}
        # Within NABirds two plumages of a species are two classes; across data sets they are one bird.
        if {family, trained} == _BIRDS:
            species = species.union(*map(species_of, classes))
    leaked = [name for name in data.class_names if plain_name(name) in seen or not species.isdisjoint(species_of(name))]
    pretraining = str(facts.get("pretraining") or "")
    if not leaked and "imagenet" in pretraining.lower() and related(family, "imagenet"):
        leaked = list(data.class_names)
    if leaked and not allow:
        more = f" and {len(leaked) - 3} more" if len(leaked) > 3 else ""
        raise FieldmarkError(
            f"{len(leaked)} of {len(data.class_names)} test classes were in the model's training: "
            f"{', '.join(leaked[:3])}{more}; use a model trained on other classes, or pass --allow-leakage "
            "(the result will say so)"
        )
    return leaked


def family_of(name: str) -> str:
    """The data set behind a name with split list and crop (``cub-feat-cropped`` is ``cub``).

    Example:
        >>> family_of("cub-feat-cropped")
        'cub'
    """
    return name.split("-")[0].split(":")[0]


def related(first: str, second: str) -> bool:
    """Whether two data sets may hold the same classes."""
    return first == second or any(first in kin and second in kin for kin in _KIN)


def plain_name(name: str) -> str:
    """A class name without number, case and punctuation; a WordNet id where there is one.

    Example:
        >>> plain_name("001.Black_footed_Albatross") == plain_name("Black-footed Albatross")
        True
        >>> plain_name("n02085620-Chihuahua")
        'n02085620'
    """
    wordnet = _WORDNET.match(name)
    if wordnet:
        return wordnet.group()
    plain = re.sub(r"[\W_]+", " ", re.sub(r"^\d+\.", "", name).lower()).strip()
    return plain or name  # a name of symbols alone stays what it is


def species_of(name: str) -> set[str]:
    """The birds behind a class name of CUB or NABirds: without number, plumage, possessive and spelling; one, mostly.

    Example:
        >>> species_of("0817.Dark-eyed Junco (White-winged)") == species_of("068.Dark_eyed_Junco")
        True
        >>> species_of("Brandt's Cormorant"), species_of("017.Cardinal")
        ({'brandt cormorant'}, {'northern cardinal'})
    """
    bare = re.sub(r"\([^)]*\)", " ", re.sub(r"['\u2019]s\b", "", name.lower()))
    plain = plain_name(bare).replace("grey", "gray")
    return set(_CALLED.get(plain, (plain,)))
