"""Enrolled photos that outlive the program: add, change, list and remove classes without retraining.

Example:
    >>> import tempfile, numpy as np
    >>> from fieldmark import backbones
    >>> from fieldmark.gallery import Embedder, Gallery
    >>> embedder = Embedder(backbones.create("pixels"), size=32)
    >>> shots = [np.full((40, 40, 3), value, np.uint8) for value in (10, 20, 200)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gallery = Gallery.open(folder, create=True)
    ...     print(gallery.enroll(shots, ["dark", "dark", "light"], embedder=embedder).added)
    ...     gallery.rename("dark", "night")
    ...     [(one.name, one.photos) for one in gallery.list()]
    3
    [('light', 1), ('night', 2)]
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark import heads
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.images import as_encoder
from fieldmark.gallery.embedder import Embedder, Identity, create_pretrained
from fieldmark.gallery.enrolling import Enrolled, OnBad, Spec, enroll
from fieldmark.gallery.records import (
    FACTS,
    ClassSummary,
    Header,
    Photo,
    check_class_name,
    quoted,
    sets_of,
)
from fieldmark.gallery.table import KEEP, Table

if TYPE_CHECKING:
    from fieldmark.gallery.classifier import FewShotClassifier
    from fieldmark.gallery.search import Found

_builtin_list = list


class Gallery:
    """Classes of photos with their descriptors, in a folder or on object storage; made by :meth:`open`.

    Every operation is one commit: whenever the process is killed, the gallery is as before or as after it. Two
    processes may write; ids of photos and classes never change and are never given twice.

    Attributes:
        uri: Where it is.
        table: The table underneath.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.uri = table.uri

    @classmethod
    def open(
        cls,
        uri: str | os.PathLike[str],
        create: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> Gallery:
        """The gallery at a place.

        Args:
            uri: A folder, or what LanceDB takes (``s3://bucket/name`` ...).
            create: Whether a new one is begun where there is none; it comes to be with the first photo.
            storage_options: Credentials and the like for object storage, handed to LanceDB.

        Raises:
            FieldmarkError: There is none, it is something else, or a newer version wrote it.
            MissingExtraError: LanceDB is not installed.
        """
        return cls(Table(uri, create, storage_options or {}))

    def __len__(self) -> int:
        return self.table.count()

    def __repr__(self) -> str:
        return f"Gallery({self.uri!r}: {len(self)} photos of {len(self.list())} classes)"

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

    def refresh(self) -> Gallery:
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
            where = " AND ".join(filter(None, [where, _among(self._known_ids(ids))]))
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
        found = self.table.read(["thumbnail"], _among(self._known_ids(ids)))
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
        found = self.table.read(["class_name", *kinds], "" if ids is None else _among(self._known_ids(ids)))
        sets = {kind: sets_of(found[kind], header.shapes[kind]).astype(np.float32) for kind in kinds}
        return found["id"].to_numpy(), np.array(found["class_name"].to_pylist(), dtype=object), sets

    # Changes

    def enroll(
        self,
        photos: Any,
        labels: Any = None,
        *,
        embedder: Embedder | None = None,
        model: str | None = None,
        licence: str = "",
        on_bad: OnBad = "raise",
        progress: bool = True,
    ) -> Enrolled:
        """Add photos; those that are there already are left alone, those whose file has changed are described anew.

        Args:
            photos: A folder of class folders, a zip of these, a list file (path, label); or with ``labels`` a list of
                paths, PIL images or uint8 arrays (H, W, 3).
            labels: A class for each of them, or one for all.
            embedder: Describes the photos; default: the one that the gallery was made with, for a new gallery
                ``Embedder()``.
            model: What to write down as its name, so that it can be made again; default: its backbone's name.
            licence: Of these photos, written down with each.
            on_bad: ``"raise"``: one photo that cannot be used, and nothing is changed; ``"skip"``: it is left out.
            progress: Show bars for long work on a terminal.

        Returns:
            What was done, with warnings.

        Raises:
            BadPhotosError: With a line for each bad photo in ``problems``.
            FieldmarkError: No photos, an embedder that does not fit the gallery, a write that fails.
        """
        embedder, model = self.chosen(embedder, model)
        return enroll(self.table, photos, labels, Spec(embedder, model, licence, on_bad, progress))

    def move(self, ids: Sequence[int], class_name: str) -> None:
        """Put photos into another class, which is begun if there is none of that name.

        Raises:
            FieldmarkError: No such photo, or no valid name.
        """
        name = check_class_name(class_name)
        with self.table.writing():
            where = _among(self._known_ids(ids))
            class_id = next((one.id for one in self.list() if one.name == name), None)
            if class_id is None:
                class_id = self.table.reserve(1)
            self.table.update(where, {"class_id": class_id, "class_name": name})

    def rename(self, old: str, new: str) -> None:
        """Give a class another name; its id stays.

        Raises:
            FieldmarkError: No such class, or the name is taken (then :meth:`merge` is meant).
        """
        name = check_class_name(new)
        with self.table.writing():
            old = self._known(old)
            if name == old:
                return
            if any(one.name == name for one in self.list()):
                raise FieldmarkError(
                    f"gallery {self.uri} has a class {name!r} already; to put {old!r} into it: "
                    f"fieldmark gallery merge {old!r} --into {name!r} --gallery {self.uri}"
                )
            self.table.update(f"class_name = {quoted(old)}", {"class_name": name})

    def merge(self, names: str | Sequence[str], into: str) -> int:
        """Put the photos of classes into another one, which stays; returns how many they were.

        Raises:
            FieldmarkError: No such class, or a class into itself.
        """
        names = [names] if isinstance(names, str) else list(names)
        with self.table.writing():
            into = self._known(into)
            names = [self._known(name) for name in names]
            if not names or into in names:
                raise FieldmarkError(f"cannot merge {', '.join(names) or 'nothing'} into {into!r}; name other classes")
            class_id = next(one.id for one in self.list() if one.name == into)
            where = f"class_name IN ({', '.join(map(quoted, names))})"
            return self.table.update(where, {"class_id": class_id, "class_name": into})

    def remove(self, classes: str | Sequence[str] = (), ids: Sequence[int] = ()) -> int:
        """Remove classes, single photos or both; returns how many photos that were.

        Their data stay in old versions of the table for a day, see :meth:`compact`.

        Raises:
            FieldmarkError: No such class or photo, or nothing named.
        """
        names = [classes] if isinstance(classes, str) else list(classes)
        if not names and not len(ids):
            raise FieldmarkError("nothing to remove; name classes or give ids of photos")
        with self.table.writing():
            names = [self._known(name) for name in names]
            parts = [f"class_name IN ({', '.join(map(quoted, names))})"] if names else []
            parts += [_among(self._known_ids(ids))] if len(ids) else []
            where = " OR ".join(parts)
            count = len(self.table.read([], where))
            self.table.delete(where)
            return count

    def compact(self, keep: datetime.timedelta = KEEP) -> None:
        """Merge small files and drop what is no longer needed: old versions, and what a killed process left.

        Args:
            keep: How old a version must be to be dropped; with ``timedelta(0)`` removed photos are gone from the disk
                for good, and a process that is reading an old version at this moment fails.
        """
        with self.table.writing():
            self.table.tidy(keep)

    def reembed(
        self,
        embedder: Embedder,
        model: str | None = None,
        *,
        missing: str = "raise",
        progress: bool = True,
    ) -> dict[str, int]:
        """Describe all photos anew, with another backbone or size; ids, classes and provenance stay.

        Args:
            embedder: The new one.
            model: As in :meth:`enroll`.
            missing: Photos whose file is gone or has changed: ``"raise"``, ``"thumbnail"`` (take the stored picture,
                which is smaller and compressed) or ``"drop"``.
            progress: Show bars for long work on a terminal.

        Returns:
            Counts: ``files``, ``thumbnails``, ``dropped``.

        Raises:
            FieldmarkError: Files are missing (the first is named), or nothing was enrolled.
        """
        from fieldmark.gallery.renewing import reembed

        self.table.refresh()
        self.filled()
        return reembed(self.table, embedder, model or model_name(embedder), missing, progress)

    # To and from other places

    def export(self, path: str | os.PathLike[str]) -> dict[str, int]:
        """Write all into one zip file: pictures in class folders, descriptors, ids and provenance.

        The zip can be imported into a gallery, and, being class folders, enrolled with another backbone.

        Returns:
            Counts: ``photos``, ``classes``.
        """
        from fieldmark.gallery.transfer import export

        self.table.refresh()
        self.filled()
        return export(self.table, path)

    def import_(self, path: str | os.PathLike[str]) -> Enrolled:
        """Add what :meth:`export` wrote; a new gallery gets the same ids, into an old one the classes go by name.

        Raises:
            FieldmarkError: No such export, or one made with another backbone.
        """
        from fieldmark.gallery.transfer import import_

        return import_(self.table, path)

    def embedder(self, device: str = "auto", model: str | None = None) -> Embedder:
        """What describes new images as the photos were described.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` ...
            model: Name or file of the model; default: what was written down.

        Raises:
            FieldmarkError: The model is gone, or does not give the same descriptors any more.
        """
        header = self.filled()
        identity, name = header.identity, model or header.model
        try:
            backbone = name if Path(name).exists() else as_encoder(create_pretrained(name, **identity.options))
            found = Embedder(
                backbone, None if identity.encoded else identity.size, identity.fit,  # type: ignore[arg-type]
                identity.descriptors, identity.descriptor_options, device,
            )  # fmt: skip
        except FieldmarkError as error:
            if model is not None or isinstance(error, ImportError):
                raise
            raise FieldmarkError(
                f"the model of gallery {self.uri} cannot be had ({error}); say where it is: --backbone PATH"
            ) from None
        if differences := identity.differences(found.identity):
            raise FieldmarkError(
                f"{name} is not what gallery {self.uri} was made with: {'; '.join(differences)}; say where that model "
                f"is (--backbone PATH), or describe the photos anew: fieldmark gallery reembed --gallery {self.uri}"
            )
        return found

    def check(self, embedder: Embedder) -> None:
        """Refuse an embedder whose descriptors cannot be compared with the gallery's.

        Raises:
            FieldmarkError: What differs, and the ways out.
        """
        self.table.check(embedder.identity, model_name(embedder))

    def search(self, image: Any, top: int = 10, **options: Any) -> _builtin_list[Found]:
        """The photos nearest to an image; see :func:`fieldmark.gallery.search.search` for the options."""
        from fieldmark.gallery.search import search

        return search(self, image, top, **options)

    def build_index(self, partitions: int | None = None) -> None:
        """An index for searches (IVF); large galleries get one of their own accord.

        Args:
            partitions: Parts of the index; default: the square root of the number of photos.
        """
        self.filled()
        with self.table.writing():
            self.table.build_index("pooled", partitions or max(1, math.isqrt(self.table.count())))

    def classifier(self, embedder: Embedder | None = None, evidence: bool = True, **options: Any) -> FewShotClassifier:
        """A classifier of the gallery's classes; nothing is described again.

        Args:
            embedder: From :meth:`embedder`, to use it several times; default: made anew.
            evidence: Whether it is to explain its answers; without, only what its head needs is read.
            options: Of :class:`~fieldmark.gallery.classifier.FewShotClassifier`: ``head``, ``reject`` ...

        Raises:
            FieldmarkError: Nothing was enrolled, or only one class.
        """
        from fieldmark.gallery.classifier import DEFAULT_HEAD, FewShotClassifier

        shapes = self.filled().shapes
        head = heads.create(options.get("head", DEFAULT_HEAD), **(options.get("head_options") or {}))
        kinds = list(shapes) if evidence else [head.descriptors]
        ids, labels, sets = self.descriptors(dict.fromkeys([*kinds, head.descriptors]))
        if not len(ids):
            raise FieldmarkError(f"gallery {self.uri} holds no photo; enroll some first")
        embedder = embedder or self.embedder()
        self.check(embedder)
        photos = None
        if evidence:
            thumbnails, known = self.thumbnails(ids.tolist()), self.photos(ids=ids.tolist())
            photos = [thumbnails.get(id_) for id_ in ids.tolist()]
            options.setdefault("names", [Path(one.path).name or f"photo {one.id}" for one in known])
        return FewShotClassifier.from_descriptors(embedder, sets, labels.astype(str), photos, **options)

    def chosen(self, embedder: Embedder | None, model: str | None) -> tuple[Embedder, str]:
        """What new photos are described by, and its name to write down; see :meth:`enroll`.

        Raises:
            FieldmarkError: It does not fit the gallery, or the gallery's own cannot be had.
        """
        if embedder is None:
            if self.header is None:
                return Embedder(), "efficientnet_lite0"
            return self.embedder(model=model), model or self.header.model
        if self.header is not None:
            self.check(embedder)
        return embedder, model or model_name(embedder)

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
        known = set(self.table.read([], _among(wanted))["id"].to_pylist())
        missing = sorted(set(wanted) - known)
        if missing:
            more = f" (and {len(missing) - 1} more that are missing)" if len(missing) > 1 else ""
            raise FieldmarkError(
                f"gallery {self.uri} has no photo {missing[0]}{more}; `fieldmark gallery list --photos` shows the ids"
            )
        return wanted


def model_name(embedder: Embedder) -> str:
    """What makes the embedder's backbone again: its name (give a file's path by hand)."""
    backbone = embedder.encoder.backbone
    return backbone.facts.get("model", backbone.name)


def _among(ids: Sequence[int]) -> str:
    """A condition; no id at all is fulfilled by none."""
    return f"id IN ({', '.join(str(int(one)) for one in ids)})" if len(ids) else "FALSE"
