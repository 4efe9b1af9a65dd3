"""What a result was measured on, so that two results are compared only when they are comparable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from fieldmark.errors import FieldmarkError

_COUNTS = ("classes", "images", "skipped")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The facts of a data set as it was used.

    Attributes:
        name: Registered name of the data set ("cub-feat-cropped").
        version: Version of the data set's reader and lists.
        split: Name of the split.
        size: (height, width) of the stored images.
        fit: How images were brought to that size ("crop", "squash", "pad").
        crop: "raw", or "box" when images were cut to their annotated boxes.
        interpolation: Filter of the resize.
        mean: Normalisation, per channel in [0, 1]; None when the backbone's own is used.
        std: The same.
        classes: Number of classes.
        images: Number of images.
        class_checksum: Hash of the class names in order.
        checksum: Hash of the contents of all image files with their classes, whatever their order or packing.
        skipped: Names of unreadable files that were left out on request.

    Example:
        >>> a = Manifest("cub-feat", split="test", size=(84, 84))
        >>> b = Manifest("cub-frn", split="test", size=(84, 84))
        >>> require_comparable(a, b)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: results are not comparable: name is 'cub-feat' in one and ...
    """

    name: str
    version: str = "1"
    split: str = "all"
    size: tuple[int, int] = (0, 0)
    fit: str = "crop"
    crop: str = "raw"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: int = 0
    images: int = 0
    class_checksum: str = ""
    checksum: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Short hash of everything that makes two results comparable: all fields but the counts."""
        facts = {key: value for key, value in self.to_dict().items() if key not in _COUNTS}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        facts = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Manifest:
        """Back from `to_dict`.

        Raises:
            FieldmarkError: A field is missing or unknown.

        Example:
            >>> Manifest.from_dict(Manifest("glyphs", size=(32, 32)).to_dict()).size
            (32, 32)
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(facts) - fields)
        if unknown or "name" not in facts:
            what = f"unknown field {unknown[0]!r}" if unknown else "no field 'name'"
            raise FieldmarkError(f"manifest has {what}; expected: {', '.join(sorted(fields))}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        return cls(**plain)


def require_comparable(a: Manifest, b: Manifest) -> None:
    """Refuse to compare results of different data.

    Raises:
        FieldmarkError: Names the first field that differs, with both values.
    """
    left, right = a.to_dict(), b.to_dict()
    for key, value in left.items():
        if key not in _COUNTS and value != right[key]:
            raise FieldmarkError(
                f"results are not comparable: {key} is {value!r} in one and {right[key]!r} in the other"
            )
