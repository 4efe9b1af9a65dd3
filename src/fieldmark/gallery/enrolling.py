"""From photos to rows of a gallery: what is new is described, what is known is left alone, all in one commit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from fieldmark._version import __version__
from fieldmark.data.images import fit_image
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.gallery.embedder import Embedder
from fieldmark.gallery.incoming import BadPhotosError, Incoming, collect, copies, hash_all
from fieldmark.gallery.pictures import Pictures
from fieldmark.gallery.records import Described, Header, Photo, make_rows, now, sets_of, to_jpeg
from fieldmark.gallery.table import ATTEMPTS, OvertakenError, Table
from fieldmark.progress import track

OnBad = Literal["raise", "skip"]

_AT_ONCE = 64  # photos that are decoded before they are described
_SPAN = 1000  # photos of the gallery that are read again at a time


@dataclass(frozen=True)
class Spec:
    """How photos are to be enrolled; see :meth:`fieldmark.gallery.Gallery.enroll`."""

    embedder: Embedder
    model: str
    licence: str = ""
    on_bad: OnBad = "raise"
    progress: bool = True


@dataclass(frozen=True)
class Enrolled:
    """What enrolling did.

    Attributes:
        added: Photos that are new.
        changed: Photos whose file has changed since; described anew under their old id.
        unchanged: Photos that were there already.
        skipped: One line for each photo that could not be used.
        classes: Names of classes that are new.
        warnings: What the user should know: the same photo in two classes, an empty folder ...
        ids: Of the photos that were added or changed, in the order they came.
        version: Of the gallery after it.
    """

    added: int
    changed: int = 0
    unchanged: int = 0
    skipped: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    version: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class Known:
    """What a gallery holds already."""

    ids: Mapping[tuple[str, str], int]
    """Class and hash to id."""
    paths: Mapping[tuple[str, str], int]
    """Class and path to id."""
    hashes: Mapping[str, int]
    """Hash to the id of a photo that has it."""
    classes: Mapping[str, int]
    """Name to id."""

    @classmethod
    def of(cls, table: Table) -> Known:
        """Read it."""
        found = table.read(["class_id", "class_name", "sha256", "path"])
        columns = (found[name].to_pylist() for name in ("id", "class_id", "class_name", "sha256", "path"))
        ids: dict[tuple[str, str], int] = {}
        paths: dict[tuple[str, str], int] = {}
        hashes: dict[str, int] = {}
        classes: dict[str, int] = {}
        for id_, class_id, name, sha, path in zip(*columns, strict=True):
            ids.setdefault((name, sha), id_)
            hashes.setdefault(sha, id_)
            classes[name] = min(class_id, classes.get(name, class_id))
            if path:
                paths[name, path] = id_
        return cls(ids, paths, hashes, classes)


@dataclass
class Plan:
    """What is to be done: each photo with its hash, and for those that take another's place its id."""

    new: list[tuple[Incoming, str]] = field(default_factory=list)
    changed: list[tuple[Incoming, str, int]] = field(default_factory=list)
    unchanged: int = 0
    warnings: list[str] = field(default_factory=list)

    def hashes(self) -> list[str]:
        """Of all photos that need a row."""
        return list(dict.fromkeys([sha for _, sha in self.new] + [sha for _, sha, _ in self.changed]))


def make_plan(hashed: Sequence[tuple[Incoming, str]], known: Known) -> Plan:
    """Sort photos into new, changed and unchanged."""
    plan, seen = Plan(), dict[tuple[str, str], str]()
    replaced: set[int] = set()
    for photo, sha in hashed:
        key = photo.class_name, sha
        if key in seen:
            plan.warnings.append(f"{photo.name} is the same photo as {seen[key]}; it is enrolled once")
            continue
        seen[key] = photo.name
        if key in known.ids:
            plan.unchanged += 1
            continue
        old = known.paths.get((photo.class_name, photo.path)) if photo.path else None
        if old is not None and old not in replaced:
            replaced.add(old)
            plan.changed.append((photo, sha, old))
        else:
            plan.new.append((photo, sha))
    spelt = {name.casefold(): name for name in known.classes}
    for name in dict.fromkeys(photo.class_name for photo, _ in hashed):
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            plan.warnings.append(f"classes {other!r} and {name!r} differ only in capitals; they are two classes")
    return plan


def enroll(table: Table, photos: Any, labels: Any, spec: Spec) -> Enrolled:
    """Enroll photos, see :meth:`fieldmark.gallery.Gallery.enroll`."""
    if spec.on_bad not in get_args(OnBad):
        raise unknown_name("on_bad", spec.on_bad, get_args(OnBad))
    incoming, warnings = collect(photos, labels)
    hashed, unreadable = hash_all(incoming, progress=spec.progress)
    bad = dict(unreadable)
    described: dict[str, Described] = {}
    table.refresh()
    for _ in range(ATTEMPTS):
        known = Known.of(table)
        plan = make_plan(hashed, known)
        wanted = [sha for sha in plan.hashes() if sha not in known.hashes and sha not in described]
        _describe(hashed, wanted, described, bad, spec)
        if bad and spec.on_bad == "raise":
            raise BadPhotosError(list(bad.values()), len(incoming))
        hashed = [(photo, sha) for photo, sha in hashed if photo not in bad]
        if not hashed:
            raise BadPhotosError(list(bad.values()), len(incoming))
        with table.writing():
            # Another process may have written since.
            known = Known.of(table)
            plan = make_plan(hashed, known)
            if any(sha not in known.hashes and sha not in described for sha in plan.hashes()):
                continue
            try:
                ids = commit(table, plan, known, described, spec)
            except OvertakenError:
                continue
        warnings += plan.warnings + copies(hashed, known.ids)
        new_classes = dict.fromkeys(photo.class_name for photo, _ in plan.new if photo.class_name not in known.classes)
        return Enrolled(
            len(plan.new), len(plan.changed), plan.unchanged, list(bad.values()), list(new_classes), warnings, ids,
            table.version,
        )  # fmt: skip
    raise FieldmarkError(f"gallery {table.uri} is being changed by other processes all the time; try again later")


def _describe(
    hashed: Sequence[tuple[Incoming, str]],
    wanted: Sequence[str],
    described: dict[str, Described],
    bad: dict[Incoming, str],
    spec: Spec,
) -> None:
    """Fill ``described`` for the wanted hashes; photos that cannot be used go into ``bad``."""
    of: dict[str, list[Incoming]] = {}
    for photo, sha in hashed:
        of.setdefault(sha, []).append(photo)
    size, fit = spec.embedder.size, spec.embedder.fit

    def read(sha: str) -> tuple[np.ndarray, int, int] | FieldmarkError:
        photo = of[sha][0]
        try:
            again, content = photo.load()
            if again != sha:
                raise FieldmarkError(f"{photo.name} was changed while it was being read; try again")
            picture = photo.decode(content)
            return fit_image(picture, size, fit), picture.width, picture.height
        except FieldmarkError as error:
            return error

    starts = range(0, len(wanted), _AT_ONCE)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in track(starts, "describing photos", _AT_ONCE, len(wanted), show=spec.progress):
            part = wanted[start : start + _AT_ONCE]
            good: list[tuple[str, np.ndarray, int, int]] = []
            for sha, found in zip(part, pool.map(read, part), strict=True):
                if isinstance(found, FieldmarkError):
                    bad.update((photo, str(found).replace(of[sha][0].name, photo.name)) for photo in of[sha])
                else:
                    good.append((sha, *found))
            # With a bad photo nothing will be written; the others are only looked at.
            if good and not (bad and spec.on_bad == "raise"):
                described.update(embed_read(good, [of[sha][0].name for sha, *_ in good], spec.embedder))


def embed_read(
    read: Sequence[tuple[str, np.ndarray, int, int]], names: list[str], embedder: Embedder
) -> dict[str, Described]:
    """Descriptors of images by their keys.

    Args:
        read: Key, image ``(H, W, 3)`` at the embedder's size, width and height of the original.
        names: What to call each in messages.
        embedder: Describes them.
    """
    images = np.stack([image for _, image, _, _ in read])
    pictures = Pictures(images, names, np.arange(len(read)), [])
    sets = {kind: found.numpy() for kind, found in embedder.embed(pictures, progress=False).items()}
    with np.errstate(over="ignore"):  # too large a value is refused where the row is made
        sets["local"] = sets["local"].astype(np.float16)
    return {
        sha: Described(to_jpeg(image), width, height, {kind: found[i] for kind, found in sets.items()})
        for i, (sha, image, width, height) in enumerate(read)
    }


def commit(table: Table, plan: Plan, known: Known, described: Mapping[str, Described], spec: Spec) -> list[int]:
    """Write what is planned; returns the ids of new and changed photos. To be called inside ``writing()``."""
    rows = [*plan.changed, *((photo, sha, None) for photo, sha in plan.new)]
    if not rows:
        return []
    table.check(spec.embedder.identity, spec.model)
    have = {sha: described[sha] for sha in plan.hashes() if sha in described}
    copied = {known.hashes[sha]: sha for sha in plan.hashes() if sha not in have}
    for id_, one in read_described(table, list(copied)):
        have[copied[id_]] = one
    header = table.header or Header(spec.embedder.identity, spec.model, _shapes(next(iter(have.values()))))
    fresh = list(dict.fromkeys(photo.class_name for photo, _ in plan.new if photo.class_name not in known.classes))
    count = len(plan.new) + len(fresh)
    first = (table.reserve(count) if count else 0) if table.exists else 1
    numbers = iter(range(first, first + count))
    classes = {**known.classes, **{name: next(numbers) for name in fresh}}
    time = now()
    photos = [
        Photo(
            next(numbers) if old is None else old, classes[photo.class_name], photo.class_name, sha, photo.path, time,
            spec.licence, __version__, have[sha].width, have[sha].height,
        )
        for photo, sha, old in rows
    ]  # fmt: skip
    new_rows = make_rows(photos, [have[photo.sha256] for photo in photos], header)
    if table.exists:
        table.put(new_rows, replacing=bool(plan.changed))
    else:
        table.create(new_rows, first + count - 1, header)
    with contextlib.suppress(FieldmarkError):  # the photos are enrolled, whatever becomes of it
        table.keep_fast()
    return [photo.id for photo in photos]


def read_described(table: Table, ids: Sequence[int], kinds: Sequence[str] | None = None) -> list[tuple[int, Described]]:
    """What was computed of enrolled photos, by id; all kinds of descriptors or only some."""
    out: list[tuple[int, Described]] = []
    for start in range(0, len(ids), _SPAN):
        assert table.header is not None
        shapes = {kind: shape for kind, shape in table.header.shapes.items() if kinds is None or kind in kinds}
        among = ", ".join(map(str, ids[start : start + _SPAN]))
        found = table.read(["thumbnail", "width", "height", *shapes], f"id IN ({among})")
        sets = {kind: sets_of(found[kind], shape) for kind, shape in shapes.items()}
        columns = (found[name].to_pylist() for name in ("id", "thumbnail", "width", "height"))
        for i, (id_, thumbnail, width, height) in enumerate(zip(*columns, strict=True)):
            out.append((id_, Described(thumbnail, width, height, {kind: some[i] for kind, some in sets.items()})))
    return out


def _shapes(one: Described) -> dict[str, tuple[int, int]]:
    return {kind: (int(found.shape[0]), int(found.shape[1])) for kind, found in one.sets.items()}
