"""What the page and the API do with a gallery: answers, reasons, changes; one at a time where it matters."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from fieldmark.allocation import bounded_freed_memory
from fieldmark.app.uploads import Held, Limits, RefusedError, Shelf, check_upload, decode_upload
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.classifier import FewShotClassifier
from fieldmark.gallery.incoming import hash_of_content
from fieldmark.gallery.prediction import Prediction
from fieldmark.gallery.records import ClassSummary, Photo, check_class_name
from fieldmark.gallery.store import Gallery

if TYPE_CHECKING:
    from fieldmark.gallery.evidence import Explanation

T = TypeVar("T")

_SHOWN_SIDE = 1024  # pixels of an asked photo when it is shown again
_ATTEMPTS = 5
_KEPT_ANSWERS = 3
_KEPT_BYTES = 2**29  # of freed memory, however large and odd the photos were
_BUSY = re.compile("another process|by other processes")


@dataclass(frozen=True)
class Added:
    """What became of a photo that was to be added.

    Attributes:
        photo: As it is enrolled.
        new: Whether it was not there before.
        notes: What the user should know: the same photo is in another class, too.
    """

    photo: Photo
    new: bool
    notes: list[str]


class Service:
    """A gallery that is being served.

    Predictions come from one classifier, which is made again when anybody has changed the gallery. Reading, predicting
    and writing each go one at a time; other processes may write to the same gallery meanwhile.

    Args:
        uri: Where the gallery is.
        limits: How large uploads may be.
        read_only: Whether changes are refused.
        backbone: Where the gallery's model is now, if it was moved.
        device: ``auto``, ``cpu``, ``cuda`` ...
        options: Of :meth:`fieldmark.gallery.Gallery.classifier`: ``head``, ``head_options`` ...

    Raises:
        FieldmarkError: There is no such gallery, or its model cannot be had.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        limits: Limits | None = None,
        read_only: bool = False,
        *,
        backbone: str | None = None,
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.read_only = read_only
        self.name = os.path.basename(os.fspath(uri).rstrip("/\\")) or "gallery"
        self.shelf = Shelf()
        # A handle for each of reading, predicting and writing, so that thumbnails need not wait for a photo being
        # enrolled, and no handle is moved to another version while it is being read.
        self._reader, self._asker, self._writer = (Gallery.open(uri) for _ in range(3))
        self._reading, self._asking, self._writing = (threading.Lock() for _ in range(3))
        self._options = {"reject": True, **(options or {})}
        self._embedder = self._asker.embedder(device, backbone)
        self._classifier: tuple[int, FewShotClassifier] | None = None

    # Asking

    def warm(self) -> None:
        """Make the classifier, and load what the first answer needs; so the first who asks need not wait for it."""
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "png")
        with contextlib.suppress(FieldmarkError):  # an empty gallery has no answers yet
            held = Held("", blank.getvalue())
            self.predict(held)
            self.explain(held)

    def hold(self, data: bytes) -> Held:
        """Keep a photo to ask about.

        Raises:
            RefusedError: It is too large, or no photo.
        """
        check_upload(data, self.limits)
        return self.shelf.put(data)

    def held(self, key: str) -> Held:
        """A photo that was asked about.

        Raises:
            RefusedError: It is not held any more.
        """
        found = self.shelf.get(key)
        if found is None:
            raise RefusedError(404, "this photo is not held any more; send it again")
        return found

    def predict(self, held: Held) -> tuple[Prediction, float | None]:
        """The answer for a photo with all classes, and the line for "none of these".

        Raises:
            RefusedError: It cannot be decoded, or the gallery is empty.
        """

        def ask(classifier: FewShotClassifier) -> tuple[Prediction, float | None]:
            picture = decode_upload(held.data, self.limits)
            found = classifier.predict_detailed([picture], max(1, len(classifier.classes_)))[0]
            return found, classifier.line

        return self._ask(held, "prediction", ask)

    def explain(self, held: Held, against: str | None = None) -> Explanation:
        """The evidence for the answer.

        Args:
            held: The photo.
            against: Name of the class to compare the answer with; default: the runner-up.

        Raises:
            RefusedError: As :meth:`predict`; no such class; or the gallery's descriptors are no map of places.
        """

        def ask(classifier: FewShotClassifier) -> Explanation:
            return classifier.explain(decode_upload(held.data, self.limits), against=against)

        return self._ask(held, ("explanation", against), ask)

    def shown(self, held: Held) -> bytes:
        """JPEG of an asked photo, made anew and not larger than a screen needs."""
        with bounded_freed_memory(_KEPT_BYTES):
            picture = decode_upload(held.data, self.limits)
            picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            buffer = io.BytesIO()
            picture.save(buffer, "jpeg", quality=88)
            return buffer.getvalue()

    # Looking

    @property
    def version(self) -> int:
        """Number of the gallery's newest commit that was seen."""
        return self._asker.version

    def describe(self) -> dict[str, Any]:
        """What is being served."""
        classes = self.classes()
        with self._reading:
            header, version = self._reader.header, self._reader.version
        facts: dict[str, Any] = {
            "name": self.name, "version": version, "classes": len(classes),
            "photos": sum(one.photos for one in classes), "read_only": self.read_only,
            "max_bytes": self.limits.bytes, "max_pixels": self.limits.pixels, "backbone": None, "size": None,
        }  # fmt: skip
        if header is not None:
            facts |= {"backbone": header.identity.backbone, "size": list(header.identity.size)}
        return facts

    def classes(self) -> list[ClassSummary]:
        """The classes by name."""
        with self._reading:
            return self._told(self._reader.list)

    def class_of(self, class_id: int) -> ClassSummary:
        """The class of an id.

        Raises:
            RefusedError: There is none.
        """
        for one in self.classes():
            if one.id == class_id:
                return one
        raise RefusedError(404, f"there is no class {class_id}; it may have been removed")

    def photos(self, class_id: int) -> list[Photo]:
        """The photos of a class.

        Raises:
            RefusedError: There is no such class.
        """
        name = self.class_of(class_id).name
        with self._reading:
            return self._told(lambda: self._reader.photos(name))

    def covers(self) -> dict[str, int]:
        """A photo of each class by its name: the one that was enrolled first."""
        with self._reading:
            found = self._told(lambda: self._reader.photos())
        out: dict[str, int] = {}
        for photo in found:
            out.setdefault(photo.class_name, photo.id)
        return out

    def photo(self, photo_id: int) -> Photo:
        """The photo of an id.

        Raises:
            RefusedError: There is none.
        """
        with self._reading:
            return self._photo(self._reader, photo_id)

    def thumbnail(self, photo_id: int) -> bytes:
        """JPEG of an enrolled photo, as the model saw it.

        Raises:
            RefusedError: There is no such photo.
        """
        with self._reading:
            self._photo(self._reader, photo_id)
            return self._told(lambda: self._reader.thumbnails([photo_id]))[photo_id]

    # Changing

    def create(self, name: str, held: Held, licence: str = "") -> Added:
        """Begin a class with its first photo.

        Raises:
            RefusedError: No valid name, or there is such a class already (409).
        """
        name = check_class_name(name)
        with self._changing():
            if any(one.name == name for one in self._told(self._writer.list)):
                raise RefusedError(409, f"there is a class {name!r} already; add the photo to it, or take another name")
            return self._enroll(held, name, licence)

    def add(self, class_id: int, held: Held, licence: str = "") -> Added:
        """Add a photo to a class; the same file is not taken twice.

        Raises:
            RefusedError: There is no such class, or the photo cannot be decoded.
        """
        with self._changing():
            return self._enroll(held, self._class_with(class_id).name, licence)

    def rename(self, class_id: int, name: str) -> ClassSummary:
        """Give a class another name.

        Raises:
            RefusedError: No such class, no valid name, or the name is taken (409).
        """
        name = check_class_name(name)
        with self._changing():
            old = self._class_with(class_id)
            if any(one.name == name and one.id != class_id for one in self._told(self._writer.list)):
                raise RefusedError(
                    409, f"there is a class {name!r} already; move the photos there, or take another name"
                )
            self._told(lambda: self._writer.rename(old.name, name))
            return self._class_named(name)

    def move(self, photo_id: int, class_name: str) -> Photo:
        """Put a photo into another class, which is begun if there is none of that name.

        Raises:
            RefusedError: No such photo, or no valid name.
        """
        name = check_class_name(class_name)
        with self._changing():
            self._photo(self._writer, photo_id)
            self._told(lambda: self._writer.move([photo_id], name))
            return self._photo(self._writer, photo_id)

    def remove_class(self, class_id: int) -> int:
        """Remove a class; returns how many photos it had.

        Raises:
            RefusedError: There is no such class.
        """
        with self._changing():
            name = self._class_with(class_id).name
            return self._told(lambda: self._writer.remove(name))

    def remove_photo(self, photo_id: int) -> None:
        """Remove a photo; a class ends with its last one.

        Raises:
            RefusedError: There is no such photo.
        """
        with self._changing():
            self._photo(self._writer, photo_id)
            self._told(lambda: self._writer.remove(ids=[photo_id]))

    # Inside

    def _ask(self, held: Held, what: Any, ask: Callable[[FewShotClassifier], T]) -> T:
        with self._asking, bounded_freed_memory(_KEPT_BYTES):
            version, classifier = self._told(self._fresh)
            key = (version, what)
            if key not in held.answers:
                found = self._told(lambda: ask(classifier))
                # Answers of older versions go: they would be about another gallery.
                fresh = [(old, value) for old, value in held.answers.items() if old[0] == version]
                held.answers = dict([*fresh[-_KEPT_ANSWERS:], (key, found)])
            return held.answers[key]

    def _fresh(self) -> tuple[int, FewShotClassifier]:
        version = self._asker.refresh().version
        if self._classifier is not None and self._classifier[0] == version:
            return self._classifier
        for attempt in range(_ATTEMPTS):
            version = self._asker.refresh().version
            names = [f"photo {one.id}" for one in self._asker.photos()]
            if not names:
                raise RefusedError(409, "the gallery is empty; enroll photos of at least one class first")
            try:
                made = self._asker.classifier(self._embedder, evidence=True, names=names, **self._options)
            except FieldmarkError:
                # It is read in several parts, and another process may have written between two of them.
                if self._asker.refresh().version == version or attempt == _ATTEMPTS - 1:
                    raise
                continue
            if self._asker.version == version:
                self._classifier = version, made
                return self._classifier
        raise RefusedError(503, "the gallery is being changed by other processes all the time; try again later")

    def _changing(self) -> threading.Lock:
        if self.read_only:
            raise RefusedError(403, "this gallery is served read-only; changes are refused")
        return self._writing

    def _enroll(self, held: Held, name: str, licence: str) -> Added:
        with bounded_freed_memory(_KEPT_BYTES):
            decode_upload(held.data, self.limits)
            done = self._told(
                lambda: self._writer.enroll(
                    [held.data], [name], embedder=self._embedder, model=self._writer.filled().model, licence=licence,
                    progress=False,
                )
            )  # fmt: skip
        sha = hash_of_content(held.data)
        photo = next(one for one in self._told(lambda: self._writer.photos(name)) if one.sha256 == sha)
        return Added(photo, bool(done.added), [text.replace("image 0", "this photo") for text in done.warnings])

    def _class_with(self, class_id: int) -> ClassSummary:
        for one in self._told(self._writer.list):
            if one.id == class_id:
                return one
        raise RefusedError(404, f"there is no class {class_id}; it may have been removed")

    def _class_named(self, name: str) -> ClassSummary:
        return next(one for one in self._told(self._writer.list) if one.name == name)

    def _photo(self, gallery: Gallery, photo_id: int) -> Photo:
        # Larger numbers do not fit the table's column.
        if not 0 < photo_id < 2**63:
            raise _no_photo(photo_id)
        try:
            return self._told(lambda: gallery.photos(ids=[photo_id]))[0]
        except RefusedError as error:
            if error.status != 400:
                raise
            raise _no_photo(photo_id) from None

    def _told(self, call: Callable[[], T]) -> T:
        """What goes wrong, for those who do not sit at this machine: without the place of the gallery."""
        try:
            return call()
        except RefusedError:
            raise
        except FieldmarkError as error:
            uri = re.escape(self._reader.uri)
            text = re.sub(rf"gallery {uri}", "the gallery", str(error)).replace(self._reader.uri, self.name)
            status = 503 if _BUSY.search(text) else 507 if "disk is full" in text else 400
            raise RefusedError(status, text) from None


def _no_photo(photo_id: int) -> RefusedError:
    return RefusedError(404, f"there is no photo {photo_id}; it may have been removed")
