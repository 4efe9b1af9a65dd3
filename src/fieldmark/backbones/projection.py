"""Any backbone with a linear layer over its channels: the short embeddings of metric learning."""

from __future__ import annotations

from torch import nn

from fieldmark.backbones.base import Backbone, check_count
from fieldmark.shapes import Float, Tensor


class Projected(Backbone):
    """A backbone whose local descriptors are projected to fewer channels, each place of the map by the same layer.

    Source: Musgrave et al. 2020, section 4 (ImageNet ResNet-50 with a linear layer of 128 values), as in DeepEMD's
    Table 8. A linear layer and the mean can change places, so the pooled map is the projection of the pooled vector,
    and the descriptors of the places average to the embedding that the loss was given.

    :func:`fieldmark.backbones.create` makes one for every backbone: ``create(NAME, project=128)``.

    Args:
        trunk: The backbone below; ``freeze: [backbone.trunk]`` in a recipe keeps its weights.
        project: Channels of the map that comes out.

    Raises:
        FieldmarkError: If ``project`` is below 1.

    Example:
        >>> import torch
        >>> from fieldmark import backbones
        >>> backbone = backbones.create("conv4", project=16)
        >>> backbone(torch.zeros(2, 3, 32, 32)).shape, backbone.options
        (torch.Size([2, 16, 2, 2]), {'project': 16})
    """

    def __init__(self, trunk: Backbone, project: int) -> None:
        channels = check_count("project", project)
        super().__init__(channels, trunk.default_size, mean=trunk.mean, std=trunk.std, facts=trunk.facts)
        self.trunk = trunk
        self.projection = nn.Conv2d(trunk.channels, channels, 1)  # initialised as nn.Linear is

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Projected maps of normalised images."""
        return self.projection(self.trunk(images))
