"""The maps of boxes, read from the one map of the whole image."""

from __future__ import annotations

import torch

from fieldmark.shapes import Float, Tensor


def region_maps(
    maps: Float[Tensor, "B C h w"], boxes: Float[Tensor, "B N 4"], image: tuple[int, int], size: int, samples: int = 2
) -> Float[Tensor, "B N C size size"]:
    """RoI align: the map within each box, bilinear between its places.

    Source: He et al. 2017 (Mask R-CNN). A cell is the mean of ``samples`` x ``samples`` values. The same as
    ``torchvision.ops.roi_align(..., aligned=True)`` for boxes in the image; bilinear weights of rows and of columns are
    independent of each other, so that it is two matrix products, which are faster by far in both directions. Nothing
    flows into the boxes.

    Args:
        maps: Of whole images.
        boxes: Left, top, right, bottom in pixels of the images.
        image: Height and width of the images.
        size: Rows and columns of the result.
        samples: Values a side of each cell.

    Example:
        >>> maps = torch.arange(4.0).repeat(4, 1).view(1, 1, 4, 4)
        >>> region_maps(maps, torch.tensor([[[0.0, 0.0, 16.0, 32.0]]]), (32, 32), 1)  # the left half
        tensor([[[[[0.5000]]]]])
    """
    height, width = maps.shape[-2:]
    with torch.no_grad():
        left, top, right, bottom = boxes.unbind(-1)
        rows = _weights(top, bottom, image[0], height, size, samples).to(maps.dtype)
        columns = _weights(left, right, image[1], width, size, samples).to(maps.dtype)
    # Channels last: one long product for the rows of all boxes of an image, then a short one for each row of each box.
    flat = maps.permute(0, 2, 3, 1).flatten(2)
    along = (rows.flatten(1, 2) @ flat).unflatten(1, (boxes.shape[1], size)).unflatten(3, (width, -1))
    return (columns.unsqueeze(2) @ along).permute(0, 1, 4, 2, 3)


def _weights(low: Tensor, high: Tensor, pixels: int, places: int, size: int, samples: int) -> Tensor:
    """``(B, N, size, places)``: how much of each place of the map is in each row (or column) of each box."""
    steps = (torch.arange(size * samples, device=low.device, dtype=low.dtype) + 0.5) / (size * samples)
    at = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * steps
    at = (at * (places / pixels) - 0.5).clamp(0, places - 1)
    place = torch.arange(places, device=low.device, dtype=low.dtype)
    near = (1 - (at.unsqueeze(-1) - place).abs()).clamp_min(0)
    return near.unflatten(2, (size, samples)).mean(3)
