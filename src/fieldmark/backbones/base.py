"""What every backbone is: normalised images in, a map of local descriptors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from fieldmark.errors import FieldmarkError
from fieldmark.registry import Registry
from fieldmark.shapes import Float, Tensor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class BackboneFacts:
    """What a listing says about a backbone.

    Attributes:
        name: The registered name.
        summary: One line.
        output_shape: (channels, height, width) of the map at ``default_size``.
        default_size: Side of the square image the backbone was designed for, in pixels.
        parameters: Number of trained values (buffers not counted).
        licence: Licence of the pretrained weights; "none" where there are no weights.
        pretraining: What the weights were trained on; "none" where they start random.
        source: Paper or package.
    """

    name: str
    summary: str
    output_shape: tuple[int, int, int]
    default_size: int
    parameters: int
    licence: str
    pretraining: str
    source: str


class Backbone(nn.Module):
    """Base class: maps normalised images (B, 3, H, W) to maps (B, channels, h, w).

    The pooled vector is ``maps.mean((-2, -1))``; no backbone pools over the map itself.

    Args:
        channels: Channels of the map.
        default_size: Side of the square image the backbone was designed for.
        mean: Per-channel mean the images are to be normalised with, for values in [0, 1]; None: the data set's.
        std: Per-channel standard deviation, likewise.
        facts: Provenance of the weights that there are for this backbone: "licence", "pretraining", "source"; and
            "pretrained", whether this object was made with them.

    Attributes:
        name: The name it was created by (set by :func:`fieldmark.backbones.create`); that of the architecture for a
            trained model.
        options: Options that rebuild the same architecture: ``create(b.name, **b.options)``. They never ask for
            pretrained weights, so a checkpoint can be opened where the weights' origin cannot be reached.
    """

    def __init__(
        self,
        channels: int,
        default_size: int,
        *,
        mean: Triple | None = None,
        std: Triple | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()
        self.options: dict[str, Any] = {}
        self.channels = channels
        self.default_size = default_size
        self.mean = mean
        self.std = std
        self.facts = {"licence": "none", "pretraining": "none", "pretrained": False, "source": "", **(facts or {})}

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Maps of local descriptors of normalised images."""
        raise NotImplementedError


BACKBONES: Registry[Backbone] = Registry("backbone")


def check_count(option: str, value: int, least: int = 1) -> int:
    """The value, or the error that names the option."""
    if value < least:
        raise FieldmarkError(f"{option} is {value}; expected at least {least}")
    return value


def check_rate(option: str, value: float) -> float:
    """The value when it is a drop rate in [0, 1), or the error that names the option."""
    if not 0 <= value < 1:
        raise FieldmarkError(f"{option} is {value}; expected at least 0 and below 1")
    return float(value)
