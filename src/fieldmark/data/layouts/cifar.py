"""CIFAR-FS and FC100: the 100 classes of CIFAR-100, from class folders or from torchvision's files."""

from __future__ import annotations

import io
import pickle
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fieldmark.data.layouts.base import CIFAR_STATISTICS, CLASS_SPLITS, DataSet, Root, locate
from fieldmark.data.readers import ImageRecord, read_class_folders
from fieldmark.data.sources import FolderSource, Source, content_digest, open_source
from fieldmark.errors import FieldmarkError

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and plain values; anything else in the file is refused, not run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
        return super().find_class(module, name)


class CifarSource(Source):
    """The 60,000 images of torchvision's ``cifar-100-python`` folder, named "apple/train_00012".

    Args:
        files: The folder or archive that holds it.
        prefix: Where in there ("cifar-100-python/").
    """

    def __init__(self, files: Source, prefix: str) -> None:
        self.path = files.path
        self._files, self._prefix = files, prefix
        self._rows: dict[str, np.ndarray] | None = None

    def names(self) -> list[str]:
        """All files, sorted."""
        return list(self._load())

    def folders(self) -> list[str]:
        """All folders, empty ones included, sorted."""
        return sorted({name.split("/")[0] for name in self._load()})

    def read(self, name: str) -> bytes:
        """The content of a file."""
        if name not in self._load():
            raise FieldmarkError(f"{self.path} holds no image {name!r}")
        return self._load()[name].tobytes()

    def contents(self, names: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """CRC-32 and size of each file in 64 bits."""
        rows = self._load()
        return np.array(
            [content_digest(zlib.crc32(rows[name].tobytes()), rows[name].size) for name in names], np.uint64
        )

    def image(self, name: str) -> Image.Image:
        """The decoded RGB image of a file."""
        planes = self._load()[name].reshape(3, 32, 32)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def fingerprint(self) -> str:
        """A hash of what tells that the files are as before, without reading them."""
        return self._files.fingerprint()

    def _load(self) -> dict[str, np.ndarray]:
        if self._rows is None:
            class_names = [_text(name) for name in self._unpickle("meta")["fine_label_names"]]
            rows: dict[str, np.ndarray] = {}
            for part in ("train", "test"):
                facts = self._unpickle(part)
                for i, (row, label) in enumerate(zip(facts["data"], facts["fine_labels"], strict=True)):
                    rows[f"{class_names[label]}/{part}_{i:05d}"] = row
            self._rows = dict(sorted(rows.items()))
        return self._rows

    def _unpickle(self, name: str) -> dict[str, Any]:
        where = self._files.where(self._prefix + name)
        try:
            facts = _ArraysOnly(io.BytesIO(self._files.read(self._prefix + name)), encoding="bytes").load()
            return {_text(key): value for key, value in facts.items()}
        except FieldmarkError:
            raise
        except Exception as error:
            raise FieldmarkError(f"{where} is not a file of CIFAR-100 ({error}); unpack the archive again") from None


def open_cifar(root: Root) -> Source:
    """Class folders (or a zip of these), or torchvision's folder of three pickled files (unpacked)."""
    files = open_source(root)
    if not isinstance(files, FolderSource):
        return files  # a zip need not be listed before its cached store is found
    prefix = locate(files, "meta")
    names = set(files.names()) if prefix is not None else set()
    if prefix is not None and {f"{prefix}train", f"{prefix}test"} <= names:
        return CifarSource(files, prefix)
    return files


def read_cifar(source: Source) -> list[ImageRecord]:
    """One record an image, whichever form the files have."""
    if isinstance(source, CifarSource):
        return [ImageRecord(name, name.split("/")[0]) for name in source.names()]
    return read_class_folders(source)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_FACTS: dict[str, Any] = {
    "read": read_cifar,
    "opener": open_cifar,
    "classes": 100,
    "images": 60_000,
    "size": 32,
    "splits": CLASS_SPLITS,
    "statistics": CIFAR_STATISTICS,
    "statistics_of": "CIFAR-100's training images",
    "layout": "100 class folders of 600 images (apple, aquarium_fish ...), or torchvision's cifar-100-python",
    "obtain": "CIFAR-100 (python version), train and test merged",
}
DataSet(
    name="cifar_fs",
    summary="CIFAR-100; 64/16/20 classes, drawn at random",
    source="A. Krizhevsky 2009; split of L. Bertinetto et al., ICLR 2019",
    class_list="cifar_fs",
    overlap="same images as FC100 in another split: never train on one and test on the other",
    **_FACTS,
).register()
DataSet(
    name="fc100",
    summary="CIFAR-100; 60/20/20 classes, split by super-class",
    source="A. Krizhevsky 2009; split of B. Oreshkin et al., NeurIPS 2018",
    class_list="fc100",
    overlap="same images as CIFAR-FS in another split: never train on one and test on the other",
    **_FACTS,
).register()
