"""SCL's two views of an image."""

from __future__ import annotations

from fieldmark.data.augment.base import Augment, create_pipeline


def scl_first(size: int) -> Augment:
    """The first view, and SCL's support augmentation: padded crop, colour jitter 0.4, flip (Ouali et al. 2021).

    Args:
        size: Side of the images; 84 pixels are padded by 8, smaller ones by 4.

    Example:
        >>> import torch
        >>> scl_first(32)(torch.rand(2, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    padding = 8 if size >= 84 else 4
    return create_pipeline([{"name": "random_crop", "padding": padding}, "colour_jitter", "flip"], size)


def scl_second(size: int) -> Augment:
    """The second view: SimCLR's random resized crop, colour jitter, flip, grey with probability 0.2.

    Args:
        size: Side of the images.

    Example:
        >>> import torch
        >>> scl_second(32)(torch.rand(2, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    return create_pipeline(["random_resized_crop", "colour_jitter", "flip", "grayscale"], size)
