"""Photos described by Ray Data: on one machine, or on a cluster whose workers see the same files."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.allocation import keep_freed_memory
from fieldmark.errors import FieldmarkError, MissingExtraError
from fieldmark.gallery.incoming import Incoming
from fieldmark.gallery.records import Described

if TYPE_CHECKING:
    from fieldmark.gallery.bulk import Item, Outcome
    from fieldmark.gallery.embedder import Embedder

_KINDS = {"pooled": np.float32, "local": np.float16}  # as the gallery keeps them


class Describer:
    """A worker: opens the model once, then describes batches of rows (sha256, name, path).

    Args:
        model: The embedder in Ray's object store.
    """

    def __init__(self, model: Any) -> None:
        import ray
        import torch

        keep_freed_memory()
        torch.set_num_threads(1)  # there is a worker for each processor
        self.embedder: Embedder = ray.get(model) if isinstance(model, ray.ObjectRef) else model

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows of descriptors as bytes; where a photo is bad, the reason instead."""
        from fieldmark.gallery.bulk import describe_files

        items = [
            (str(sha), Incoming(str(name), str(path), "", Path(str(path)).read_bytes))
            for sha, name, path in zip(batch["sha"], batch["name"], batch["path"], strict=True)
        ]
        columns: dict[str, list[Any]] = {key: [] for key in ("sha", "problem", "facts", "thumbnail", *_KINDS)}
        for sha, found in describe_files(items, self.embedder):
            problem, facts, thumbnail, sets = "", "", b"", dict.fromkeys(_KINDS, b"")
            if isinstance(found, str):
                problem = found
            else:
                shapes = [size for kind in _KINDS for size in found.sets[kind].shape]
                facts = " ".join(map(str, (found.width, found.height, *shapes)))
                thumbnail = found.thumbnail
                sets = {kind: found.sets[kind].astype(type_).tobytes() for kind, type_ in _KINDS.items()}
            for key, value in {"sha": sha, "problem": problem, "facts": facts, "thumbnail": thumbnail, **sets}.items():
                columns[key].append(value)
        return {key: np.array(values, dtype=object) for key, values in columns.items()}


def describe_by_ray(items: Sequence[Item], embedder: Embedder) -> Iterator[Outcome]:
    """Hashes with descriptors, or with the reason why there are none, in the order in which they are done.

    Uses the cluster that ``RAY_ADDRESS`` names, or begins one on this machine, which ends with the job.

    Args:
        items: Photos with their hashes; files.
        embedder: Is sent to the workers.

    Raises:
        MissingExtraError: Ray is not installed.
        FieldmarkError: Photos that are no files, or a failure of Ray.
    """
    if not items:
        return
    other = next((photo.name for _, photo in items if not os.path.isfile(photo.path)), None)
    if other is not None:
        raise FieldmarkError(
            f"{other} is no file of its own, and Ray's workers read files; unpack it, or use --engine local"
        )
    ray = _ray()
    began = not ray.is_initialized()
    try:
        if began:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="lancedb fork support")  # Ray begins other programs
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield from _rows(ray, items, embedder)
    except FieldmarkError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise FieldmarkError(f"Ray failed ({type(error).__name__}): {text[-200:]}; run the command again") from error
    finally:
        if began:
            ray.shutdown()


def _rows(ray: Any, items: Sequence[Item], embedder: Embedder) -> Iterator[Outcome]:
    from fieldmark.gallery.bulk import AT_ONCE

    workers = max(1, min(math.ceil(len(items) / AT_ONCE), int(ray.cluster_resources().get("CPU", 1))))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"sha": sha, "name": photo.name, "path": photo.path} for sha, photo in items]
    # One block goes to one worker: without enough of them most workers would stand idle.
    blocks = math.ceil(len(rows) / AT_ONCE)
    data = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Describer, fn_constructor_args=(ray.put(embedder),), batch_size=AT_ONCE, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
    )  # fmt: skip
    yield from map(described_of, data.iter_rows())


def described_of(row: Mapping[str, Any]) -> Outcome:
    """What a worker's row says."""
    if row["problem"]:
        return str(row["sha"]), str(row["problem"])
    width, height, *shapes = map(int, row["facts"].split())
    sets = {
        kind: np.frombuffer(row[kind], type_).reshape(shapes[2 * i], shapes[2 * i + 1])
        for i, (kind, type_) in enumerate(_KINDS.items())
    }
    return str(row["sha"]), Described(bytes(row["thumbnail"]), width, height, sets)


def _ray() -> Any:
    # It would speak of changes to come in an option that is not used here.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import ray
            import ray.data
        except ImportError:
            raise MissingExtraError("ray[data]", "ray", "--engine ray") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
