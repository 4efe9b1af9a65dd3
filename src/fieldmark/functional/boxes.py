"""Boxes in images: anchors at every place of a map, overlaps, and the best ones that do not overlap much."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Int, Tensor

THIRDS = (2 ** (1 / 3), 2 ** (2 / 3))
SCALES = (THIRDS, THIRDS, (1.0, *THIRDS))
RATIOS = (2 / 3, 1.0, 3 / 2)


def make_anchors(
    image: tuple[int, int],
    grid: tuple[int, int],
    size: float = 1.5,
    scales: Sequence[Sequence[float]] = SCALES,
    ratios: Sequence[float] = RATIOS,
) -> Float[Tensor, "A 4"]:
    """Boxes of several sizes and shapes around the places of a map and of coarser maps made from it.

    Source: SSANET (section 3.1) as NTS-Net (Yang et al. 2018) has it. Every level of the pyramid has half the rows and
    columns of the one before (rounded up) and twice its stride and box size. Strides are those of the map in the image,
    so that any backbone and image size do: a stride of 32 pixels gives NTS-Net's strides 32, 64, 128 and sizes 48, 96,
    192, and a map of 14 x 14 its 1,614 anchors. A box's middle is that of its place; boxes may stick out of the image.

    Args:
        image: Height and width in pixels.
        grid: Rows and columns of the map.
        size: Side of a square box of scale 1, in strides.
        scales: For each level, factors on the size.
        ratios: Width to height.

    Returns:
        Left, top, right, bottom in pixels; level by level, in each scale by scale, ratio by ratio, then row by row.

    Raises:
        FieldmarkError: Numbers that make no box.

    Example:
        >>> make_anchors((448, 448), (14, 14)).shape
        torch.Size([1614, 4])
        >>> make_anchors((4, 8), (1, 2), size=1.0, scales=[(1.0,)], ratios=[1.0])
        tensor([[0., 0., 4., 4.],
                [4., 0., 8., 4.]])
    """
    if min(*image, *grid) < 1:
        raise FieldmarkError(f"image {image} and grid {grid}; expected at least 1 row and column of both")
    if not size > 0 or not scales or any(not level or min(level) <= 0 for level in scales):
        raise FieldmarkError(f"anchors of size {size} and scales {scales}; expected numbers above 0, some a level")
    if not ratios or min(ratios) <= 0:
        raise FieldmarkError(f"ratios of anchors are {ratios}; expected numbers above 0")
    down, across = (side / places for side, places in zip(image, grid, strict=True))
    rows, columns = grid
    boxes = []
    for level in scales:
        y = (torch.arange(rows, dtype=torch.float64) + 0.5).mul(down).view(1, rows, 1)
        x = (torch.arange(columns, dtype=torch.float64) + 0.5).mul(across).view(1, 1, columns)
        sides = size * math.sqrt(down * across) * torch.tensor(level, dtype=torch.float64)
        root = torch.tensor(ratios, dtype=torch.float64).sqrt()
        width, height = ((sides.view(-1, 1) * one).view(-1, 1, 1) / 2 for one in (root, 1 / root))
        edges = torch.broadcast_tensors(x - width, y - height, x + width, y + height)
        boxes.append(torch.stack(edges, dim=-1).flatten(0, -2))
        rows, columns, down, across = -(-rows // 2), -(-columns // 2), 2 * down, 2 * across
    return torch.cat(boxes).float()


def box_overlap(first: Float[Tensor, "*batch N 4"], second: Float[Tensor, "*batch M 4"]) -> Float[Tensor, "*batch N M"]:
    """Intersection over union of all pairs of boxes (left, top, right, bottom); 0 where both are empty.

    Example:
        >>> box_overlap(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([[0.3333]])
    """
    first, second = first.unsqueeze(-2), second.unsqueeze(-3)
    corner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    shared = corner.clamp_min(0).prod(-1)
    areas = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    return shared / (areas - shared).clamp_min(torch.finfo(shared.dtype).tiny)


def top_boxes(
    boxes: Float[Tensor, "*boxes A 4"], scores: Float[Tensor, "B A"], count: int, threshold: float = 0.25
) -> Int[Tensor, "B N"]:
    """Numbers of the best boxes of each image, none overlapping a better one much, best first.

    Greedy non-maximum suppression: the best box is taken, all that overlap it by more than the threshold are dropped,
    and so on; the same boxes as ``torchvision.ops.nms``, cut after ``count``. Where fewer are left, the best of those
    that were dropped follow, so that every image has ``count`` different boxes.

    Args:
        boxes: Those of all images ``(A, 4)``, or of each ``(B, A, 4)``.
        scores: Large is good; finite.
        count: How many.
        threshold: Overlap (intersection over union), from 0 to 1.

    Raises:
        FieldmarkError: More boxes asked for than there are, or a threshold out of range.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [4.0, 4.0, 8.0, 8.0]])
        >>> top_boxes(boxes, torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.5, 0.2]]), count=2)
        tensor([[0, 2],
                [1, 2]])
    """
    if not 1 <= count <= scores.shape[1]:
        raise FieldmarkError(f"{count} boxes of {scores.shape[1]} asked for; expected 1 to {scores.shape[1]}")
    if not 0 <= threshold <= 1:
        raise FieldmarkError(f"threshold of overlap is {threshold}; expected 0 to 1")
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    boxes = boxes.expand(len(scores), -1, -1)
    # How good a box is once others are taken: dropped ones come behind all others, taken ones behind these.
    ranks = scores.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    total = scores.shape[1]
    images = torch.arange(len(scores), device=scores.device)
    taken = []
    for _ in range(count):
        best = ranks.argmin(1)
        overlap = box_overlap(boxes[images, best].unsqueeze(1), boxes).squeeze(1)
        ranks = ranks + total * ((overlap > threshold) & (ranks < total))
        ranks[images, best] = 2 * total
        taken.append(best)
    return torch.stack(taken, dim=1)


def clip_boxes(boxes: Float[Tensor, "*batch 4"], image: tuple[int, int]) -> Float[Tensor, "*batch 4"]:
    """The parts of boxes that lie in an image of (height, width).

    Example:
        >>> clip_boxes(torch.tensor([-1.0, 2.0, 5.0, 9.0]), (8, 4))
        tensor([0., 2., 4., 8.])
    """
    height, width = image
    limits = boxes.new_tensor((width, height, width, height))
    return boxes.clamp_min(0).minimum(limits)
