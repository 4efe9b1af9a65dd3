"""The table under a gallery: opened, read and changed, each change in one commit.

LanceDB commits a table by renaming one manifest, so a process that is killed leaves the table as it was or as it should
be. All that a gallery knows is therefore in one table: photos, classes (columns of the photos), what made the
descriptors (metadata of the schema) and the highest id (a row of its own).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery.records import COUNTER, Header, counter_row, make_schema, read_header

if TYPE_CHECKING:
    import pyarrow

    from fieldmark.gallery.embedder import Identity

TABLE = "images"
LOCK = "writer.lock"
ATTEMPTS = 50
"""How often a change is tried while other processes change the same rows."""

WAIT = 600.0
"""Seconds to wait for another process that is writing."""

KEEP = datetime.timedelta(days=1)
"""How long old versions are kept for those who are still reading them."""

LARGE = 20_000
"""Photos from which on searches go through an index."""

INDEXED = 0.8
"""Share of the photos that must be in it; the others are compared one by one."""

MANY_FRAGMENTS = 40

_CONFLICT = re.compile(r"conflict|concurrent|too many attempts|retry", re.IGNORECASE)
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class OvertakenError(FieldmarkError):
    """Another process was quicker."""


class Table:
    """One table at a place that may be a folder or object storage.

    Args:
        uri: A folder, or what LanceDB takes: ``s3://...``, ``gs://...``, ``az://...``.
        create: Whether there may be none yet.
        storage_options: Handed to LanceDB.

    Raises:
        FieldmarkError: No gallery there (and not ``create``), something else there, or it cannot be read.
    """

    def __init__(
        self, uri: str | os.PathLike[str], create: bool = False, storage_options: Mapping[str, str] = _NO_OPTIONS
    ) -> None:
        self.uri = os.fspath(uri)
        self.local = "://" not in self.uri
        if self.local:
            _check_folder(Path(self.uri), create)
        lancedb = _lancedb()
        with self.translated("open"):
            self._base = lancedb.connect(self.uri, storage_options=dict(storage_options) or None)
            self._table = self._open()
        if self._table is None and not create:
            raise _no_gallery(self.uri)
        self.header: Header | None = None
        self.refresh()

    @property
    def exists(self) -> bool:
        """Whether anything was ever enrolled."""
        return self._table is not None

    @property
    def version(self) -> int:
        """Number of the commit that is being looked at; 0 when there is no table."""
        return 0 if self._table is None else int(self._table.version)

    def refresh(self) -> None:
        """Look at the newest commit, whoever made it."""
        with self.translated("read"):
            if self._table is None:
                self._table = self._open()
            else:
                self._table.checkout_latest()
        self.header = None if self._table is None else read_header(self._table.schema, f"gallery {self.uri}")

    def check(self, identity: Identity, name: str) -> None:
        """Refuse descriptors of another identity than the gallery's.

        Args:
            identity: What made them.
            name: Backbone's name or model file, for the way out.

        Raises:
            FieldmarkError: What differs, and the ways out.
        """
        differences = [] if self.header is None else self.header.identity.differences(identity)
        if differences:
            assert self.header is not None
            raise FieldmarkError(
                f"gallery {self.uri} was made with another model: {'; '.join(differences)}; leave --backbone out to "
                f"use the gallery's own ({self.header.model}), enroll into a new gallery, or bring this one over: "
                f"fieldmark gallery reembed --backbone {name} --gallery {self.uri}"
            )

    def read(self, columns: Sequence[str], where: str = "") -> pyarrow.Table:
        """Columns of the photos that fulfil a condition, by id; ``id`` is always among them."""
        import pyarrow as pa

        names = list(dict.fromkeys(["id", *columns]))
        if self._table is None:
            return pa.table({name: pa.array([], pa.int64() if name == "id" else pa.string()) for name in names})
        condition = f"id > {COUNTER}" + (f" AND ({where})" if where else "")
        with self.translated("read"):
            return self._table.search().where(condition).select(names).limit(None).to_arrow().sort_by("id")

    def nearest(
        self, vector: Any, column: str, limit: int, *, exact: bool, probes: int | None = None
    ) -> tuple[list[int], list[float]]:
        """Ids of the nearest photos by cosine distance, nearest first, and the distances.

        Args:
            vector: ``(C,)``.
            column: Which descriptors.
            limit: How many.
            exact: Whether to compare with all, even where there is an index.
            probes: Parts of the index that are looked into; default: LanceDB's.
        """
        if self._table is None:
            return [], []
        with self.translated("search"):
            query = self._table.search(vector, vector_column_name=column).distance_type("cosine")
            query = query.where(f"id > {COUNTER}", prefilter=True).select(["id", "_distance"]).limit(limit)
            if exact:
                query = query.bypass_vector_index()
            elif probes is not None:
                query = query.nprobes(probes)
            found = query.to_arrow()
        return found["id"].to_pylist(), found["_distance"].to_pylist()

    def count(self) -> int:
        """How many photos there are."""
        if self._table is None:
            return 0
        with self.translated("read"):
            return self._table.count_rows(f"id > {COUNTER}")

    # Changes: each is to be called inside `writing()`.

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers of a local gallery out, and look at the newest commit.

        The lock is the operating system's: it ends with the process, however that ends. On object storage there is
        none: there ids stay unique and every change whole, but two processes that enroll the same photo at the same
        moment both add it.

        Raises:
            FieldmarkError: Another process has been writing for ten minutes.
        """
        with contextlib.ExitStack() as stack:
            if self.local:
                stack.enter_context(self._locked())
            self.refresh()
            yield

    def reserve(self, count: int) -> int:
        """Take the next ids for good; returns the first of them.

        A commit of its own, that nobody sees but in gaps between ids. It compares and sets: of two processes that read
        the same number only one changes it.
        """
        assert self._table is not None
        for _ in range(ATTEMPTS):
            highest = self.highest()
            with self.translated("write", retry=True):
                done = self._table.update(
                    where=f"id = {COUNTER} AND highest = {highest}", values={"highest": highest + count}
                )
                if done.rows_updated == 1:
                    return highest + 1
            self.refresh()
        raise self._too_busy()

    def highest(self) -> int:
        """The highest id ever given."""
        assert self._table is not None
        found = self._table.search().where(f"id = {COUNTER}").select(["highest"]).limit(1).to_arrow()
        if len(found) != 1:
            raise FieldmarkError(
                f"gallery {self.uri} is damaged: its counter of ids is missing; import an export of it"
            )
        return int(found["highest"][0].as_py())

    def create(self, rows: pyarrow.Table, highest: int, header: Header) -> None:
        """Make the table with its first rows.

        Raises:
            OvertakenError: Another process made it a moment ago; look again.
        """
        with self.translated("write"):
            whole = _joined(counter_row(highest, header), rows)
            try:
                self._table = self._base.create_table(TABLE, data=whole, schema=make_schema(header), mode="create")
            except ValueError as error:
                if "already exists" in str(error):
                    raise OvertakenError(f"another process has just made gallery {self.uri}; try again") from None
                raise
        self.header = header

    def overwrite(self, rows: pyarrow.Table, highest: int, header: Header) -> None:
        """Replace all rows, and what holds for all of them."""
        with self.translated("write"):
            whole = _joined(counter_row(highest, header), rows)
            self._base.create_table(TABLE, data=whole, schema=make_schema(header), mode="overwrite")
        self.refresh()

    def put(self, rows: pyarrow.Table, replacing: bool) -> None:
        """Add rows; with ``replacing``, those whose id is there already take the place of the old ones."""
        assert self._table is not None

        def put() -> None:
            assert self._table is not None
            if replacing:
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(rows)
            else:
                self._table.add(rows)

        self._retried(put)

    def update(self, where: str, values: Mapping[str, Any]) -> int:
        """Change columns of the photos that fulfil a condition; returns how many they are."""
        condition = f"id > {COUNTER} AND ({where})"
        return self._retried(lambda: self._table.update(where=condition, values=dict(values)).rows_updated)

    def delete(self, where: str) -> None:
        """Remove the photos that fulfil a condition."""
        self._retried(lambda: self._table.delete(f"id > {COUNTER} AND ({where})"))

    def tidy(self, keep: datetime.timedelta = KEEP) -> None:
        """Merge small files, drop old versions, and what a killed process left half-written."""
        if self._table is None:
            return
        with warnings.catch_warnings(), self.translated("tidy up"):
            warnings.filterwarnings("ignore", message="optimize", category=UserWarning)
            # Nobody else can be in the middle of writing a local gallery: this process holds its lock.
            self._table.optimize(cleanup_older_than=keep, delete_unverified=self.local)
        if self.local:
            for left in Path(self.uri).rglob(".tmp*"):
                left.unlink(missing_ok=True)

    def keep_fast(self) -> None:
        """Tidy up after many small changes, and keep the index of a large gallery up to date."""
        assert self._table is not None
        if int(self._table.stats()["fragment_stats"]["num_small_fragments"]) > MANY_FRAGMENTS:
            self.tidy()
        count = self.count()
        if count >= LARGE and self.indexed("pooled") < count * INDEXED:
            self.build_index("pooled", max(1, math.isqrt(count)))

    def build_index(self, column: str, partitions: int) -> None:
        """An index for searches by cosine distance."""
        from lancedb.index import IvfFlat

        assert self._table is not None
        table, how = self._table, IvfFlat(distance_type="cosine", num_partitions=partitions)
        self._retried(lambda: table.create_index(column, config=how))

    def indexed(self, column: str) -> int:
        """How many photos are in the index of a column; 0 when there is none."""
        if self._table is None:
            return 0
        with self.translated("read"):
            for index in self._table.list_indices():
                if column in index.columns:
                    stats = self._table.index_stats(index.name)
                    return 0 if stats is None else int(stats.num_indexed_rows)
        return 0

    @contextlib.contextmanager
    def translated(self, verb: str, retry: bool = False) -> Iterator[None]:
        """Whatever LanceDB raises, as one line; with ``retry``, conflicts with other writers are passed over."""
        try:
            yield
        except FieldmarkError:
            raise
        except Exception as error:
            if retry and _CONFLICT.search(str(error)):
                return
            raise self._failure(verb, error) from error

    def _retried(self, change: Any) -> Any:
        for _ in range(ATTEMPTS):
            with self.translated("write", retry=True):
                return change()
            self.refresh()
        raise self._too_busy()

    def _failure(self, verb: str, error: Exception) -> FieldmarkError:
        text = " ".join(str(error).split())
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
            return FieldmarkError(
                f"the disk is full: gallery {self.uri} was not changed; free some space and try again"
            )
        if "ermission denied" in text or "ead-only" in text:
            return FieldmarkError(f"cannot {verb} gallery {self.uri}: permission denied")
        return FieldmarkError(f"cannot {verb} gallery {self.uri}: {text[:200] or type(error).__name__}")

    def _too_busy(self) -> FieldmarkError:
        return FieldmarkError(f"gallery {self.uri} is being changed by other processes all the time; try again later")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            os.makedirs(self.uri, exist_ok=True)
            lock = FileLock(os.path.join(self.uri, LOCK))
            lock.acquire(timeout=WAIT)
        except Timeout:
            raise FieldmarkError(
                f"another process has been writing to gallery {self.uri} for {WAIT / 60:.0f} minutes; try again later"
            ) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FieldmarkError(f"cannot write to gallery {self.uri}: {reason}") from None
        try:
            yield
        finally:
            lock.release()

    def _open(self) -> Any:
        try:
            return self._base.open_table(TABLE)
        except (ValueError, FileNotFoundError) as error:
            if "not found" in str(error):
                return None
            raise


def _joined(first: pyarrow.Table, rows: pyarrow.Table) -> pyarrow.Table:
    import pyarrow as pa

    return pa.concat_tables([first, rows.replace_schema_metadata(first.schema.metadata)])


def _lancedb() -> Any:
    # Its notes for developers are no messages of ours.
    for name in ("LANCE_LOG", "LANCEDB_LOG"):
        os.environ.setdefault(name, "error")
    try:
        import lancedb
    except ImportError:
        raise MissingExtraError("lancedb", "gallery", "a gallery") from None
    return lancedb


def _check_folder(folder: Path, create: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FieldmarkError(f"gallery {folder} is a file; expected a folder that `fieldmark enroll` made")
    if (folder / f"{TABLE}.lance").is_dir():
        return
    if not create:
        raise _no_gallery(folder)
    try:
        others = [] if not folder.exists() else [name for name in os.listdir(folder) if name != LOCK]
    except OSError as error:
        raise FieldmarkError(f"cannot read folder {folder}: {error.strerror}") from None
    if others:
        raise FieldmarkError(
            f"folder {folder} holds other files ({sorted(others)[0]}) and no gallery; give a new or empty folder"
        )


def _no_gallery(place: object) -> FieldmarkError:
    return FieldmarkError(f"no gallery at {place}; make one: fieldmark enroll FOLDER --gallery {place}")
