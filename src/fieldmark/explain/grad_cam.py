"""Grad-CAM: which places of a map raise a score."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.shapes import Float, Tensor

Score = Callable[[Tensor], Tensor]
"""Maps ``(B, C, h, w)`` to one number an image, ``(B,)``."""


def grad_cam(
    encoder: Encoder, images: Float[Tensor, "B 3 H W"], score: Score, layer: str | None = None
) -> Float[Tensor, "B h w"]:
    """What each place of a layer adds to a score, where it raises it.

    Source: Selvaraju et al. 2017, eqs. 1 and 2: each channel is weighted by the mean, over the places, of the score's
    derivative by it, and negative sums are set to zero. Values are as they come, not scaled to 1.

    Args:
        encoder: The model; runs in evaluation mode, its weights get no gradient.
        images: uint8 or float in 0 to 1.
        score: Of the encoder's maps; large is much evidence.
        layer: Name of the part of the backbone whose maps are looked at (``"layer3"``); default: its last maps. Layers
            before have finer maps, and say less about the class.

    Raises:
        FieldmarkError: For a layer that is not there, or whose output is not a map.

    Example:
        >>> from fieldmark import backbones
        >>> encoder = Encoder(backbones.create("conv4"), (0.5,) * 3, (0.25,) * 3)
        >>> grad_cam(encoder, torch.rand(2, 3, 32, 32), lambda maps: maps.mean((1, 2, 3)), "layer3").shape
        torch.Size([2, 4, 4])
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise FieldmarkError(f"layer {layer!r} gives no map (B, C, h, w); choose another one")
        kept.append(output)

    handle = _find(encoder.backbone, layer).register_forward_hook(keep) if layer is not None else None
    was_training, trained = encoder.training, [p for p in encoder.parameters() if p.requires_grad]
    encoder.eval().requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images.to(encoder.device).clone()
            if layer is None:
                with torch.no_grad():
                    maps = encoder(pixels)
                maps = maps.requires_grad_()
                kept = [maps]
            else:
                # A leaf that asks for gradients makes the backbone keep its graph, whose weights need none.
                pixels = pixels if pixels.is_floating_point() else pixels.float() / 255
                maps = encoder(pixels.requires_grad_())
            (slope,) = torch.autograd.grad(score(maps).sum(), kept[-1])
            weights = slope.mean((-2, -1), keepdim=True)
            return (weights * kept[-1]).sum(1).clamp_min(0).detach()
    finally:
        if handle is not None:
            handle.remove()
        encoder.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)


def _find(backbone: nn.Module, layer: str) -> nn.Module:
    parts = {name: module for name, module in backbone.named_modules() if name}
    if layer not in parts:
        raise unknown_name(f"layer of backbone {getattr(backbone, 'name', '')!r}", layer, parts)
    return parts[layer]
