"""Scales of part boxes: candidates that grow and shrink from a corner, and responses that align their scales."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.functional.boxes import clip_boxes
from fieldmark.shapes import Float, Int, Tensor

Method = Literal["auto", "fft", "direct"]


class ScaleResponse(NamedTuple):
    """What the scales of parts say about classes.

    Attributes:
        value: ``(B, K, classes)``: the largest response over all shifts.
        shift: ``(B, K, classes)``: the shift t, 0 to S - 1, that gave it.
    """

    value: Tensor
    shift: Tensor


def scale_candidates(
    boxes: Float[Tensor, "B K 4"], image: tuple[int, int], scales: int = 5, ratio: float = 1.2
) -> Float[Tensor, "B K S 4"]:
    """The boxes of an image's parts at several sizes, smallest first, the box itself in the middle.

    Source: SSANET, section 3.2. c is the mean of the middles of an image's boxes. A larger candidate keeps the box's
    corner farthest from c, a smaller one the corner nearest to it; width and height are those of the box times
    ``ratio ** e``, e = -(S-1)/2 .. (S-1)/2. Where several corners are equally far, the right and the lower one count as
    the farther. All are clipped to the image.

    Args:
        boxes: Left, top, right, bottom in pixels.
        image: Its (height, width).
        scales: How many candidates S; odd.
        ratio: Of two neighbouring sizes, above 1.

    Raises:
        FieldmarkError: An even number of scales, or a ratio that is not above 1.

    Example:
        >>> scale_candidates(torch.tensor([[[20.0, 20.0, 40.0, 40.0]]]), (100, 100), scales=3, ratio=2.0)
        tensor([[[[20., 20., 30., 30.],
                  [20., 20., 40., 40.],
                  [ 0.,  0., 40., 40.]]]])
    """
    if scales < 1 or scales % 2 == 0:
        raise FieldmarkError(f"scales is {scales}; expected an odd number, so that the box itself is the middle one")
    if not ratio > 1:
        raise FieldmarkError(f"ratio of scales is {ratio}; expected a number above 1")
    low, high = boxes[..., :2], boxes[..., 2:]
    middle = (low + high) / 2
    farther = middle >= middle.mean(-2, keepdim=True)  # in each direction: the right or lower edge is the far one
    far, near = torch.where(farther, high, low), torch.where(farther, low, high)
    exponents = torch.arange(scales, device=boxes.device, dtype=boxes.dtype) - scales // 2
    factors = (ratio**exponents).view(-1, 1)
    far, near = far.unsqueeze(-2), near.unsqueeze(-2)
    grows = (exponents > 0).view(-1, 1)
    kept, moved = torch.where(grows, far, near), torch.where(grows, near, far)
    moved = kept + (moved - kept) * factors
    candidates = torch.cat([torch.minimum(kept, moved), torch.maximum(kept, moved)], dim=-1)
    candidates[..., scales // 2, :] = boxes  # exactly
    return clip_boxes(candidates, image)


def circular_scale_response(
    features: Float[Tensor, "B K S C"], weights: Float[Tensor, "L K S C"], method: Method = "auto"
) -> ScaleResponse:
    """The largest response of each class over all circular shifts of the scales.

    Source: SSANET, eq. 6 and 7. Summed over channels and scales n, the response of shift t is
    ``y[t] = sum_n w[n] . psi[(n - t) mod S]``, the product of the circulant matrix of the candidates with the weights,
    and by eq. 7 ``F^-1(conj(F psi) * F w)``. The gradient goes through the winning shift (eq. 8). Computed in float32
    or better.

    Args:
        features: psi: of B images, K parts, S candidates, with C numbers each.
        weights: w of L classes, for every part its own.
        method: ``"fft"``; ``"direct"``: all products of two scales, summed along circular diagonals; ``"auto"``: the
            faster one, by :func:`faster_method`. They give the same up to rounding.

    Returns:
        Value and winning shift, both ``(B, K, L)``.

    Raises:
        FieldmarkError: Shapes that do not fit, or an unknown method.

    Example:
        >>> features = torch.tensor([[[[1.0], [5.0], [2.0]]]])
        >>> value, shift = circular_scale_response(features, torch.tensor([[[[0.0], [0.0], [1.0]]]]))
        >>> value, shift  # the second candidate moved by one is where the weight is
        (tensor([[[5.]]]), tensor([[[1]]]))
    """
    if method not in get_args(Method):
        raise unknown_name("method of the scale response", method, get_args(Method))
    if features.shape[1:] != weights.shape[1:] or features.dim() != 4 or 0 in features.shape[2:]:
        raise FieldmarkError(
            f"features are {tuple(features.shape)} and weights {tuple(weights.shape)}; expected (B, K, S, C) and "
            "(classes, K, S, C)"
        )
    with torch.autocast(features.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(features.dtype, weights.dtype), torch.float32)
        features, weights = features.to(dtype), weights.to(dtype)
        if method == "auto":
            method = faster_method(len(features), features.shape[2], features.shape[3], len(weights))
        responses = (_by_fft if method == "fft" else _directly)(features, weights)
        return ScaleResponse(*responses.max(-1))


def faster_method(images: int, scales: int, channels: int, classes: int) -> Literal["fft", "direct"]:
    """Which way is faster, by ``fieldmark bench ssanet``.

    For each class and number the direct product takes S multiplications an image. The transform takes 2 in their place,
    but first S for every class and for every image, and what it transforms it writes and reads, which counts as much as
    the constants here: more for an image than for a class, and more where they do not fit into the cache. So with few
    images, scales or classes the direct product is faster.

    Example:
        >>> faster_method(1, 5, 2048, 200), faster_method(16, 5, 100_352, 200), faster_method(16, 33, 2048, 200)
        ('direct', 'direct', 'fft')
        >>> faster_method(16, 33, 100_352, 12), faster_method(16, 17, 16_384, 100)
        ('direct', 'fft')
    """
    once = _ONCE if channels <= _LONG else _ONCE_LONG
    transform = 2 * images + (scales + once) + (scales + 3 * once) * images / classes
    return "fft" if scales * images > transform else "direct"


_ONCE, _ONCE_LONG, _LONG = 60, 120, 4096
_BY_PRODUCT = 128  # scales up to which the transform is a product


def aligned_scale(shift: Int[Tensor, "*batch"], scales: int) -> Int[Tensor, "*batch"]:
    """The candidate that a winning shift puts in the middle's place: ``(c - t) mod S`` with c the middle.

    Example:
        >>> aligned_scale(torch.tensor([0, 1, 4]), scales=5)
        tensor([2, 1, 3])
    """
    return (scales // 2 - shift) % scales


def _directly(features: Tensor, weights: Tensor) -> Tensor:
    """Responses (B, K, L, S) of all shifts, from the products of every candidate with every scale of the weights."""
    (images, _, scales, _), classes = features.shape, len(weights)
    filters = weights.transpose(0, 1).flatten(1, 2)  # no copy where a part's weights lie side by side
    given = features.transpose(0, 1).flatten(1, 2)
    products = (filters @ given.mT).unflatten(2, (images, scales)).unflatten(1, (classes, scales))
    n = torch.arange(scales, device=features.device)
    m = (n - n.unsqueeze(1)) % scales  # of shift t (rows) and scale n (columns)
    return products.movedim(2, -2)[..., n, m].sum(-1).permute(2, 0, 1, 3)


def _by_fft(features: Tensor, weights: Tensor) -> Tensor:
    """Responses (B, K, L, S) by eq. 7, in real numbers: conj(X) W = (Xr Wr + Xi Wi) + i (Xr Wi - Xi Wr)."""
    scales = features.shape[2]
    given, filters = _transformed(features), _transformed(weights)
    turned = torch.stack([-given[:, :, :, 1], given[:, :, :, 0]], dim=3)
    left = torch.stack([given, turned], dim=3).flatten(-2).permute(1, 2, 3, 0, 4).flatten(2, 3)  # (K, F, 2 B, 2 C)
    right = filters.flatten(-2).permute(1, 2, 3, 0)  # (K, F, 2 C, L)
    found = (left @ right).unflatten(2, (2, len(features)))  # (K, F, real and imaginary, B, L)
    return torch.einsum("kfpbl,fpt->bklt", found, _inverse(scales, features))


def _transformed(signals: Tensor) -> Tensor:
    """Fourier transform of (N, K, S, C) along the scales, as real numbers (N, K, S // 2 + 1, 2, C).

    So few scales are transformed faster by a product with the transform's matrix than by a fast transform along a
    dimension that is not the last.
    """
    scales = signals.shape[2]
    if scales > _BY_PRODUCT:
        return torch.view_as_real(torch.fft.rfft(signals, dim=2)).movedim(-1, -2)
    angles = _angles(scales, signals)
    matrix = torch.stack([angles.cos(), -angles.sin()], dim=1).flatten(0, 1).to(signals.dtype)
    return (matrix @ signals).unflatten(2, (-1, 2))


def _inverse(scales: int, like: Tensor) -> Tensor:
    """The inverse transform as a tensor (frequencies, real and imaginary, shifts)."""
    angles = _angles(scales, like)
    twice = torch.full((len(angles), 1), 2.0, dtype=angles.dtype, device=angles.device)  # and their conjugates
    twice[0] = 1
    if scales % 2 == 0:
        twice[-1] = 1
    return torch.stack([angles.cos() * twice, -angles.sin() * twice], dim=1).div(scales).to(like.dtype)


def _angles(scales: int, like: Tensor) -> Tensor:
    f, n = (torch.arange(count, device=like.device) for count in (scales // 2 + 1, scales))
    # The remainder first: it is exact, and the angle stays small.
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    return (f.unsqueeze(1) * n % scales).to(dtype) * (2 * math.pi / scales)
