"""The map at several resolutions: coarse cells beside the places themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import adaptive_avg_pool2d

from fieldmark.descriptors.base import DESCRIPTORS, MapExtractor, counts
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


@DESCRIPTORS.add(
    "feature_pyramid",
    "the map pooled to coarser grids, and the map itself",
    source="DeepEMD, Zhang et al. 2022, section 4.2 and Table 3",
)
class FeaturePyramid(MapExtractor):
    """Averages of the map over coarse grids, then every place of the map: ``N = sum(level^2) + h * w``.

    Source: DeepEMD (Zhang et al. 2022), section 4.2. Its "RoI pooling" is adaptive average pooling in its code, and the
    map itself always follows after the pooled levels: the paper's P_feat(5, 2, 1) on 5 x 5 maps is ``levels=(2, 1)``
    here, 4 + 1 + 25 nodes.

    Args:
        levels: Sides of the pooled grids, in the order of their nodes.

    Raises:
        FieldmarkError: If levels are not whole numbers above 0, or (when called) one is larger than the map.

    Example:
        >>> import torch
        >>> FeaturePyramid(levels=(2, 1)).nodes(torch.ones(3, 8, 5, 5)).shape
        torch.Size([3, 30, 8])
    """

    def __init__(self, levels: Sequence[int] = (2, 1)) -> None:
        super().__init__()
        self.levels = counts("feature_pyramid", "levels", levels)
        self.options["levels"] = list(self.levels)

    def nodes(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N C"]:
        """Descriptors of maps: those of each level row by row, then those of the map."""
        rows, columns = maps.shape[-2:]
        if max(self.levels) > min(rows, columns):
            # Pooling to a larger grid would repeat places.
            raise FieldmarkError(
                f"levels of extractor feature_pyramid are {list(self.levels)}, but the map has {rows} x {columns} "
                "places; expected levels that are no larger (or use larger images)"
            )
        parts = [adaptive_avg_pool2d(maps, level) for level in self.levels]
        return torch.cat([part.flatten(2) for part in [*parts, maps]], dim=2).transpose(1, 2)
