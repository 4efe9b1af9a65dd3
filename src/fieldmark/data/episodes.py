"""Few-shot episodes as plain index arrays: drawn once from their own seed, saved, and the same for every method."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside

_KEYS_AT_ONCE = 4_000_000  # random numbers held at a time while drawing


@dataclass(frozen=True, eq=False)
class EpisodeIndex:
    """Which images are support and which are query, for every episode.

    Attributes:
        classes: ``(E, way)`` class numbers in the data set; column ``j`` is label ``j`` inside the episode.
        support: ``(E, S)`` image numbers in the (support) store.
        support_labels: ``(E, S)`` labels 0 to way - 1.
        query: ``(E, Q)`` image numbers in the (query) store.
        query_labels: ``(E, Q)`` labels 0 to way - 1.
        facts: How they were drawn (way, shot, queries, seed ...), for the record.
    """

    classes: np.ndarray
    support: np.ndarray
    support_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray
    facts: dict[str, Any]

    _ARRAYS = ("classes", "support", "support_labels", "query", "query_labels")

    def __post_init__(self) -> None:
        for name in self._ARRAYS:
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.int64))
        episodes = {getattr(self, name).shape[0] for name in self._ARRAYS}
        if len(episodes) != 1 or self.support.shape != self.support_labels.shape:
            raise FieldmarkError("episode arrays disagree in their number of episodes or images")
        if self.query.shape != self.query_labels.shape:
            raise FieldmarkError("episode arrays disagree in their number of query images")

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, chosen: slice) -> EpisodeIndex:
        arrays = {name: getattr(self, name)[chosen] for name in self._ARRAYS}
        return EpisodeIndex(**arrays, facts={**self.facts, "episodes": len(arrays["classes"])})

    @classmethod
    def given(cls, source: str, **arrays: np.ndarray) -> EpisodeIndex:
        """Episodes that a data set brings with it, with the facts read off them.

        Args:
            source: Who brings them.
            arrays: The array attributes.
        """
        episodes, way = arrays["classes"].shape
        facts = {"way": way, "shot": arrays["support"].shape[1] // way, "queries": arrays["query"].shape[1] // way}
        return cls(**arrays, facts={**facts, "episodes": episodes, "source": source})

    @property
    def way(self) -> int:
        """Number of classes in an episode."""
        return self.classes.shape[1]

    @property
    def hash(self) -> str:
        """SHA-256 of all the arrays: equal hashes mean the very same episodes."""
        digest = hashlib.sha256()
        for name in self._ARRAYS:
            array = getattr(self, name)
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the episodes to a compressed ``.npz`` file (beside, then renamed)."""
        path = Path(path)
        arrays: dict[str, Any] = {name: _smallest(getattr(self, name)) for name in self._ARRAYS}
        facts = np.array(json.dumps(self.facts))

        def write(file):
            np.savez_compressed(file, facts=facts, **arrays)

        return write_beside(path, write)

    @classmethod
    def load(cls, path: str | Path) -> EpisodeIndex:
        """Read episodes that :meth:`save` wrote.

        Raises:
            FieldmarkError: If the file is missing or is not an episode file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in cls._ARRAYS}
                return cls(**arrays, facts=json.loads(str(file["facts"])))
        except FileNotFoundError:
            raise FieldmarkError(f"no episode file at {path}") from None
        except (KeyError, ValueError, OSError) as error:
            raise FieldmarkError(
                f"{path} is not an episode file (expected one written by --save-episodes): {error}"
            ) from None

    def require_fits(self, support_images: int, query_images: int) -> None:
        """Refuse episodes that point outside the data they are to be used with."""
        for part, images in (("support", support_images), ("query", query_images)):
            highest = int(getattr(self, part).max(initial=-1))
            if highest >= images:
                raise FieldmarkError(
                    f"the episodes name {part} image {highest}, but the data has {images}; "
                    "use the data set and split they were drawn from"
                )


def draw_episodes(
    labels: np.ndarray,
    way: int | None = 5,
    shot: int = 1,
    queries: int | None = 15,
    episodes: int = 600,
    seed: int = 0,
    query_labels: np.ndarray | None = None,
    class_names: list[str] | None = None,
) -> EpisodeIndex:
    """Draw episodes from their own generator, so that they depend on the labels and the seed alone.

    The first episodes of a longer draw are those of a shorter one.

    Args:
        labels: ``(N,)`` class number of every image.
        way: Classes an episode; ``None`` takes every class, in order.
        shot: Support images a class.
        queries: Query images a class, none of them in the support; ``None`` (only with ``query_labels``) takes all.
        episodes: How many episodes.
        seed: Seed of the draw.
        query_labels: ``(M,)`` class numbers of a second set of images; the queries are then drawn from that set.
        class_names: For messages only.

    Raises:
        FieldmarkError: If there are too few classes, or too few images in a class.

    Example:
        >>> index = draw_episodes(np.repeat(np.arange(10), 20), way=5, shot=2, queries=3, episodes=4, seed=1)
        >>> index.support.shape, index.query.shape
        ((4, 10), (4, 15))
        >>> index.hash == draw_episodes(np.repeat(np.arange(10), 20), 5, 2, 3, 4, seed=1).hash
        True
    """
    for name, value, least in (("shot", shot, 1), ("episodes", episodes, 1), ("queries", queries, 1), ("way", way, 2)):
        if value is not None and value < least:
            raise FieldmarkError(f"{name} is {value}; expected at least {least}")
    if queries is None and query_labels is None:
        raise FieldmarkError(
            "queries 'all' needs a support split of its own, or no image would be left for the support"
        )
    if queries is None and way is not None:
        raise FieldmarkError("queries 'all' needs way 'all': the number of query images would differ by episode")
    pools = _pools(np.asarray(labels))
    query_pools = None if query_labels is None else _pools(np.asarray(query_labels))
    present = sorted(pools if query_pools is None else set(pools) & set(query_pools))
    count = len(present) if way is None else way
    if len(present) < count:
        raise FieldmarkError(f"{count}-way episodes need {count} classes; the data has {len(present)}")
    if query_pools is None:
        _require_images(pools, present, shot + (queries or 0), "shot + queries", class_names)
    else:
        _require_images(pools, present, shot, "shot", class_names)
        if queries is not None:
            _require_images(query_pools, present, queries, "queries", class_names)

    classes, support, query = _draw(pools, query_pools, present, way, shot, queries, episodes, seed)
    if query is None:
        assert query_pools is not None
        query = np.tile(np.concatenate([query_pools[c] for c in present]), (episodes, 1))
        each = [len(query_pools[c]) for c in present]
    else:
        each = [query.shape[1] // count] * count
    return EpisodeIndex(
        classes=np.asarray(present)[classes],
        support=support,
        support_labels=np.tile(np.repeat(np.arange(count), shot), (episodes, 1)),
        query=query,
        query_labels=np.tile(np.repeat(np.arange(count), each), (episodes, 1)),
        facts={"way": count, "shot": shot, "queries": queries, "episodes": episodes, "seed": seed},
    )


def _draw(
    pools: dict[int, np.ndarray],
    query_pools: dict[int, np.ndarray] | None,
    present: list[int],
    way: int | None,
    shot: int,
    queries: int | None,
    episodes: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Classes by their place in ``present``, support and queries of all episodes; no queries where all are asked."""
    rng = np.random.default_rng(seed)
    table, counts = _table(pools, present)
    others = None if query_pools is None or queries is None else _table(query_pools, present)
    count = len(present) if way is None else way
    together = shot + (queries or 0) if query_pools is None else shot
    split = count * table.shape[1]
    width = len(present) + split + (0 if others is None else count * others[0].shape[1])
    chosen, support, query = [], [], []
    step = max(1, _KEYS_AT_ONCE // width)
    for start in range(0, episodes, step):
        keys = rng.random((min(step, episodes - start), width))  # a row an episode: a prefix stays a prefix
        rows = len(keys)
        if way is None:
            classes = np.tile(np.arange(count), (rows, 1))
        else:
            classes = np.argsort(keys[:, : len(present)], axis=1)[:, :count]
        keys = keys[:, len(present) :]
        first = _pick(keys[:, :split].reshape(rows, count, -1), table, counts, classes, together)
        support.append(first[:, :, :shot])
        if query_pools is None:
            query.append(first[:, :, shot:])
        elif others is not None:
            query.append(_pick(keys[:, split:].reshape(rows, count, -1), *others, classes, queries or 0))
        chosen.append(classes)
    asked = np.concatenate(query).reshape(episodes, -1) if query else None
    return np.concatenate(chosen), np.concatenate(support).reshape(episodes, -1), asked


def _smallest(numbers: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest type that holds them."""
    ends = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    return numbers.astype(np.result_type(*map(np.min_scalar_type, ends)))


def _pools(labels: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(labels, kind="stable")
    numbers, starts = np.unique(labels[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))


def _require_images(
    pools: dict[int, np.ndarray], present: list[int], need: int, what: str, class_names: list[str] | None
) -> None:
    fewest = min(present, key=lambda c: len(pools[c]))
    if len(pools[fewest]) < need:
        name = repr(class_names[fewest]) if class_names else str(fewest)
        short = sum(len(pools[c]) < need for c in present)
        raise FieldmarkError(
            f"class {name} has {len(pools[fewest])} image(s), but {what} = {need} are needed "
            f"({short} class(es) are too small); lower the shot or the queries, or add images"
        )


def _table(pools: dict[int, np.ndarray], present: list[int]) -> tuple[np.ndarray, np.ndarray]:
    counts = np.array([len(pools[c]) for c in present])
    table = np.zeros((len(present), counts.max()), dtype=np.int64)
    for row, c in enumerate(present):
        table[row, : counts[row]] = pools[c]
    return table, counts


def _pick(keys: np.ndarray, table: np.ndarray, counts: np.ndarray, classes: np.ndarray, number: int) -> np.ndarray:
    """Image numbers ``(E, way, number)`` without repetition: those with the smallest random keys of their class."""
    keys = np.where(np.arange(keys.shape[2]) < counts[classes][:, :, None], keys, np.inf)
    if number < keys.shape[2]:
        part = np.argpartition(keys, number - 1, axis=2)[:, :, :number]
    else:
        part = np.broadcast_to(np.arange(keys.shape[2]), keys.shape)
    order = np.argsort(np.take_along_axis(keys, part, axis=2), axis=2)
    return table[classes[:, :, None], np.take_along_axis(part, order, axis=2)]
