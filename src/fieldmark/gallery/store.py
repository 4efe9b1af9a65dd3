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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark import heads
from fieldmark.backbones import as_encoder
from fieldmark.data.layouts.base import IMAGENET_STATISTICS
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.contents import Contents, among
from fieldmark.gallery.embedder import Embedder, create_pretrained
from fieldmark.gallery.enrolling import Enrolled, OnBad, Spec, enroll
from fieldmark.gallery.records import check_class_name, quoted
from fieldmark.gallery.table import KEEP, Table

if TYPE_CHECKING:
    from fieldmark.gallery.classifier import FewShotClassifier
    from fieldmark.gallery.search import Found


class Gallery(Contents):
    """Classes of photos with their descriptors, in a folder or on object storage; made by :meth:`open`.

    Every operation is one commit: whenever the process is killed, the gallery is as before or as after it. Two
    processes may write; ids of photos and classes never change and are never given twice. What it holds is read by
    the methods of :class:`~fieldmark.gallery.contents.Contents`.
    """

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
            where = among(self._known_ids(ids))
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
            parts += [among(self._known_ids(ids))] if len(ids) else []
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
            if Path(name).exists():
                backbone: Any = name
            else:
                backbone = as_encoder(create_pretrained(name, **identity.options), *IMAGENET_STATISTICS)
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

    def search(self, image: Any, top: int = 10, **options: Any) -> list[Found]:
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


def model_name(embedder: Embedder) -> str:
    """What makes the embedder's backbone again: its name (give a file's path by hand)."""
    backbone = embedder.encoder.backbone
    return backbone.facts.get("model", backbone.name)
