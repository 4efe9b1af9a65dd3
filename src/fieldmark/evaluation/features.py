"""Describe every image of a data set once; thousands of episodes then run on the cached descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch

from fieldmark.backbones import Encoder
from fieldmark.descriptors import Encode, Extractor, Kind, as_extractor, describe
from fieldmark.errors import FieldmarkError
from fieldmark.progress import track
from fieldmark.shapes import Float, Tensor

# On a CPU a batch should stay in the cache: EfficientNet-Lite0 at 224 pixels is several times faster in batches of 8
# than of 256 (docs/decisions/0004).
_PIXELS_AT_ONCE = {"cpu": 8 * 224 * 224, "accelerator": 256 * 224 * 224}


class Images(Protocol):
    """What is needed of images: how many, how large, and some of them by number; an image store is one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def __len__(self) -> int: ...

    def gather(self, indices: range) -> Tensor:
        """Images ``(B, 3, H, W)`` by number."""
        ...


@torch.inference_mode()
def encode(
    encoder: Encoder,
    data: Images,
    kinds: Iterable[Kind] = ("pooled",),
    *,
    descriptors: str | Extractor = "dense",
    batch_size: int | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    wanted: np.ndarray | None = None,
    progress: bool = True,
) -> dict[str, Float[Tensor, "M N C"]]:
    """Descriptors of every image, or of those that are wanted.

    Args:
        encoder: The model; put into evaluation mode while it runs.
        data: The images.
        kinds: Some of ``"pooled"`` (the mean of the whole image's map), ``"spatial"`` (that and the largest activations
            in its quarters) and ``"local"`` (what ``descriptors`` make of the image); where the extractor works from
            maps, the images are encoded once for all.
        descriptors: Name of an extractor (:data:`fieldmark.descriptors.DESCRIPTORS`), or one that is made already; it
            runs in evaluation mode.
        batch_size: Images, or windows cut from images, encoded at a time; default: as many as fit well into memory
            caches, by the size of the images. Results do not depend on it beyond rounding.
        augment: Random change of a batch of images, driven by the given generator.
        seed: Seed of that generator, and of extractors that draw at random.
        wanted: Numbers of the images to encode, ascending, each once; default: all. How ``augment`` changes an image
            does not depend on which others are wanted; what an extractor draws at random does.
        progress: Show a bar for long work on a terminal.

    Returns:
        For each kind ``(images, N, C)`` float32 on the CPU, in the order of the data.

    Raises:
        FieldmarkError: If the model gives NaN or infinite features, or for an unknown extractor.
    """
    kinds, extractor = list(dict.fromkeys(kinds)), as_extractor(descriptors)
    if batch_size is None:
        batch_size = images_at_once(encoder.device, data.size)
    # Windows count as images. Fewer images at a time keep what is cut from them small as well.
    step = max(1, batch_size // extractor.crops) if "local" in kinds else batch_size
    generator = torch.Generator(device=encoder.device).manual_seed(seed)
    drawing = torch.Generator().manual_seed(seed)
    out: dict[Kind, list[Tensor]] = {kind: [] for kind in kinds}
    was_training = encoder.training, extractor.training
    encoder.eval(), extractor.eval()
    try:
        starts = range(0, len(data), step)
        for start in track(starts, "encoding images", step, len(data), show=progress):
            batch = range(start, min(start + step, len(data)))
            images = data.gather(batch).to(encoder.device)
            images = augment(images, generator) if augment else images
            if wanted is not None:
                inside = wanted[(wanted >= start) & (wanted <= batch[-1])] - start
                if not len(inside):
                    continue
                images = images[torch.from_numpy(inside).to(images.device)]
            for kind, sets in describe(in_parts(encoder, batch_size), images, kinds, extractor, drawing).items():
                if not torch.isfinite(sets).all():
                    raise FieldmarkError(
                        f"the model gives features that are not finite (images {start} to {batch[-1]}); "
                        "its weights are damaged or its training diverged"
                    )
                out[kind].append(sets.float().cpu())
    finally:
        encoder.train(was_training[0]), extractor.train(was_training[1])
    return {kind: torch.cat(parts) for kind, parts in out.items()}


def images_at_once(device: torch.device, size: tuple[int, int]) -> int:
    """How many images of a size fit well into the memory caches of a device.

    Example:
        >>> images_at_once(torch.device("cpu"), (224, 224))
        8
    """
    pixels = _PIXELS_AT_ONCE["cpu" if device.type == "cpu" else "accelerator"]
    return min(256, max(1, pixels // (size[0] * size[1])))


def in_parts(encode: Encode, limit: int) -> Encode:
    """The same encoding, with at most ``limit`` images at a time.

    Example:
        >>> sizes = []
        >>> encode = in_parts(lambda images: sizes.append(len(images)) or images, 4)
        >>> encode(torch.zeros(9, 3, 8, 8)).shape, sizes
        (torch.Size([9, 3, 8, 8]), [4, 4, 1])
    """
    return lambda images: torch.cat([encode(part) for part in images.split(limit)])


def facts_of(extractor: Extractor, kind: Kind) -> dict[str, Any]:
    """What a result says of the descriptors of a kind: name and options of what made them.

    Example:
        >>> facts_of(as_extractor("dense"), "pooled")
        {'name': 'pooled', 'options': {}}
    """
    return {"name": extractor.name, "options": extractor.options} if kind == "local" else {"name": kind, "options": {}}
