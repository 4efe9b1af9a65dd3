"""Very many photos into a gallery: written in shards as they are done, so that a job that was killed goes on.

Photos are hashed, those that the gallery holds already are passed over, and the others are described shard by shard;
each shard is one commit. Whatever kills the job, the shards that are written stay, and the same command goes on with
the rest: at most the shard that was being worked on is described again. Bad photos are collected and told at the end.

``engine="ray"`` gives the describing to Ray Data, on one machine or a cluster; the shards are committed by this
process in either case, and the descriptors are the same.

Example:
    >>> import tempfile, numpy as np
    >>> from fieldmark import backbones
    >>> from fieldmark.gallery import Embedder, Gallery
    >>> shots = [np.full((40, 40, 3), value, np.uint8) for value in range(5)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gallery = Gallery.open(folder, create=True)
    ...     done = enroll_in_shards(gallery, shots, "grey", embedder=Embedder(backbones.create("pixels")), shard=2)
    >>> done.added, done.shards
    (5, 3)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fieldmark.data.images import fit_image
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.files import write_beside
from fieldmark.gallery.embedder import Embedder
from fieldmark.gallery.enrolling import Known, Plan, Spec, commit, embed_read, make_plan
from fieldmark.gallery.incoming import BadPhotosError, Incoming, collect, copies, hash_all
from fieldmark.gallery.records import Described
from fieldmark.gallery.table import ATTEMPTS, OvertakenError, Table
from fieldmark.progress import track

if TYPE_CHECKING:
    from fieldmark.gallery.store import Gallery

Engine = Literal["local", "ray"]
Item = tuple[str, Incoming]
"""Hash and photo."""

Outcome = tuple[str, Described | str]
"""Hash, and what was described or why it could not be."""

SHARD = 256
"""Photos a commit."""

AT_ONCE = 64
"""Photos that are decoded before they are described."""


@dataclass
class BulkDone:
    """What a job did, this time.

    Attributes:
        added: Photos that are new.
        changed: Photos whose file has changed since.
        unchanged: Photos that were there already, as after a job that was killed.
        shards: Commits.
        skipped: A line for each photo that could not be used.
        classes: Names of classes that are new.
        warnings: As of :class:`~fieldmark.gallery.enrolling.Enrolled`.
        version: Of the gallery after it.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    shards: int = 0
    skipped: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    version: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dict(vars(self))

    def write_bad(self, path: str | os.PathLike[str]) -> None:
        """The bad photos into a text file, a line each; without any, a file of an earlier run is removed."""
        if self.skipped:
            lines = "".join(" ".join(line.split()) + "\n" for line in self.skipped)
            write_beside(os.fspath(path), lambda file: file.write(lines.encode("utf-8", "replace")))
        elif os.path.isfile(path):
            os.remove(path)


def enroll_in_shards(
    gallery: Gallery,
    photos: Any,
    labels: Any = None,
    *,
    embedder: Embedder | None = None,
    model: str | None = None,
    licence: str = "",
    engine: Engine = "local",
    shard: int = SHARD,
    progress: bool = True,
) -> BulkDone:
    """Enroll many photos, a shard at a time; call it again with the same to go on after a kill.

    Args:
        gallery: Where they go.
        photos: As of :meth:`Gallery.enroll`; for ``"ray"`` files that every worker can read.
        labels: Likewise.
        embedder: Likewise.
        model: Likewise.
        licence: Likewise.
        engine: ``"local"``, in this process, or ``"ray"`` (extra ``ray``).
        shard: Photos a commit.
        progress: Show bars for long work on a terminal.

    Raises:
        BadPhotosError: No photo at all can be used.
        FieldmarkError: Unknown engine, an embedder that does not fit the gallery, a write that fails.
    """
    if engine not in get_args(Engine):
        raise unknown_name("engine", engine, get_args(Engine))
    if shard < 1:
        raise FieldmarkError(f"shard is {shard}; expected at least 1 photo")
    embedder, model = gallery.chosen(embedder, model)
    spec = Spec(embedder, model, licence, "skip", progress)
    incoming, warnings = collect(photos, labels)
    hashed, unreadable = hash_all(incoming, progress=progress)
    table, job = gallery.refresh().table, _Job(gallery.table, spec, hashed)
    known = Known.of(table)
    plan = make_plan(hashed, known)
    done = job.done
    done.unchanged, done.warnings = plan.unchanged, warnings + plan.warnings + copies(hashed, known.ids)
    done.skipped = [problem for _, problem in unreadable]
    wanted = {sha: photo for photo, sha in reversed(hashed)}
    todo = [(sha, wanted[sha]) for sha in plan.hashes() if sha not in known.hashes]
    describe = _describer(engine, embedder)
    bar = track(describe(todo), "describing photos", total=len(todo), show=progress)
    for sha, found in bar:
        job.take(sha, found)
        if len(job.waiting) >= shard:
            job.commit()
    job.commit(rest=True)
    if incoming and len(done.skipped) == len(incoming):
        raise BadPhotosError(done.skipped, len(incoming))
    done.version = table.version
    return done


class _Job:
    """What is described and waits to be committed."""

    def __init__(self, table: Table, spec: Spec, hashed: Sequence[tuple[Incoming, str]]) -> None:
        self.table, self.spec, self.done = table, spec, BulkDone()
        self.waiting: dict[str, Described] = {}
        self.photos: dict[str, list[Incoming]] = {}
        for photo, sha in hashed:
            self.photos.setdefault(sha, []).append(photo)

    def take(self, sha: str, found: Described | str) -> None:
        """A photo is described, or bad."""
        if isinstance(found, str):
            photos = self.photos.pop(sha)
            self.done.skipped += [found.replace(photos[0].name, photo.name) for photo in photos]
        else:
            self.waiting[sha] = found

    def commit(self, rest: bool = False) -> None:
        """Write the photos that wait; with ``rest`` also those that are known, but in another class."""
        chosen = list(self.photos) if rest else list(self.waiting)
        hashed = [(photo, sha) for sha in chosen for photo in self.photos[sha]]
        for _ in range(ATTEMPTS):
            with self.table.writing():
                known = Known.of(self.table)  # another process may have written since
                plan = make_plan(hashed, known)
                if not (plan.new or plan.changed):
                    break
                self._check(plan, known)
                try:
                    commit(self.table, plan, known, self.waiting, self.spec)
                except OvertakenError:
                    continue
            fresh = dict.fromkeys(photo.class_name for photo, _ in plan.new if photo.class_name not in known.classes)
            self.done.added += len(plan.new)
            self.done.changed += len(plan.changed)
            self.done.shards += 1
            self.done.classes += fresh
            break
        else:
            raise FieldmarkError(f"gallery {self.table.uri} is being changed by other processes all the time")
        for sha in chosen:
            del self.photos[sha]
        self.waiting.clear()

    def _check(self, plan: Plan, known: Known) -> None:
        if any(sha not in known.hashes and sha not in self.waiting for sha in plan.hashes()):
            raise FieldmarkError(
                f"another process removed photos of gallery {self.table.uri} during this job; run the command again"
            )


def describe_files(items: Sequence[Item], embedder: Embedder, pool: ThreadPoolExecutor | None = None) -> list[Outcome]:
    """Descriptors of some photos, in their order; what both engines call.

    Args:
        items: Photos with the hashes that they had.
        embedder: Describes them.
        pool: To decode several at a time.
    """

    def read(item: Item) -> tuple[str, np.ndarray, int, int] | str:
        sha, photo = item
        try:
            again, content = photo.load()
            if again != sha:
                return f"{photo.name} was changed while it was being read; run the command again"
            picture = photo.decode(content)
            return sha, fit_image(picture, embedder.size, embedder.fit), picture.width, picture.height
        except FieldmarkError as error:
            return str(error)

    found = list(pool.map(read, items) if pool else map(read, items))
    good = [one for one in found if not isinstance(one, str)]
    names = [photo.name for (_, photo), one in zip(items, found, strict=True) if not isinstance(one, str)]
    described = embed_read(good, names, embedder) if good else {}
    return [(sha, one if isinstance(one, str) else described[sha]) for (sha, _), one in zip(items, found, strict=True)]


def _describer(engine: Engine, embedder: Embedder) -> Callable[[Sequence[Item]], Iterable[Outcome]]:
    if engine == "ray":
        from fieldmark.gallery.bulk_ray import describe_by_ray

        return lambda items: describe_by_ray(items, embedder)
    return lambda items: _describe_here(items, embedder)


def _describe_here(items: Sequence[Item], embedder: Embedder) -> Iterator[Outcome]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), AT_ONCE):
            yield from describe_files(items[start : start + AT_ONCE], embedder, pool)
