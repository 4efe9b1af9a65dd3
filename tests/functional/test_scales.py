"""Scale candidates by a plain loop, and responses against the explicit circulant matrix."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import aligned_scale, circular_scale_response, scale_candidates


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_circulant_matrix(features, weights):
    """Eq. 6 and 7 for one image, part and class: features and weights (S, C)."""
    scales, channels = features.shape
    response = features.new_zeros(scales)
    for k in range(channels):
        matrix = torch.stack([torch.roll(features[:, k], t) for t in range(scales)])  # row t: psi[(n - t) mod S]
        response = response + matrix @ weights[:, k]
    return response


@pytest.mark.parametrize("method", ["fft", "direct", "auto"])
@pytest.mark.parametrize(
    ("scales", "channels"), [(1, 3), (2, 1), (3, 1), (4, 5), (5, 7), (8, 2), (9, 1), (65, 3), (129, 1)]
)
def test_value_shift_and_gradient_are_those_of_the_circulant_matrix(method, scales, channels):
    features, weights = drawn(2, 3, scales, channels).requires_grad_(), drawn(4, 3, scales, channels, seed=1)
    weights.requires_grad_()
    value, shift = circular_scale_response(features, weights, method)
    upstream = drawn(2, 3, 4, seed=2)
    got = torch.autograd.grad((value * upstream).sum(), (features, weights))
    total = 0.0
    for i in range(2):
        for k in range(3):
            for label in range(4):
                response = by_circulant_matrix(features[i, k], weights[label, k])
                best = response.max()
                assert value[i, k, label].item() == pytest.approx(best.item())
                assert int(shift[i, k, label]) == int(response.argmax())
                total = total + best * upstream[i, k, label]
    for mine, theirs in zip(got, torch.autograd.grad(total, (features, weights)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_gradcheck(method):
    given = drawn(2, 2, 5, 3).requires_grad_(), drawn(3, 2, 5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w: circular_scale_response(f, w, method).value, given)


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("scales", [4, 5])
def test_rolling_the_candidates_leaves_the_maximum_and_moves_the_shift(method, scales):
    features, weights = drawn(3, 2, scales, 6), drawn(4, 2, scales, 6, seed=1)
    value, shift = circular_scale_response(features, weights, method)
    for roll in range(scales):
        rolled = circular_scale_response(features.roll(roll, 2), weights, method)
        torch.testing.assert_close(rolled.value, value)
        torch.testing.assert_close(rolled.shift, (shift - roll) % scales)
        # The candidate that comes into the middle is the same one.
        torch.testing.assert_close(aligned_scale(rolled.shift, scales), (aligned_scale(shift, scales) + roll) % scales)


def test_a_shift_that_is_not_cyclic_changes_the_maximum():
    features, weights = drawn(3, 2, 5, 6), drawn(4, 2, 5, 6, seed=1)
    moved = torch.cat([drawn(3, 2, 1, 6, seed=2), features[:, :, :-1]], dim=2)
    change = circular_scale_response(moved, weights).value - circular_scale_response(features, weights).value
    assert change.abs().min() > 1e-3


def test_a_winning_shift_of_zero_keeps_the_box_itself():
    assert aligned_scale(torch.arange(5), 5).tolist() == [2, 1, 0, 4, 3]
    features = drawn(1, 1, 5, 9)
    assert circular_scale_response(features, features).shift.item() == 0
    # Weights that look for what the candidate at n shows in the middle's place choose candidate n.
    for n in range(5):
        shifted = features.roll(2 - n, 2)
        shift = circular_scale_response(features, shifted).shift
        assert aligned_scale(shift, 5).item() == n


def test_half_precision_is_computed_in_float32():
    features, weights = drawn(2, 1, 3, 4).half(), drawn(3, 1, 3, 4, seed=1).half()
    for method in ("fft", "direct"):
        assert circular_scale_response(features, weights, method).value.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            found = circular_scale_response(features.float(), weights.float(), method).value
        torch.testing.assert_close(found, circular_scale_response(features.float(), weights.float(), method).value)


def plain_candidates(boxes, height, width, scales, ratio):
    """The rule in words, corner by corner."""
    middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
    c = (sum(x for x, _ in middles) / len(boxes), sum(y for _, y in middles) / len(boxes))
    out = []
    for left, top, right, bottom in boxes:
        corners = [(x, y) for y in (bottom, top) for x in (right, left)]  # of equal ones the lower right counts
        distances = [math.dist(corner, c) for corner in corners]
        far = corners[distances.index(max(distances))]
        near = corners[len(corners) - 1 - distances[::-1].index(min(distances))]
        for e in range(-(scales // 2), scales // 2 + 1):
            fixed = far if e > 0 else near
            w, h = (right - left) * ratio**e, (bottom - top) * ratio**e
            x0, x1 = (fixed[0] - w, fixed[0]) if fixed[0] == right else (fixed[0], fixed[0] + w)
            y0, y1 = (fixed[1] - h, fixed[1]) if fixed[1] == bottom else (fixed[1], fixed[1] + h)
            out.append([min(max(v, 0), most) for v, most in zip((x0, y0, x1, y1), (width, height) * 2, strict=True)])
    return torch.tensor(out, dtype=torch.float64).view(len(boxes), scales, 4)


@pytest.mark.parametrize("scales", [1, 3, 5])
def test_candidates_grow_from_the_far_corner_and_shrink_to_the_near_one(scales):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(6, 4, 2, generator=generator, dtype=torch.float64) * 60
    boxes = torch.cat([corner, corner + 10 + 30 * torch.rand(6, 4, 2, generator=generator, dtype=torch.float64)], -1)
    found = scale_candidates(boxes, (80, 100), scales, 1.3)
    wanted = torch.stack([plain_candidates(one.tolist(), 80, 100, scales, 1.3) for one in boxes])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found[:, :, scales // 2], torch.stack([b.clamp_max(100) for b in boxes]).minimum(
        torch.tensor([100.0, 80, 100, 80], dtype=torch.float64)))  # fmt: skip


def test_ties_take_the_lower_right_corner_as_the_far_one():
    alone = torch.tensor([[[20.0, 30, 40, 50]]])
    small, itself, large = scale_candidates(alone, (100, 100), 3, 2.0)[0, 0].tolist()
    assert small == [20, 30, 30, 40]  # the upper left stays
    assert itself == alone[0, 0].tolist()
    assert large == [0, 10, 40, 50]  # the lower right stays
    wanted = plain_candidates(alone[0].tolist(), 100, 100, 3, 2.0).float()
    torch.testing.assert_close(scale_candidates(alone, (100, 100), 3, 2.0)[0], wanted)


def test_bad_input_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    boxes = torch.rand(1, 2, 4)
    for bad in (
        lambda: scale_candidates(boxes, (8, 8), 4),
        lambda: scale_candidates(boxes, (8, 8), 3, 1.0),
        lambda: circular_scale_response(torch.rand(1, 2, 3, 4), torch.rand(5, 2, 3, 3)),
        lambda: circular_scale_response(torch.rand(1, 2, 3, 4), torch.rand(5, 2, 3, 4), "fast"),
    ):
        with pytest.raises(FieldmarkError) as caught:
            bad()
        assert "\n" not in str(caught.value)
