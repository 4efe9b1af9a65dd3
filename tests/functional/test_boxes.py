"""Anchors, overlaps and greedy suppression against torchvision and plain loops."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torchvision import ops

from fieldmark.errors import FieldmarkError
from fieldmark.functional import box_overlap, clip_boxes, make_anchors, top_boxes


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = 80 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corner, corner + 5 + 60 * torch.rand(*shape, 2, generator=generator)], dim=-1)


def test_anchors_are_those_of_nts_net_at_448():
    anchors = make_anchors((448, 448), (14, 14))
    assert len(anchors) == 1614
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt()
    levels = sides.split([14 * 14 * 6, 7 * 7 * 6, 4 * 4 * 9])
    for level, size in zip(levels, (48, 96, 192), strict=True):
        scales = [2 ** (1 / 3), 2 ** (2 / 3)] if size < 192 else [1, 2 ** (1 / 3), 2 ** (2 / 3)]
        wanted = torch.tensor([size * one for one in scales])
        assert (level.unsqueeze(1) / wanted - 1).abs().amin(1).max() < 1e-5
        assert (level.unsqueeze(1) / wanted - 1).abs().amin(0).max() < 1e-5
    ratios = (anchors[:, 2] - anchors[:, 0]) / (anchors[:, 3] - anchors[:, 1])
    assert sorted({round(float(ratio), 3) for ratio in ratios}) == [0.667, 1.0, 1.5]
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    torch.testing.assert_close(middles[:14], torch.stack([16 + 32 * torch.arange(14.0), torch.full((14,), 16.0)], 1))
    assert middles[-1].tolist() == [448, 448]  # the last place of stride 128


@pytest.mark.parametrize(("image", "grid"), [((224, 224), (7, 7)), ((300, 200), (9, 5)), ((32, 32), (1, 1))])
def test_anchors_go_by_the_strides_of_any_map(image, grid):
    anchors, doubled = make_anchors(image, grid), make_anchors((2 * image[0], 2 * image[1]), grid)
    places = [(-(-grid[0] // k)) * (-(-grid[1] // k)) for k in (1, 2, 4)]
    assert len(anchors) == 6 * places[0] + 6 * places[1] + 9 * places[2]
    torch.testing.assert_close(doubled, 2 * anchors)


def test_overlaps_are_torchvisions():
    first, second = random_boxes(40), random_boxes(30, seed=1)
    torch.testing.assert_close(box_overlap(first, second), ops.box_iou(first, second))


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.7])
@pytest.mark.parametrize("own_boxes", [False, True])
def test_the_best_boxes_are_those_of_torchvisions_suppression(threshold, own_boxes):
    boxes = random_boxes(6, 200) if own_boxes else random_boxes(200)
    scores = torch.randn(6, 200, generator=torch.Generator().manual_seed(2))
    wanted = [ops.nms(boxes[i] if own_boxes else boxes, scores[i], threshold) for i in range(6)]
    count = min(len(one) for one in wanted)
    assert count >= 4
    torch.testing.assert_close(top_boxes(boxes, scores, count, threshold), torch.stack([one[:count] for one in wanted]))


def test_anchors_are_suppressed_as_by_torchvision():
    anchors = make_anchors((224, 224), (7, 7))
    scores = torch.randn(3, len(anchors), generator=torch.Generator().manual_seed(3))
    for row, found in zip(scores, top_boxes(anchors, scores, 6), strict=True):
        torch.testing.assert_close(found, ops.nms(anchors, row, 0.25)[:6])


def test_the_best_dropped_boxes_follow_where_too_few_are_left():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [50, 50, 60, 60]])
    assert top_boxes(boxes, torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 4).tolist() == [[0, 3, 2, 1]]


def test_an_image_is_judged_for_itself():
    boxes, scores = random_boxes(100), torch.randn(5, 100, generator=torch.Generator().manual_seed(4))
    together = top_boxes(boxes, scores, 6)
    torch.testing.assert_close(together, torch.cat([top_boxes(boxes, row[None], 6) for row in scores]))


def test_bad_input_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    boxes, scores = random_boxes(3), torch.zeros(1, 3)
    for bad in (
        lambda: top_boxes(boxes, scores, 4),
        lambda: top_boxes(boxes, scores, 1, 1.5),
        lambda: make_anchors((0, 4), (1, 1)),
        lambda: make_anchors((4, 4), (1, 1), ratios=[0]),
        lambda: make_anchors((4, 4), (1, 1), size=0.0),
    ):
        with pytest.raises(FieldmarkError) as caught:
            bad()
        assert "\n" not in str(caught.value)


def test_clipping_keeps_what_lies_inside():
    boxes = random_boxes(50) - 20
    torch.testing.assert_close(clip_boxes(boxes, (90, 70)), ops.clip_boxes_to_image(boxes, (90, 70)))
