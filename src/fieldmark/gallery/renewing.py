"""All photos of a gallery described anew, with another backbone, size or kind of local descriptors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from fieldmark._version import __version__
from fieldmark.data.images import fit_image
from fieldmark.data.sources import open_source
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.gallery.embedder import Embedder
from fieldmark.gallery.enrolling import embed_read
from fieldmark.gallery.incoming import Incoming
from fieldmark.gallery.records import FACTS, Described, Header, Photo, make_rows, now
from fieldmark.gallery.table import ATTEMPTS, Table
from fieldmark.progress import track

Missing = Literal["raise", "thumbnail", "drop"]

_AT_ONCE = 64


def reembed(table: Table, embedder: Embedder, model: str, missing: str, progress: bool) -> dict[str, int]:
    """Describe all photos anew, see :meth:`fieldmark.gallery.Gallery.reembed`."""
    if missing not in get_args(Missing):
        raise unknown_name("missing", missing, get_args(Missing))
    for _ in range(ATTEMPTS):
        table.refresh()
        seen = table.version
        photos = [Photo(**row) for row in table.read(FACTS).select(list(FACTS)).to_pylist()]
        described, counts = _describe(table, photos, embedder, missing, progress)
        with table.writing():
            if table.version != seen:
                continue  # another process wrote in the meantime: those photos too
            kept = [replace(photo, added=now(), fieldmark=__version__) for photo in photos if photo.id in described]
            if not kept:
                raise FieldmarkError(f"no photo of gallery {table.uri} would be left; nothing was changed")
            shapes = {kind: tuple(found.shape) for kind, found in described[kept[0].id].sets.items()}
            header = Header(embedder.identity, model, shapes)
            rows = make_rows(kept, [described[photo.id] for photo in kept], header)
            table.overwrite(rows, table.highest(), header)
        return counts
    raise FieldmarkError(f"gallery {table.uri} is being changed by other processes all the time; try again later")


def _describe(
    table: Table, photos: Sequence[Photo], embedder: Embedder, missing: str, progress: bool
) -> tuple[dict[int, Described], dict[str, int]]:
    """Descriptors by id, and how many came from where."""
    counts = {"files": 0, "thumbnails": 0, "dropped": 0}
    out: dict[int, Described] = {}
    starts = range(0, len(photos), _AT_ONCE)
    for start in track(starts, "describing photos", _AT_ONCE, len(photos), show=progress):
        part = photos[start : start + _AT_ONCE]
        among = ", ".join(str(photo.id) for photo in part)
        stored = table.read(["thumbnail"], f"id IN ({among})")
        thumbnails = dict(zip(stored["id"].to_pylist(), stored["thumbnail"].to_pylist(), strict=True))
        read: list[tuple[str, np.ndarray, int, int]] = []
        for photo in part:
            picture = _original(photo)
            if picture is None and missing == "raise":
                raise FieldmarkError(
                    f"the file of photo {photo.id} ({photo.class_name}: {photo.path or 'it never had one'}) is gone or "
                    "has changed; enroll it again, or say --missing thumbnail (describe the stored picture) or drop"
                )
            counts["files" if picture else "thumbnails" if missing == "thumbnail" else "dropped"] += 1
            if picture is None and missing == "thumbnail":
                picture = Image.open(io.BytesIO(thumbnails[photo.id])).convert("RGB")
            if picture is not None:
                image = fit_image(picture, embedder.size, embedder.fit)
                read.append((str(photo.id), image, photo.width, photo.height))
        if read:
            names = [f"photo {id_}" for id_, *_ in read]
            out |= {int(id_): one for id_, one in embed_read(read, names, embedder).items()}
    return out, counts


def _original(photo: Photo) -> Image.Image | None:
    """The photo from its file, if that is still the same."""
    place, _, inside = photo.path.partition("!") if "!" in photo.path else (photo.path, "", "")
    if not photo.path:
        return None
    try:
        if inside and not Path(photo.path).is_file():
            content = open_source(place).read(inside)
        else:
            content = Path(photo.path).read_bytes()
        one = Incoming(photo.path, photo.path, photo.class_name, lambda: content)
        return one.decode(content) if one.load()[0] == photo.sha256 else None
    except (OSError, ValueError):
        return None
