"""Encode every image of a data set once; thousands of episodes then run on the cached descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch

from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.progress import track
from fieldmark.shapes import Float, Tensor

# On a CPU a batch should stay in the cache: EfficientNet-Lite0 at 224 pixels is several times faster in batches of 8
# than of 256 (docs/decisions/0004).
_PIXELS_AT_ONCE = {"cpu": 8 * 224 * 224, "accelerator": 256 * 224 * 224}

Descriptors = Literal["pooled", "local"]


def descriptors_of(maps: Float[Tensor, "B C h w"], kind: Descriptors) -> Float[Tensor, "B N C"]:
    """Local descriptors ``(B, h * w, C)`` of maps, or their mean as a set of one, ``(B, 1, C)``.

    Example:
        >>> maps = torch.ones(2, 8, 3, 3)
        >>> descriptors_of(maps, "local").shape, descriptors_of(maps, "pooled").shape
        (torch.Size([2, 9, 8]), torch.Size([2, 1, 8]))
    """
    if kind == "pooled":
        return maps.mean((-2, -1)).unsqueeze(1)
    return maps.flatten(2).transpose(1, 2)


@torch.inference_mode()
def encode(
    encoder: Encoder,
    data: ImageStore,
    kinds: Iterable[Descriptors] = ("pooled",),
    *,
    batch_size: int | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Float[Tensor, "M N C"]]:
    """Descriptors of every image.

    Args:
        encoder: The model; put into evaluation mode while it runs.
        data: The images.
        kinds: ``"pooled"`` and / or ``"local"``; the images are encoded once for both.
        batch_size: Images at a time; default: as many as fit well into memory caches, by their size. Results do not
            depend on it beyond rounding.
        augment: Random change of a batch of images, driven by the given generator.
        seed: Seed of that generator.
        progress: Show a bar for long work on a terminal.

    Returns:
        For each kind ``(images, N, C)`` float32 on the CPU.

    Raises:
        FieldmarkError: If the model gives NaN or infinite features.
    """
    kinds = list(dict.fromkeys(kinds))
    if batch_size is None:
        at_once = _PIXELS_AT_ONCE["cpu" if encoder.device.type == "cpu" else "accelerator"]
        batch_size = min(256, max(1, at_once // (data.size[0] * data.size[1])))
    generator = torch.Generator(device=encoder.device).manual_seed(seed)
    out: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    was_training = encoder.training
    encoder.eval()
    try:
        starts = range(0, len(data), batch_size)
        for start in track(starts, "encoding images", batch_size, len(data), show=progress):
            images = data.gather(range(start, min(start + batch_size, len(data)))).to(encoder.device)
            maps = encoder(augment(images, generator) if augment else images)
            if not torch.isfinite(maps).all():
                raise FieldmarkError(
                    f"the model gives features that are not finite (images {start} to {start + len(images) - 1}); "
                    "its weights are damaged or its training diverged"
                )
            for kind in kinds:
                out[kind].append(descriptors_of(maps, kind).float().cpu())
    finally:
        encoder.train(was_training)
    return {kind: torch.cat(parts) for kind, parts in out.items()}
