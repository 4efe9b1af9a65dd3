"""What a gallery holds: its classes, photos and descriptors, as they are read."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.gallery.embedder import Identity
from fieldmark.gallery.records import FACTS, ClassSummary, Header, Photo, quoted, sets_of
from fieldmark.gallery.table import Table

if TYPE_CHECKING:
    from typing_extensions import Self

_builtin_list = list  # the method list hides it


class Contents:
    """Enrolled classes and photos, to look at; :class:`fieldmark.gallery.store.Gallery` changes them.

    Attributes:
        uri: Where they are.
        table: The table underneath.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.uri = table.uri

    def __len__(self) -> int:
        return self.table.count()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r}: {len(self)} photos of {len(self.list())} classes)"

    @property
    def header(self) -> Header | None:
        """What made the descriptors, and when; None as long as nothing was enrolled."""
        return self.table.header

    @property
    def identity(self) -> Identity | None:
        """What must agree before an image is compared with the photos; None as long as nothing was enrolled."""
        return None if self.header is None else self.header.identity

    @property
    def version(self) -> int:
        """Number of the newest commit that this object has seen."""
        return self.table.version

    def refresh(self) -> Self:
        """See what other processes changed; returns the gallery itself. Every operation that changes does so first."""
        self.table.refresh()
        return self

    # What is there

    def list(self) -> list[ClassSummary]:
        """The classes by name."""
        self.table.refresh()
        found = self.table.read(["class_id", "class_name", "added", "licence"])
        rows: dict[str, list[tuple[int, datetime.datetime, str]]] = {}
        columns = (found[name].to_pylist() for name in ("class_name", "class_id", "added", "licence"))
        for name, class_id, added, licence in zip(*columns, strict=True):
            rows.setdefault(name, []).append((class_id, added, licence))
        return [
            ClassSummary(
                # Two processes on object storage may have begun the same class at once: the older id stands.
                min(row[0] for row in rows[name]),
                name,
                len(rows[name]),
                max(row[1] for row in rows[name]),
                tuple(sorted({row[2] for row in rows[name]} - {""})),
            )
            for name in sorted(rows)
        ]

    def photos(self, class_name: str | None = None, ids: Sequence[int] | None = None) -> _builtin_list[Photo]:
        """Enrolled photos by id.

        Args:
            class_name: Only those of this class.
            ids: Only these.

        Raises:
            FieldmarkError: No such class or photo.
        """
        self.table.refresh()
        where = ""
        if class_name is not None:
            where = f"class_name = {quoted(self._known(class_name))}"
        if ids is not None:
            where = " AND ".join(filter(None, [where, among(self._known_ids(ids))]))
        found = self.table.read(FACTS, where)
        return [Photo(**row) for row in found.select(list(FACTS)).to_pylist()]

    def thumbnails(self, ids: Sequence[int]) -> dict[int, bytes]:
        """JPEG of photos, as the model saw them, by id.

        Raises:
            FieldmarkError: No such photo.
        """
        if not len(ids):
            return {}
        self.table.refresh()
        found = self.table.read(["thumbnail"], among(self._known_ids(ids)))
        return dict(zip(found["id"].to_pylist(), found["thumbnail"].to_pylist(), strict=True))

    def descriptors(
        self, kinds: Iterable[str] = ("pooled", "local"), ids: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Ids ``(M,)``, class names ``(M,)`` and, for each kind, descriptors ``(M, N, C)`` float32; by id.

        Args:
            kinds: ``"pooled"`` (N = 1), ``"local"`` or both.
            ids: Only these photos; default: all.

        Raises:
            FieldmarkError: Nothing was enrolled, no such photo, or a kind that the gallery does not hold.
        """
        self.table.refresh()
        header, kinds = self.filled(), list(kinds)
        for kind in kinds:
            if kind not in header.shapes:
                raise FieldmarkError(
                    f"gallery {self.uri} holds {' and '.join(header.shapes)} descriptors, no {kind} ones; "
                    "take a head that works on these (`fieldmark heads` lists them)"
                )
        found = self.table.read(["class_name", *kinds], "" if ids is None else among(self._known_ids(ids)))
        sets = {kind: sets_of(found[kind], header.shapes[kind]).astype(np.float32) for kind in kinds}
        return found["id"].to_numpy(), np.array(found["class_name"].to_pylist(), dtype=object), sets

    def filled(self) -> Header:
        """What made the descriptors.

        Raises:
            FieldmarkError: Nothing was enrolled yet.
        """
        if self.header is None:
            raise FieldmarkError(
                f"gallery {self.uri} is empty; enroll photos first: fieldmark enroll FOLDER --gallery {self.uri}"
            )
        return self.header

    def _known(self, name: str) -> str:
        names = [one.name for one in self.list()]
        if name not in names:
            raise unknown_name(f"class of gallery {self.uri}", name, names)
        return name

    def _known_ids(self, ids: Sequence[int]) -> _builtin_list[int]:
        wanted = [int(one) for one in ids]
        if not wanted:
            return []
        known = set(self.table.read([], among(wanted))["id"].to_pylist())
        missing = sorted(set(wanted) - known)
        if missing:
            more = f" (and {len(missing) - 1} more that are missing)" if len(missing) > 1 else ""
            raise FieldmarkError(
                f"gallery {self.uri} has no photo {missing[0]}{more}; `fieldmark gallery list --photos` shows the ids"
            )
        return wanted


def among(ids: Sequence[int]) -> str:
    """The condition that a photo is one of these, for a query of the table; without ids, no photo fulfils it.

    Example:
        >>> among([3, 5]), among([])
        ('id IN (3, 5)', 'FALSE')
    """
    return f"id IN ({', '.join(str(int(one)) for one in ids)})" if len(ids) else "FALSE"
