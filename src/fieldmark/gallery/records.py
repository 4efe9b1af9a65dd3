"""What a gallery holds of each photo, and how it lies in the table."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fieldmark._version import __version__
from fieldmark.errors import FieldmarkError
from fieldmark.gallery.embedder import Identity

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
"""Version of the tables; a gallery of a newer one is refused."""

KINDS = ("pooled", "local")
FACTS = ("id", "class_id", "class_name", "sha256", "path", "added", "licence", "fieldmark", "width", "height")
COUNTER = 0
"""Id of the row that is no photo: it holds the highest id that was ever given."""

_METADATA_KEY = b"fieldmark"
_QUALITY = 90
_MAX_NAME = 200


@dataclass(frozen=True)
class Photo:
    """An enrolled photo, without its pixels.

    Attributes:
        id: Never changes and is never given again.
        class_id: Of its class; likewise.
        class_name: Name of its class.
        sha256: Of the file's bytes (of the pixels, where there was no file), in hexadecimal.
        path: Where the file was, or "".
        added: When its descriptors were made, in UTC.
        licence: As it was told, or "".
        fieldmark: Version that enrolled it.
        width: Of the original, in pixels.
        height: Likewise.
    """

    id: int
    class_id: int
    class_name: str
    sha256: str
    path: str
    added: datetime.datetime
    licence: str
    fieldmark: str
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "added": self.added.isoformat()}


@dataclass(frozen=True)
class ClassSummary:
    """A class of a gallery.

    Attributes:
        id: Never changes and is never given again.
        name: Its name.
        photos: How many photos it has.
        added: When the newest of them was enrolled, in UTC.
        licences: Of its photos.
    """

    id: int
    name: str
    photos: int
    added: datetime.datetime
    licences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "added": self.added.isoformat(), "licences": list(self.licences)}


@dataclass(frozen=True)
class Described:
    """What enrolling computes of one photo.

    Attributes:
        thumbnail: JPEG of the image as the model saw it.
        width: Of the original, in pixels.
        height: Likewise.
        sets: float32 ``(N, C)`` for each kind of descriptors.
    """

    thumbnail: bytes = field(repr=False)
    width: int
    height: int
    sets: Mapping[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Header:
    """What holds for a whole gallery.

    Attributes:
        identity: What made the descriptors.
        model: Backbone's name or model file that makes the embedder again.
        shapes: ``(N, C)`` of each kind.
        created: When, in UTC, as ISO 8601.
    """

    identity: Identity
    model: str
    shapes: Mapping[str, tuple[int, int]]
    created: str = field(default_factory=lambda: now().isoformat())

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        shapes = {kind: list(shape) for kind, shape in self.shapes.items()}
        return {
            "format": FORMAT, "fieldmark": __version__, "created": self.created, "model": self.model,
            "shapes": shapes, "identity": self.identity.to_dict(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str) -> Header:
        """What :meth:`to_dict` wrote.

        Raises:
            FieldmarkError: Written by a newer version, or by something else.
        """
        if not isinstance(facts.get("format"), int) or facts["format"] > FORMAT:
            raise FieldmarkError(
                f"{where} has format {facts.get('format')}, written by fieldmark {facts.get('fieldmark')}; this version"
                f" ({__version__}) reads up to {FORMAT}: upgrade fieldmark (pip install -U fieldmark)"
            )
        try:
            shapes = {str(kind): (int(shape[0]), int(shape[1])) for kind, shape in facts["shapes"].items()}
            return cls(Identity.from_dict(facts["identity"]), str(facts["model"]), shapes, str(facts["created"]))
        except (KeyError, TypeError, AttributeError, IndexError):
            raise FieldmarkError(f"{where} has no readable description; it was not written by fieldmark") from None


def now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def check_class_name(name: object) -> str:
    """A class name without blanks around it.

    Raises:
        FieldmarkError: Not a text, empty, very long, or with control characters.

    Example:
        >>> check_class_name(" blue tit ")
        'blue tit'
        >>> check_class_name("")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: class name '' is empty; expected 1 to 200 visible characters
    """
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise FieldmarkError(f"class name is of type {type(name).__name__}; expected a text")
    text = name.strip()
    reason = "is empty" if not text else "is too long" if len(text) > _MAX_NAME else ""
    if not reason and not text.isprintable():
        reason = "holds characters that cannot be seen"
    if reason:
        raise FieldmarkError(f"class name {text[:50]!r} {reason}; expected 1 to {_MAX_NAME} visible characters")
    return text


def to_jpeg(image: np.ndarray) -> bytes:
    """An image ``(H, W, 3)`` uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=_QUALITY)
    return buffer.getvalue()


def quoted(text: str) -> str:
    """A text as SQL wants it.

    Example:
        >>> print(quoted("d'Anjou"))
        'd''Anjou'
    """
    return "'" + text.replace("'", "''") + "'"


def make_schema(header: Header) -> pyarrow.Schema:
    """The table's columns; the header is in its metadata, so that it is written in one commit with the rows."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    types: dict[str, pa.DataType] = {"id": whole, "class_id": whole, "class_name": text, "sha256": text, "path": text,
             "added": pa.timestamp("us", tz="UTC"), "licence": text, "fieldmark": text, "width": pa.int32(),
             "height": pa.int32(), "highest": whole, "thumbnail": pa.binary()}  # fmt: skip
    for kind, (nodes, channels) in header.shapes.items():
        # A single vector is what searches run on; of the many, half precision is enough and takes half the room.
        types[kind] = pa.list_(pa.float32() if kind == "pooled" else pa.float16(), nodes * channels)
    fields = [pa.field(name, kind, nullable=name != "id") for name, kind in types.items()]
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(header.to_dict()).encode()})


def read_header(schema: pyarrow.Schema, where: str) -> Header:
    """The header of a table.

    Raises:
        FieldmarkError: The table is none of ours, or newer.
    """
    text = (schema.metadata or {}).get(_METADATA_KEY)
    try:
        facts = json.loads(text) if text else {}
    except ValueError:
        facts = {}
    if not isinstance(facts, dict) or not facts:
        raise FieldmarkError(f"{where} holds a table 'images' that is no gallery of fieldmark; give another folder")
    return Header.from_dict(facts, where)


def make_rows(photos: Sequence[Photo], described: Sequence[Described], header: Header) -> pyarrow.Table:
    """Rows of photos.

    Raises:
        FieldmarkError: Descriptors of another shape than the gallery's, or too large for half precision.
    """
    import pyarrow as pa

    schema = make_schema(header)
    columns: dict[str, Any] = {name: [getattr(photo, name) for photo in photos] for name in FACTS}
    columns["highest"] = pa.nulls(len(photos), pa.int64())
    columns["thumbnail"] = [one.thumbnail for one in described]
    for kind, shape in header.shapes.items():
        type_ = schema.field(kind).type
        odd = next((one.sets[kind].shape for one in described if tuple(one.sets[kind].shape) != shape), None)
        if odd is not None:
            raise FieldmarkError(f"{kind} descriptors have shape {odd}; this gallery holds {shape}")
        values = np.empty((len(described), shape[0] * shape[1]), np.float32 if kind == "pooled" else np.float16)
        with np.errstate(over="ignore"):
            for row, one in zip(values, described, strict=True):
                row[:] = one.sets[kind].reshape(-1)
        if not np.isfinite(values).all():
            raise FieldmarkError(
                f"{kind} descriptors are larger than half precision can hold (65504); the model's features are damaged"
            )
        columns[kind] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type_.list_size)
    return pa.table(columns, schema=schema)


def counter_row(highest: int, header: Header) -> pyarrow.Table:
    """The row that remembers the highest id."""
    import pyarrow as pa

    schema = make_schema(header)
    values: dict[str, Any] = {"id": COUNTER, "highest": highest}
    # LanceDB refuses rows without a vector; every search leaves this row out.
    values |= {kind: [1.0] + [0.0] * (nodes * channels - 1) for kind, (nodes, channels) in header.shapes.items()}
    return pa.table({one.name: pa.array([values.get(one.name)], one.type) for one in schema}, schema=schema)


def sets_of(column: pyarrow.ChunkedArray, shape: tuple[int, int]) -> np.ndarray:
    """A column of descriptors as ``(M, N, C)`` of its own precision."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return values.reshape(len(column), *shape)
