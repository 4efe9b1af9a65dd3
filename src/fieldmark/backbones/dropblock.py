"""DropBlock: dropout of whole squares of the map, with a rate that grows over training."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.backbones.base import check_count, check_rate
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


def block_mask(seeds: Float[Tensor, "B C h w"], size: int) -> Float[Tensor, "B C H W"]:
    """The mask that zeroes a square of side ``size`` below and to the right of every seed.

    The official code of SCL and RFS pairs seeds with the cells of the square by two cycles, and so misses cells where
    the number of seeds and ``size**2`` have a common factor (size 2: with any even number of seeds). Here every
    square is whole; where the official ones are, the masks are equal.

    Args:
        seeds: 1 where a square starts, 0 elsewhere; h = H - size + 1, w = W - size + 1.
        size: Side of the squares.

    Returns:
        1 where a value is kept, 0 where it is dropped.

    Example:
        >>> block_mask(torch.tensor([[[[0.0, 1.0]]]]), 1).tolist()
        [[[[1.0, 0.0]]]]
    """
    return 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)


class DropBlock(nn.Module):
    """Drop squares of the map in training and scale up what is left; the identity in evaluation.

    Source: Ghiasi et al. 2018, with the schedule of SCL's and RFS's code: the drop rate grows linearly to ``rate``
    over ``steps`` forward passes in training. The pass counter is a buffer, so that it is saved with the model and a
    resumed run goes on where it was. (The official code counts evaluation passes as well and does not save it.)

    Args:
        rate: Share of values dropped at the end of the schedule, in [0, 1).
        size: Side of the squares; no larger than the map.
        steps: Training passes until the full rate.

    Raises:
        FieldmarkError: An option out of range; in training, a map smaller than ``size``.

    Example:
        >>> drop = DropBlock(0.1, 2, steps=1)
        >>> _ = torch.manual_seed(0)
        >>> round(drop(torch.ones(8, 16, 4, 4)).mean().item(), 4)
        1.0
        >>> drop.eval()(torch.ones(1, 1, 4, 4)).sum().item()
        16.0
    """

    passes: Tensor

    def __init__(self, rate: float, size: int, steps: int = 40_000) -> None:
        super().__init__()
        self.rate = check_rate("drop_rate", rate)
        self.size = check_count("drop_block", size)
        self.steps = check_count("drop_steps", steps)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def seed_rate(self, height: int, width: int) -> Tensor:
        """Probability of a seed at the present pass, so that about the scheduled share of the map is dropped."""
        share = (self.rate / self.steps * self.passes).clamp(max=self.rate)
        room = (height - self.size + 1) * (width - self.size + 1)
        return share / self.size**2 * (height * width) / room

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Maps with squares dropped (training) or unchanged (evaluation)."""
        if not self.training:
            return maps
        batch, channels, height, width = maps.shape
        if self.size > min(height, width):
            raise FieldmarkError(
                f"DropBlock of size {self.size} cannot work on a {height}x{width} map; give drop_block "
                f"{min(height, width)} or less, or larger images"
            )
        self.passes += 1
        rate = self.seed_rate(height, width).to(maps.dtype)
        shape = (batch, channels, height - self.size + 1, width - self.size + 1)
        kept = block_mask(torch.bernoulli(rate.expand(shape)), self.size)
        return maps * kept * (kept.numel() / kept.sum().clamp(min=1))
