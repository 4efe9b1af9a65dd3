"""What every training objective is: a batch and an encoder in, a loss and its metrics out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fieldmark.classifiers.base import Encode
from fieldmark.registry import Registry
from fieldmark.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Images with the numbers of their classes.

    With several views, every image is there ``views`` times, each time augmented in its own way: first the first view
    of all images, then the second of all in the same order, so that ``images[i]`` and ``images[i + B / views]`` are
    two views of one image.

    Attributes:
        images: ``(B, 3, H, W)`` in [0, 1], augmented.
        labels: ``(B,)`` classes, 0 to the number of training classes - 1; repeated for every view.
        views: How often each image is there; divides B.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, "B"]
    views: int = 1


@dataclass(frozen=True)
class EpisodeBatch:
    """Few-shot episodes: labelled images, and images to recognise.

    Attributes:
        support: ``(E, S, 3, H, W)`` in [0, 1], augmented.
        support_labels: ``(E, S)`` labels 0 to way - 1 inside the episode.
        query: ``(E, Q, 3, H, W)``.
        query_labels: ``(E, Q)``.
        way: Classes in an episode.
        second: ``(E, S + Q, 3, H, W)``: all support images, then all queries, augmented in another way; for auxiliary
            losses that compare two views. None where the recipe has no ``second_view``.
    """

    support: Float[Tensor, "E S 3 H W"]
    support_labels: Int[Tensor, "E S"]
    query: Float[Tensor, "E Q 3 H W"]
    query_labels: Int[Tensor, "E Q"]
    way: int
    second: Float[Tensor, "E N 3 H W"] | None = None


Batch = ImageBatch | EpisodeBatch


class Objective(nn.Module):
    """Base class of training objectives.

    An objective knows nothing about files, loops or printing. Options are taken and checked in the constructor;
    :meth:`setup` then builds the parts that depend on the backbone or the data; :meth:`forward` gives the loss.

    Attributes:
        sampling: Whether it is fed with :class:`ImageBatch` (``"images"``) or :class:`EpisodeBatch` (``"episodes"``).
        needs_teacher: Whether it learns from a finished model; such an objective is given one by :meth:`set_teacher`
            before the first batch.
    """

    sampling: ClassVar[Literal["images", "episodes"]] = "images"
    needs_teacher: ClassVar[bool] = False

    def setup(self, channels: int, classes: int) -> None:
        """Build what depends on the maps' channels and the number of training classes; most need nothing.

        Args:
            channels: Channels C of the backbone's maps.
            classes: Number of training classes.
        """

    def set_teacher(self, encoder: nn.Module, learned: Mapping[str, Tensor]) -> None:
        """Take a finished model to learn from; only objectives that need one do anything with it.

        Args:
            encoder: The model; the objective may keep it, and does not change it.
            learned: What the objective that trained it had learned, by the names of its state ("classifier.weight").
        """

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            encode: Images ``(B, 3, H, W)`` in [0, 1] to maps ``(B, C, h, w)``; differentiable.
            batch: What :attr:`sampling` asks for.

        Returns:
            ``"loss"``, a scalar to minimise, and named scalars to log ("accuracy" ...), all means over the batch.
        """
        raise NotImplementedError


OBJECTIVES: Registry[Objective] = Registry("objective")
