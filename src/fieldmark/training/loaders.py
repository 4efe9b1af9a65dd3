"""Batches straight from the image store: no worker processes, no loop over images, the same for any number of ranks.

Which images a step sees depends on (seed, stage, epoch, step) alone. With several processes every one computes the
same global batch and takes its share, so that together they see what one process would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.training.seeds import derive

if TYPE_CHECKING:
    from fieldmark.data import ImageStore
    from fieldmark.training.schema import EpisodeSpec


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is."""

    index: int = 0
    world: int = 1

    def share(self, batch: np.ndarray) -> np.ndarray:
        """This process's part of a global batch."""
        return batch[self.index :: self.world]


class ImageBatches:
    """Shuffled images of a stage, from any step on.

    Args:
        store: The training images.
        batch_size: Images a step, over all processes together.
        epochs: Passes over the images; an incomplete last batch of a pass is dropped.
        key: Seed and stage, the root of all random choices.
        rank: This process.
        start: First step to give (steps before it were done before an interruption).
        limit: At most so many steps an epoch.
        images_per_class: So many images of each of ``batch_size / images_per_class`` different classes in every step
            (a class with fewer repeats them), as Musgrave et al. 2020 train; an epoch is as many steps as without.
        accumulate: A step comes in so many micro-batches of one size, numbered by ``"micro"``; classes stay whole.

    Raises:
        FieldmarkError: If there are no images, the batch cannot be split evenly, or there are too few classes.
    """

    def __init__(
        self,
        store: ImageStore,
        batch_size: int,
        epochs: int,
        key: tuple[int | str, ...],
        rank: Rank | None = None,
        start: int = 0,
        limit: int | None = None,
        images_per_class: int | None = None,
        accumulate: int = 1,
    ) -> None:
        self.store, self.key, self.rank, self.start = store, key, rank or Rank(), start
        self.images_per_class, self.accumulate = images_per_class, accumulate
        world = self.rank.world
        if len(store) < world:
            raise FieldmarkError(f"the training split has {len(store)} image(s); expected at least {world}")
        if batch_size % world:
            raise FieldmarkError(
                f"batch_size {batch_size} cannot be split over {world} processes; choose a multiple of {world}"
            )
        self.batch_size = min(batch_size, len(store) // world * world)
        self.steps_per_epoch = _limited(len(store) // self.batch_size, limit)
        self.steps = self.steps_per_epoch * epochs
        if images_per_class is not None:
            _check_balance(self.batch_size, images_per_class, np.unique(store.labels).size)
        check_accumulation("batch_size", self.batch_size, accumulate, world * (images_per_class or 1))

    def _order(self, epoch: int) -> np.ndarray:
        """The images of an epoch, step after step."""
        rng = np.random.default_rng(derive(*self.key, "order", epoch))
        if self.images_per_class is None:
            return rng.permutation(len(self.store))
        return balanced_order(self.store.labels, self.batch_size, self.images_per_class, self.steps_per_epoch, rng)

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self._order(epoch)
            first = step % self.steps_per_epoch * self.batch_size
            parts = np.split(order[first : first + self.batch_size], self.accumulate)
            for micro, part in enumerate(parts):
                mine = self.rank.share(part)
                yield {
                    "step": step,
                    "micro": micro,
                    "images": self.store.gather(mine),
                    "labels": torch.from_numpy(self.store.labels[mine]),
                }


class EpisodeBatches:
    """Few-shot episodes of a stage, from any step on.

    Args:
        store: The training images.
        spec: Way, shot, queries, episodes an epoch and a step.
        epochs: How many epochs.
        key: Seed and stage, the root of all random choices.
        rank: This process.
        start: First step to give.
        limit: At most so many steps an epoch.
        accumulate: A step comes in so many micro-batches of one number of episodes, numbered by ``"micro"``.

    Raises:
        FieldmarkError: If the store has too few classes or images, or the episodes cannot be split evenly.
    """

    def __init__(
        self,
        store: ImageStore,
        spec: EpisodeSpec,
        epochs: int,
        key: tuple[int | str, ...],
        rank: Rank | None = None,
        start: int = 0,
        limit: int | None = None,
        accumulate: int = 1,
    ) -> None:
        self.accumulate = accumulate
        self.store, self.spec, self.key, self.rank, self.start = store, spec, key, rank or Rank(), start
        if spec.episodes_per_step % self.rank.world:
            raise FieldmarkError(
                f"episodes_per_step {spec.episodes_per_step} cannot be split over {self.rank.world} processes; "
                f"choose a multiple of {self.rank.world}"
            )
        if spec.episodes_per_epoch < spec.episodes_per_step:
            raise FieldmarkError(
                f"episodes_per_epoch is {spec.episodes_per_epoch}; expected at least episodes_per_step, "
                f"{spec.episodes_per_step}"
            )
        check_accumulation("episodes_per_step", spec.episodes_per_step, accumulate, self.rank.world)
        self.steps_per_epoch = _limited(spec.episodes_per_epoch // spec.episodes_per_step, limit)
        self.steps = self.steps_per_epoch * epochs
        self._draw(0, 1)  # too small a data set is refused before anything starts

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def _draw(self, epoch: int, episodes: int) -> Any:
        from fieldmark.data import draw_episodes

        return draw_episodes(
            self.store.labels, self.spec.way, self.spec.shot, self.spec.queries, episodes,
            seed=derive(*self.key, "episodes", epoch), class_names=self.store.class_names,
        )  # fmt: skip

    def __iter__(self) -> Iterator[dict[str, Any]]:
        size = self.spec.episodes_per_step
        epoch, drawn = -1, None
        for step in range(self.start, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                drawn = self._draw(epoch, self.steps_per_epoch * size)
            assert drawn is not None
            first = step % self.steps_per_epoch * size
            for micro, part in enumerate(np.split(np.arange(first, first + size), self.accumulate)):
                mine = self.rank.share(part)
                images = np.concatenate([drawn.support[mine], drawn.query[mine]], axis=1)
                yield {
                    "step": step,
                    "micro": micro,
                    "images": self.store.gather(images.ravel()),
                    "support_labels": torch.from_numpy(drawn.support_labels[mine]),
                    "query_labels": torch.from_numpy(drawn.query_labels[mine]),
                    "way": drawn.way,
                }


def balanced_order(
    labels: np.ndarray, batch_size: int, images_per_class: int, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Images of ``steps`` batches, each with ``images_per_class`` images of different classes drawn at random.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
        >>> order = balanced_order(labels, 4, 2, 3, np.random.default_rng(0))
        >>> [np.unique(labels[batch], return_counts=True)[1].tolist() for batch in order.reshape(3, 4)]
        [[2, 2], [2, 2], [2, 2]]
    """
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    drawn = []
    for _ in range(steps):
        for c in rng.choice(len(members), batch_size // images_per_class, replace=False):
            # As many whole shuffles as are needed: no image comes twice before all of its class have come once.
            rounds = -(-images_per_class // len(members[c]))
            drawn.append(np.concatenate([rng.permutation(members[c]) for _ in range(rounds)])[:images_per_class])
    return np.concatenate(drawn)


def _check_balance(batch_size: int, images_per_class: int, classes: int) -> None:
    if batch_size % images_per_class:
        raise FieldmarkError(
            f"batch_size {batch_size} cannot be split into classes of {images_per_class} images; choose a multiple of "
            "images_per_class (and no more images than there are)"
        )
    if batch_size // images_per_class > classes:
        raise FieldmarkError(
            f"batch_size {batch_size} with images_per_class {images_per_class} needs {batch_size // images_per_class} "
            f"classes; the training split has {classes}"
        )


def check_accumulation(key: str, size: int, accumulate: int, unit: int) -> None:
    """Refuse a step that does not fall into whole micro-batches.

    Example:
        >>> check_accumulation("batch_size", 16, 3, 4)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: batch_size 16 cannot be split into 3 micro-batches of a multiple of 4; ...
    """
    if size % (accumulate * unit):
        whole = f" of a multiple of {unit}" if unit > 1 else ""
        raise FieldmarkError(
            f"{key} {size} cannot be split into {accumulate} micro-batches{whole}; choose a multiple of "
            f"{accumulate * unit}, or another accumulate (and no more images than there are)"
        )


def _limited(steps: int, limit: int | None) -> int:
    return steps if limit is None else min(steps, limit)
