"""What every training objective is: a batch and an encoder in, a loss and its metrics out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fieldmark.registry import Registry
from fieldmark.shapes import Float, Int, Tensor

Encode = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` in [0, 1] to maps ``(B, C, h, w)``."""


@dataclass(frozen=True)
class ImageBatch:
    """Images with the numbers of their classes.

    Attributes:
        images: ``(B, 3, H, W)`` in [0, 1], augmented.
        labels: ``(B,)`` classes, 0 to the number of training classes - 1.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, "B"]


@dataclass(frozen=True)
class EpisodeBatch:
    """Few-shot episodes: labelled images, and images to recognise.

    Attributes:
        support: ``(E, S, 3, H, W)`` in [0, 1], augmented.
        support_labels: ``(E, S)`` labels 0 to way - 1 inside the episode.
        query: ``(E, Q, 3, H, W)``.
        query_labels: ``(E, Q)``.
        way: Classes in an episode.
    """

    support: Float[Tensor, "E S 3 H W"]
    support_labels: Int[Tensor, "E S"]
    query: Float[Tensor, "E Q 3 H W"]
    query_labels: Int[Tensor, "E Q"]
    way: int


Batch = ImageBatch | EpisodeBatch


class Objective(nn.Module):
    """Base class of training objectives.

    An objective knows nothing about files, loops or printing. Options are taken and checked in the constructor;
    :meth:`setup` then builds the parts that depend on the backbone or the data; :meth:`forward` gives the loss.

    Attributes:
        sampling: Whether it is fed with :class:`ImageBatch` (``"images"``) or :class:`EpisodeBatch` (``"episodes"``).
    """

    sampling: ClassVar[Literal["images", "episodes"]] = "images"

    def setup(self, channels: int, classes: int) -> None:
        """Build what depends on the maps' channels and the number of training classes; most need nothing.

        Args:
            channels: Channels C of the backbone's maps.
            classes: Number of training classes.
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
