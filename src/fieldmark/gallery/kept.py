"""Descriptors kept on disk between measurements: a run that was broken off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore
from fieldmark.descriptors import Extractor, Kind
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.features import encode
from fieldmark.gallery.embedder import Embedder
from fieldmark.progress import track
from fieldmark.shapes import Tensor

_AT_ONCE = 128  # images between two writes


class KeptDescriptors:
    """A folder of descriptors, a file for each data set, model and kind.

    Local descriptors are kept in half precision, as a gallery keeps them. One process at a time may write.

    Args:
        folder: Where; made if it is not there.
        encoder: The model.
        extractor: Of local descriptors.
        seed: Of extractors that draw at random.

    Example:
        >>> import tempfile
        >>> from fieldmark import backbones, data
        >>> from fieldmark.descriptors import as_extractor
        >>> glyphs = data.load("glyphs", split="test")
        >>> encoder = backbones.Encoder(backbones.create("conv4"), (0.5,) * 3, (0.3,) * 3)
        >>> kept = KeptDescriptors(tempfile.mkdtemp(), encoder, as_extractor("dense"))
        >>> kept.describe(glyphs, [5, 2], ["pooled"], progress=False)["pooled"].shape
        torch.Size([2, 1, 64])
    """

    def __init__(self, folder: str | Path, encoder: Encoder, extractor: Extractor, seed: int = 0) -> None:
        self.folder, self.encoder, self.extractor, self.seed = Path(folder), encoder, extractor, seed
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FieldmarkError(f"{folder} cannot be made a folder for descriptors ({error.strerror})") from None

    def describe(
        self,
        store: ImageStore,
        numbers: Sequence[int] | np.ndarray,
        kinds: Sequence[Kind],
        batch_size: int | None = None,
        progress: bool = True,
    ) -> dict[str, Tensor]:
        """Descriptors of some images of a store; what is not there yet is made and kept.

        Args:
            store: The images.
            numbers: Which of them.
            kinds: ``"pooled"``, ``"local"``, ``"spatial"``.
            batch_size: Images encoded at a time.
            progress: Show a bar for long work on a terminal.
        """
        numbers, key = np.asarray(numbers), self._key(store)
        done_file = self.folder / f"{key}-done.npy"
        sets: dict[str, np.memmap] = {}
        done = np.zeros(len(store), bool)
        files: dict[str, Path] = {kind: self.folder / f"{key}-{kind}.npy" for kind in kinds}
        if done_file.exists() and all(file.exists() for file in files.values()):
            done = np.load(done_file)
            sets = {kind: np.load(file, mmap_mode="r+") for kind, file in files.items()}
        missing = np.setdiff1d(numbers, np.flatnonzero(done))
        for start in track(range(0, len(missing), _AT_ONCE), "encoding images", show=progress):
            part = missing[start : start + _AT_ONCE]
            found = encode(
                self.encoder, store.subset(part), kinds, descriptors=self.extractor, batch_size=batch_size,
                seed=self.seed, progress=False,
            )  # fmt: skip
            for kind, values in found.items():
                if kind not in sets:
                    dtype = np.float16 if kind == "local" else np.float32
                    shape = (len(store), *values.shape[1:])
                    sets[kind] = np.lib.format.open_memmap(files[kind], "w+", dtype, shape)
                sets[kind][part] = values.numpy()
                sets[kind].flush()
            done[part] = True
            np.save(done_file, done)
        return {kind: torch.from_numpy(np.asarray(sets[kind][numbers], np.float32)) for kind in kinds}

    def _key(self, store: ImageStore) -> str:
        """The same for the same images described in the same way."""
        made = Embedder(self.encoder, store.size, descriptors=self.extractor).identity.to_dict()
        manifest = store.manifest.to_dict()
        facts = json.dumps([made, manifest, self.seed if not self.extractor.from_maps else 0], sort_keys=True)
        return f"{store.manifest.name}-{store.manifest.split}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
