"""What every head is: support sets and queries of many episodes in, class scores out."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, Literal

from torch import nn

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.labels import check_labels
from fieldmark.registry import RememberingRegistry
from fieldmark.shapes import Float, Int, Tensor

Kind = Literal["pooled", "local", "spatial"]

HEADS: RememberingRegistry[Head] = RememberingRegistry("head")


class Head(nn.Module):
    """Scores of queries for the classes of their episode, many episodes at once.

    A head decides in :meth:`scores`; calling it checks the input first. Large means near, and the softmax of
    the scores is the head's probability.

    Attributes:
        descriptors: The sets it wants: ``"pooled"`` is one vector an image (N = 1), ``"local"`` one vector a
            location, ``"spatial"`` the pooled vector and four that keep some of the layout (N = 5, see
            :func:`fieldmark.descriptors.describe`). A flat vector is a set of one, so every head takes N = 1; a pooled
            head averages more. An option may change it for one head, so ask the head, not its class.
        made_as: The name and the options that it was made with by name; None if it was made otherwise.
        together: Episodes that it is worth handing over at once, whatever their size: more than 1 where many small
            steps would each be too short for the machine.
        light: Whether many queries of an episode cost little beside what is fitted to its support, so that they are
            better handed over at once.
    """

    descriptors: Kind
    made_as: tuple[str, dict[str, Any]] | None = None
    together: ClassVar[int] = 1
    light: ClassVar[bool] = False

    @property
    def needs_base(self) -> bool:
        """Whether :meth:`fit_base` has to be called before scoring; most heads need nothing."""
        return False

    def fit_base(self, features: Float[Tensor, "*shape C"]) -> Head:
        """Learn what the head needs from descriptors of the base (training) classes; returns the head itself."""
        return self

    def two_steps(self) -> tuple[Callable[[Tensor], Tensor], Head] | None:
        """What can be done to each image once, whatever the episode, and the head that decides from there.

        Returns:
            A function from sets (S, N, C) to shorter ones, and a head that gives the same scores for these up to
            rounding; None where there is nothing to be done once.
        """
        return None

    @property
    def learned(self) -> bool:
        """Whether it has parts that training must have filled; most heads have none."""
        return False

    def setup(self, channels: int) -> None:
        """Build the learned parts, if there are any, with fresh weights.

        Args:
            channels: Channels C of the descriptors.
        """

    def forward(
        self,
        support: Float[Tensor, "E S N C"],
        labels: Int[Tensor, "E S"],
        query: Float[Tensor, "E Q M C"],
        way: int,
    ) -> Float[Tensor, "E Q {way}"]:
        """Score every query for every class.

        Args:
            support: Descriptors of the labelled images of E episodes.
            labels: Their classes, 0 to way - 1; shots may differ, every class needs one image.
            query: Descriptors of the images to classify.
            way: Number of classes.

        Raises:
            FieldmarkError: Shapes do not fit, a label is out of range or a class has no support image.
        """
        check_episodes(support, labels, query, way)
        return self.scores(support, labels, query, way)

    def scores(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """The decision itself, on checked input: (E, S, N, C), (E, S), (E, Q, M, C) -> (E, Q, way)."""
        raise NotImplementedError


def check_episodes(support: Tensor, labels: Tensor, query: Tensor, way: int) -> None:
    """Refuse episodes that no head can score.

    Raises:
        FieldmarkError: With what is wrong and what was expected, in one line.

    Example:
        >>> import torch
        >>> check_episodes(torch.ones(1, 2, 1, 4), torch.tensor([[0, 0]]), torch.ones(1, 3, 1, 4), way=2)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: class 1 of episode 0 has no support image; every ...
    """
    if support.dim() != 4 or query.dim() != 4:
        raise FieldmarkError(
            f"support {tuple(support.shape)} and query {tuple(query.shape)}; expected (episodes, images,"
            " descriptors, channels) for both; add the missing axes with unsqueeze"
        )
    if support.shape[0] != query.shape[0] or support.shape[-1] != query.shape[-1]:
        raise FieldmarkError(
            f"support {tuple(support.shape)} and query {tuple(query.shape)} differ in"
            " episodes (first axis) or channels (last axis)"
        )
    if labels.shape != support.shape[:2]:
        raise FieldmarkError(f"support labels {tuple(labels.shape)}; expected {tuple(support.shape[:2])}, one an image")
    check_labels(labels, way)


def check_option(head: str, option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that an option does not take, with the nearest one it does.

    Example:
        >>> check_option("nearest", "metric", "cosin", ("cosine", "euclidean"))
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: unknown metric of head nearest 'cosin'; did you mean 'cosine'? ...
    """
    if value not in known:
        raise unknown_name(f"{option} of head {head}", value, known)


def check_positive(head: str, **values: float) -> None:
    """Refuse numbers that must be above zero.

    Example:
        >>> check_positive("matching", scale=0.0)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: scale of head matching is 0.0; expected a number above 0
    """
    for option, value in values.items():
        if not 0 < value < inf:
            raise FieldmarkError(f"{option} of head {head} is {value}; expected a number above 0")


def pooled(sets: Float[Tensor, "E S N C"]) -> Float[Tensor, "E S C"]:
    """The mean descriptor of each image; a set of one is that one, without a copy."""
    return sets.squeeze(2) if sets.shape[2] == 1 else sets.mean(2)
