"""What the coach says: one kind of advice a class, each with words, and all as a table or JSON."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fieldmark.files import write_beside, write_json
from fieldmark.gallery.records import Photo

COLUMNS = ("advice", "class", "photo", "file", "other_class", "other_photo", "other_file", "number", "what")


@dataclass(frozen=True)
class Mislabelled:
    """A photo that looks like another class than its own.

    Attributes:
        photo: Which.
        looks_like: The other class.
        sure: Probability that the label is wrong, if one in twenty is.
        nearest: The photo of the other class that it is most like.
    """

    photo: Photo
    looks_like: str
    sure: float
    nearest: Photo

    def row(self) -> tuple[Any, ...]:
        """Cells of :data:`COLUMNS`."""
        told = f"looks like {self.looks_like} ({self.sure:.0%} sure)"
        return _row("mislabelled", self.photo, self.looks_like, self.nearest, self.sure, told)


@dataclass(frozen=True)
class Duplicate:
    """Two photos that are the same.

    Attributes:
        photo: The older one.
        copy: The other.
        same_file: Whether the files are equal, byte by byte; else they only show the same.
        likeness: Correlation of the pictures, 1 for equal ones.
    """

    photo: Photo
    copy: Photo
    same_file: bool
    likeness: float

    @property
    def across(self) -> bool:
        """Whether they are in different classes: then one label is wrong, or both classes are in the picture."""
        return self.photo.class_name != self.copy.class_name

    def row(self) -> tuple[Any, ...]:
        """Cells of :data:`COLUMNS`."""
        told = ("the same file" if self.same_file else "nearly the same picture") + (
            " in two classes" if self.across else ""
        )
        return _row("duplicate", self.photo, self.copy.class_name, self.copy, self.likeness, told)


@dataclass(frozen=True)
class Need:
    """How much a class needs another photo.

    Attributes:
        class_name: Which.
        photos: How many it has.
        mistaken: How many of them, each left out in turn, were taken for another class; None with one photo alone.
        margin: Mean of own minus best other score; None with one photo alone.
        expected_error: Share of new photos that is to be expected to be mistaken: (mistaken + 1) / (judged + 2).
    """

    class_name: str
    photos: int
    mistaken: int | None
    margin: float | None
    expected_error: float

    def what(self) -> str:
        """In words."""
        if self.mistaken is None:
            return "one photo, so nothing to check it against"
        return f"{self.mistaken} of {self.photos} photos mistaken, margin {self.margin:.2f}"

    def row(self) -> tuple[Any, ...]:
        """Cells of :data:`COLUMNS`."""
        return ("another photo", self.class_name, "", "", "", "", "", f"{self.expected_error:.4f}", self.what())


@dataclass(frozen=True)
class Part:
    """The pair of places that speaks most for the wrong class.

    Attributes:
        photo: A photo of the one class.
        other: The photo of the other class that it is taken for.
        box: Left, top, right, bottom in the picture of ``photo``, as the model sees it.
        other_box: Likewise in that of ``other``.
        adds: What the pair adds to their likeness.
        likeness: Cosine of the two photos' vectors, of which that is a part.
    """

    photo: Photo
    other: Photo
    box: tuple[float, ...]
    other_box: tuple[float, ...]
    adds: float
    likeness: float


@dataclass(frozen=True)
class Confusion:
    """Two classes that are taken for each other.

    Attributes:
        classes: Their names.
        mistaken: Photos of either, left out in turn, that were taken for the other.
        judged: Photos of either that could be left out.
        likely: Mean probability of the other class, of these two, over the photos for which it was the nearest other.
        part: What speaks most for the wrong class; None where descriptors are no map of places.
    """

    classes: tuple[str, str]
    mistaken: int
    judged: int
    likely: float
    part: Part | None

    def what(self) -> str:
        """In words."""
        return f"{self.mistaken} of {self.judged} photos taken for the other" + (
            "" if self.part is None else f", most by {box_text(self.part.box)}"
        )

    def row(self) -> tuple[Any, ...]:
        """Cells of :data:`COLUMNS`."""
        one, other = (None, None) if self.part is None else (self.part.photo, self.part.other)
        first, second = self.classes if one is None else (one.class_name, self._other_of(one.class_name))
        return (
            "confused", first, one.id if one else "", one.path if one else "", second, other.id if other else "",
            other.path if other else "", f"{self.likely:.4f}", self.what(),
        )  # fmt: skip

    def _other_of(self, name: str) -> str:
        return self.classes[1] if name == self.classes[0] else self.classes[0]


@dataclass(frozen=True)
class ToLabel:
    """An unlabelled photo that would teach much.

    Attributes:
        path: Of the file.
        looks_like: Nearest class.
        or_like: The next; None in a gallery of one class.
        margin: Probability of the nearest minus that of the next.
        different: Distance from the photos named before it, 0 (the same) to 1.
    """

    path: str
    looks_like: str
    or_like: str | None
    margin: float
    different: float

    def row(self) -> tuple[Any, ...]:
        """Cells of :data:`COLUMNS`."""
        told = self.looks_like + (f" or {self.or_like}" if self.or_like else "")
        return (
            "label next", "", "", self.path, self.looks_like, "", "", f"{self.margin:.4f}", f"looks like {told}",
        )  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """All that the coach says of a gallery; the most urgent first in each list.

    Attributes:
        gallery: Where it is.
        photos: How many it holds.
        classes: How many classes.
        judged: Photos of classes with two or more: those that were left out in turn.
        accuracy: Share of these that were recognised; None without any.
        mislabelled: Photos that look like another class.
        duplicates: Pairs that are the same.
        needs: Classes, the neediest first.
        confusions: Pairs of classes.
        to_label: Unlabelled photos.
        problems: A line for each unlabelled photo that could not be used.
    """

    gallery: str
    photos: int
    classes: int
    judged: int
    accuracy: float | None
    mislabelled: list[Mislabelled]
    duplicates: list[Duplicate]
    needs: list[Need]
    confusions: list[Confusion]
    to_label: list[ToLabel]
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        facts = _plain(asdict(self))
        for listed, one in zip(facts["duplicates"], self.duplicates, strict=True):
            listed["across"] = one.across
        return facts

    def rows(self) -> list[tuple[Any, ...]]:
        """All advice under :data:`COLUMNS`."""
        kinds = (self.mislabelled, self.duplicates, self.needs, self.confusions, self.to_label)
        return [one.row() for kind in kinds for one in kind]

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict`."""
        return write_json(Path(path), self.to_dict())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`rows`. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows([[_cell(cell) for cell in row] for row in self.rows()])
        return write_beside(Path(path), lambda file: file.write(text.getvalue().encode()))


def box_text(box: tuple[float, ...]) -> str:
    """A box in words.

    Example:
        >>> box_text((0.0, 32.0, 32.0, 64.0))
        'x 0-32, y 32-64'
    """
    left, top, right, bottom = box
    return f"x {left:.0f}-{right:.0f}, y {top:.0f}-{bottom:.0f}"


def _row(kind: str, photo: Photo, other_class: str, other: Photo, number: float, told: str) -> tuple[Any, ...]:
    return (kind, photo.class_name, photo.id, photo.path, other_class, other.id, other.path, f"{number:.4f}", told)


def _cell(value: Any) -> str:
    text = str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
