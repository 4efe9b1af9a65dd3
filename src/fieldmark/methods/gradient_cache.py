"""Gradient caching: a batch of any size in the memory of a small one, with the same gradients."""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fieldmark.classifiers.base import Encode
from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Float, Tensor


def pooled_features(
    encode: Encode, images: Float[Tensor, "B 3 H W"], gradient_cache: int | None = None
) -> Float[Tensor, "B C"]:
    """The mean of every image's map; with a gradient cache, the graph of a few images at a time is all that is kept.

    Source: "Scaling deep contrastive learning batch size under memory limited setup" (Gao et al. 2021). Losses that
    compare images of a batch cannot be accumulated over smaller batches. Instead, the images are encoded ``micro`` at a
    time and only their pooled features are kept; the loss is computed on all of them; going backwards, each micro-batch
    is encoded again and receives its own features' gradient. The price is a second forward pass.

    What is random in the encoder (dropout, DropBlock) is drawn again from the same state in the second pass. Of the
    encoder's buffers, the second pass sees those of the first and changes none: running statistics and counters move
    once a micro-batch.

    Where batch norms use running statistics (frozen, in evaluation mode), and in networks without them, the gradients
    are those of the plain step. Batch norms in training mode take the statistics of a micro-batch, as they do in
    gradient accumulation and on several devices: gradients then are those of a network that does so, not the plain
    step's, and running statistics follow the smaller batches. Only exact doubles of that are equal, so choose
    micro-batches of 16 images and more there, or freeze the statistics.

    Args:
        encode: Images to maps; a module's buffers are looked after as said.
        images: In [0, 1].
        gradient_cache: Images in a micro-batch; None: all at once, with the whole graph.

    Raises:
        FieldmarkError: If ``gradient_cache`` is below 1.

    Example:
        >>> layer = nn.Conv2d(3, 4, 3).double()
        >>> images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> pooled_features(layer, images, 2).square().sum().backward()
        >>> gradient = layer.weight.grad.clone()
        >>> layer.zero_grad()
        >>> pooled_features(layer, images).square().sum().backward()
        >>> torch.allclose(gradient, layer.weight.grad)
        True
    """
    check_gradient_cache(gradient_cache)
    if gradient_cache is None or not torch.is_grad_enabled() or len(images) <= gradient_cache:
        return _pooled(encode, images)
    parts = [_cached(encode, part) for part in images.split(gradient_cache)]
    return torch.cat(parts)


def check_gradient_cache(gradient_cache: int | None, owner: str = "gradient caching") -> None:
    """Refuse a micro-batch of no images.

    Args:
        gradient_cache: As in :func:`pooled_features`.
        owner: What has the option, for the message.

    Raises:
        FieldmarkError: If it is below 1.

    Example:
        >>> check_gradient_cache(0)
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: gradient_cache of gradient caching is 0; expected at least 1 image, or null ...
    """
    if gradient_cache is not None and gradient_cache < 1:
        raise FieldmarkError(
            f"gradient_cache of {owner} is {gradient_cache}; expected at least 1 image, or null for none"
        )


def _pooled(encode: Encode, images: Tensor) -> Tensor:
    return encode(images).mean((-2, -1))


def _cached(encode: Encode, images: Tensor) -> Tensor:
    """Pooled features whose graph is made again when their gradient arrives."""
    again = _Buffers(encode) if isinstance(encode, nn.Module) else contextlib.nullcontext()
    return checkpoint(
        _pooled, encode, images, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again)
    )


class _Buffers:
    """The buffers of a module as they are now; inside this context the module works with copies of them."""

    def __init__(self, module: nn.Module) -> None:
        self.kept = [
            (part, name, value.clone())
            for part in module.modules()
            for name, value in part._buffers.items()
            if value is not None
        ]
        self.own: list[Tensor | None] = []

    def __enter__(self) -> None:
        # Exchanged, not overwritten: the graphs of other micro-batches may still need the numbers.
        self.own = [part._buffers[name] for part, name, _ in self.kept]
        for part, name, value in self.kept:
            part._buffers[name] = value.clone()

    def __exit__(self, *_: object) -> None:
        for (part, name, _value), value in zip(self.kept, self.own, strict=True):
            part._buffers[name] = value
