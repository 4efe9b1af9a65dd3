"""Cells of a grid, each enlarged and encoded as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fieldmark.descriptors.base import DESCRIPTORS, bounds, counts, is_number
from fieldmark.descriptors.crops import CropExtractor, Windows
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor


@DESCRIPTORS.add(
    "grid",
    "cells of one grid or several (an image pyramid), enlarged and encoded one by one",
    source="DeepEMD, Zhang et al. 2022, sections 4.1 and 4.2",
)
class Grid(CropExtractor):
    """One node a cell: ``N = sum(size^2)`` over the grids.

    The image is cut into ``size`` x ``size`` cells; every cell is enlarged around its centre, clipped at the border,
    resized, encoded, and its map averaged. Several grids together are an image pyramid; their nodes follow in the
    order given, row by row. In training mode the enlargement is drawn for each cell of each image.

    Source: DeepEMD (Zhang et al. 2022), sections 4.1 and 4.2. As in its code a cell has ``side // size`` pixels (what
    is left over lies at the right and bottom edge), and boundaries are cut off to whole pixels.

    Args:
        sizes: Cells a side of each grid; one number or several.
        ratio: Side of the enlarged cell over that of the cell, at least 1; used in evaluation mode.
        ratio_range: Least and greatest ratio in training mode, drawn uniformly.
        size: Side at which a cell is encoded; default: that of the image.

    Raises:
        FieldmarkError: For an option out of its range, or (when called) images with fewer pixels than cells.

    Example:
        >>> grid = Grid(sizes=(3, 2)).eval()
        >>> grid(lambda images: images, torch.zeros(2, 3, 12, 12)).shape
        torch.Size([2, 13, 3])
        >>> Grid(sizes=3, ratio=0.5)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: ratio of extractor grid is 0.5; expected a number of at least 1
    """

    def __init__(
        self,
        sizes: int | Sequence[int] = (3,),
        ratio: float = 2.0,
        ratio_range: Sequence[float] = (1.0, 3.0),
        size: int | None = None,
    ) -> None:
        super().__init__(size)
        self.sizes = counts("grid", "sizes", sizes)
        if not is_number(ratio) or ratio < 1:
            raise FieldmarkError(f"ratio of extractor grid is {ratio!r}; expected a number of at least 1")
        self.ratio = float(ratio)
        self.ratio_range = bounds("grid", "ratio_range", ratio_range, least=1.0)
        self.crops = sum(one**2 for one in self.sizes)
        self.options |= {"sizes": list(self.sizes), "ratio": self.ratio, "ratio_range": list(self.ratio_range)}

    def windows(self, images: int, rows: int, columns: int, generator: torch.Generator | None) -> Windows:
        """The enlarged cells, clipped at the border."""
        if max(self.sizes) > min(rows, columns):
            raise FieldmarkError(
                f"sizes of extractor grid are {list(self.sizes)}, but the images have {rows} x {columns} pixels; "
                "expected at least one pixel a cell"
            )
        # The same ratio for both sides of a cell: it keeps its shape.
        ratio = torch.full((images, self.crops), self.ratio, dtype=torch.float64)
        if self.training:
            low, high = self.ratio_range
            device = "cpu" if generator is None else generator.device
            draw = torch.rand(ratio.shape, generator=generator, dtype=torch.float64, device=device)
            ratio = low + (high - low) * draw
        row = torch.cat([torch.arange(n).repeat_interleave(n) for n in self.sizes])
        column = torch.cat([torch.arange(n).repeat(n) for n in self.sizes])
        sizes = torch.tensor([n for n in self.sizes for _ in range(n**2)])
        top, bottom = cell_bounds(rows, sizes.to(ratio.device), row.to(ratio.device), ratio)
        left, right = cell_bounds(columns, sizes.to(ratio.device), column.to(ratio.device), ratio)
        return Windows(top, left, bottom - top, right - left)


def cell_bounds(pixels: int, size: Tensor | int, cell: Tensor, ratio: Tensor | float) -> tuple[Tensor, Tensor]:
    """First pixel of enlarged cells along one side, and the one after their last.

    Args:
        pixels: Length of the side.
        size: Cells on it.
        cell: Number of each cell, 0 to size - 1.
        ratio: Length of the enlarged cell over that of the cell, at least 1.

    Returns:
        Whole numbers ``lo`` and ``hi``, ``0 <= lo < hi <= pixels``, in the broadcast shape.

    Example:
        >>> [bound.tolist() for bound in cell_bounds(84, 3, torch.arange(3), 2.0)]
        [[0, 14, 42], [42, 70, 84]]
    """
    length = torch.as_tensor(pixels // size, device=cell.device)
    centre = length * (cell.double() + 0.5)
    half = length * ratio / 2
    return (centre - half).floor().clamp(min=0).long(), (centre + half).floor().clamp(max=pixels).long()
