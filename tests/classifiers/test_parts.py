"""NTS-Net and SSANET as classifiers: where they look, what they add up, and what must not matter."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch.nn import functional as F

from fieldmark import backbones, classifiers
from fieldmark.classifiers.part_features import cut_boxes
from fieldmark.errors import FieldmarkError
from fieldmark.functional import box_overlap, circular_scale_response, oriented_pool, region_maps

CLASSES, CHANNELS = 5, 6


def encode(images):
    """Maps of stride 16 that show where the image is bright, in three scales of brightness."""
    maps = F.avg_pool2d(images, 16)
    return torch.cat([maps, maps.square()], dim=1)


def made(name="ssanet", seed=0, **options):
    torch.manual_seed(seed)
    classifier = classifiers.create(name, **options)
    classifier.setup(CHANNELS, CLASSES)
    return classifier.eval()


def images(count=3, side=128, seed=1):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


ROWS = {
    "P, GAP": {"dsm": "none", "pooling": "gap"},
    "GMP": {"dsm": "none", "pooling": "gmp"},
    "OP": {"dsm": "none"},
    "DSM": {"pooling": "none"},
    "DSM(fixed)": {"dsm": "fixed", "pooling": "none"},
    "DSM(1)": {"dsm": "max", "pooling": "none"},
    "SPP": {"dsm": "spp", "pooling": "none"},
    "FPN": {"dsm": "fpn", "pooling": "none"},
    "all": {},
    "flatten": {"dsm_feature": "flatten"},
    "re-extract": {"features": "reextract", "part_size": 112},
    "own OP weights, K = 2, S = 3": {"op_weights": "per_part", "parts": 2, "scales": 3},
    "one scale": {"scales": 1},
}


@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
def test_every_row_scores_and_learns(options):
    classifier = made(**options).train()
    given = images()
    scores = classifier(encode, given)
    assert scores.shape == (3, CLASSES)
    found = classifier.look(encode, given, torch.tensor([0, 1, 2]), classifier.proposals)
    (F.cross_entropy(found.logits, torch.tensor([0, 1, 2])) + found.parts.square().mean()).backward()
    still = [name for name, one in classifier.named_parameters() if one.grad is None and "navigator" not in name]
    assert still == []


@pytest.mark.parametrize("name", ["nts", "ssanet"])
@pytest.mark.parametrize("options", [{}, {"features": "reextract", "part_size": 64}])
def test_predictions_do_not_depend_on_the_batch(name, options):
    classifier, given = made(name, **options), images(5)
    with torch.no_grad():
        together = classifier(encode, given)
        alone = torch.cat([classifier(encode, one[None]) for one in given])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", ["nts", "ssanet"])
def test_it_runs_on_a_backbone_at_any_size(name):
    torch.manual_seed(0)
    encoder = backbones.Encoder(backbones.create("conv4", channels=8), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    classifier = classifiers.create(name)
    classifier.setup(encoder.channels, CLASSES)
    with torch.no_grad():
        for side in (16, 40, 96):
            assert torch.isfinite(classifier(encoder, images(2, side))).all()


def plant(at, side=448, size=64):
    image = torch.zeros(1, 3, side, side)
    x, y = at
    image[..., y - size // 2 : y + size // 2, x - size // 2 : x + size // 2] = 1
    return image


def bright(images):
    return F.avg_pool2d(images, 32)


def learned_navigator():
    """A navigator that was taught, by the ranking loss, that boxes are good by how much of a planted part they show."""
    torch.manual_seed(0)
    classifier = classifiers.create("ssanet", dsm="none", pooling="gap")
    classifier.setup(3, 2)
    optimizer = torch.optim.Adam(classifier.navigator.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    from fieldmark.functional import make_anchors, ranking_loss

    anchors = make_anchors((448, 448), (14, 14))
    for _ in range(60):
        places = torch.randint(64, 384, (8, 2), generator=generator)
        batch = torch.cat([plant(place.tolist()) for place in places])
        parts = torch.cat([places - 32, places + 32], dim=1).float()
        some = torch.cat([box_overlap(parts, anchors).topk(30).indices,
                          torch.randint(len(anchors), (8, 30), generator=generator)], dim=1)  # fmt: skip
        scores = classifier.navigator(bright(batch)).gather(1, some)
        loss = ranking_loss(scores, box_overlap(parts, anchors).gather(1, some))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def test_a_part_that_moves_by_64_pixels_moves_the_top_proposal_by_64_within_a_stride():
    classifier = learned_navigator()
    with torch.no_grad():
        for start in ((128, 128), (176, 240), (250, 190)):
            middles = []
            for move in (0, 64):
                at = (start[0] + move, start[1])
                box = classifier.propose(bright, plant(at), 1).boxes[0, 0]
                middles.append((box[:2] + box[2:]) / 2)
                assert (middles[-1] - torch.tensor(at)).abs().max() <= 32  # on the part
            moved = middles[1] - middles[0]
            assert abs(float(moved[0]) - 64) <= 32
            assert abs(float(moved[1])) <= 32


def test_nothing_flows_from_the_navigator_into_the_features():
    classifier = made()
    maps = torch.rand(2, CHANNELS, 8, 8, requires_grad=True)
    classifier.navigator(maps).sum().backward()
    assert maps.grad is None
    assert all(one.grad is not None for one in classifier.navigator.parameters())


def test_the_parts_are_the_best_proposals_and_lie_in_the_image():
    classifier = made()
    with torch.no_grad():
        few, many = (classifier.look(encode, images(), proposals=count).found for count in (4, 6))
    torch.testing.assert_close(few.boxes, many.boxes[:, :4])
    assert (many.scores.diff(dim=1) <= 0).all()
    assert many.boxes.min() >= 0
    assert many.boxes.max() <= 128


def test_scores_add_up_and_the_aligned_box_is_the_one_that_the_class_chose():
    classifier = made(seed=3)
    given, labels = images(4), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        trained = classifier.look(encode, given, labels)
        tested = classifier.look(encode, given)
        torch.testing.assert_close(tested.logits, tested.scale + tested.oriented)
        maps = torch.stack(
            [region_maps(tested.found.maps, tested.candidates[:, :, s], (128, 128), 7) for s in range(5)], 2
        )
        features = maps.mean((-2, -1)) / 5**0.5
        value, shift = circular_scale_response(features, classifier.dsm.weight.transpose(0, 1), "direct")
        torch.testing.assert_close(tested.scale, value.mean(1))
        for one, classes in ((trained, labels), (tested, value.mean(1).argmax(1))):
            for i, label in enumerate(classes.tolist()):
                winner = (2 - shift[i, :, label]) % 5
                assert one.winner[i].tolist() == winner.tolist()
                torch.testing.assert_close(one.boxes[i], one.candidates[i][torch.arange(4), winner])
                torch.testing.assert_close(one.maps[i], maps[i][torch.arange(4), winner])
        pooled = oriented_pool(tested.maps.flatten(0, 1)).unflatten(0, (4, 4)) / 27**0.5
        wanted = torch.einsum("bkge,le->bkgl", pooled, classifier.op.weight[0]).amax(2).mean(1)
        torch.testing.assert_close(tested.oriented, wanted)


def test_the_rows_of_table_5_differ_in_the_response_alone():
    full, fixed, single = (made(dsm=dsm, pooling="none", seed=4) for dsm in ("full", "fixed", "max"))
    fixed.load_state_dict(full.state_dict())
    with torch.no_grad():
        a, b = full.look(encode, images()), fixed.look(encode, images())
        assert (a.scale >= b.scale - 1e-6).all()  # the unshifted response is one of those that the maximum is over
        assert (b.winner == 2).all()
        c = single.look(encode, images())
        features = torch.stack([region_maps(c.found.maps, c.candidates[:, :, s], (128, 128), 7) for s in range(5)], 2)
        each = torch.einsum("bksd,kld->bksl", features.mean((-2, -1)), single.dsm.weight[:, :, 0])
        torch.testing.assert_close(c.scale, each.amax(2).mean(1))


def test_nts_decides_by_the_whole_image_and_its_best_parts():
    classifier = made("nts")
    with torch.no_grad():
        found = classifier.look(encode, images())
        vectors = region_maps(found.found.maps, found.found.boxes, (128, 128), 7).mean((-2, -1))
        whole = encode(images()).mean((-2, -1))
        torch.testing.assert_close(found.parts, classifier.fc(vectors))
        torch.testing.assert_close(found.logits, classifier.together(torch.cat([vectors[:, :4].flatten(1), whole], 1)))
        torch.testing.assert_close(classifier(encode, images()), found.logits)


def test_region_maps_are_means_over_cells_of_a_linear_map():
    x = torch.arange(8.0).add(0.5).mul(16).expand(8, 8)  # the value is the x of the place's middle, in pixels
    maps = torch.stack([x, x.T]).unsqueeze(0)
    boxes = torch.tensor([[[16.0, 24.0, 72.0, 94.0]]])
    found = region_maps(maps, boxes, (128, 128), 7)[0, 0]
    torch.testing.assert_close(found[0], (16 + 8 * torch.arange(7.0).add(0.5)).expand(7, 7))
    torch.testing.assert_close(found[1], (24 + 10 * torch.arange(7.0).add(0.5)).expand(7, 7).T)


def test_cut_boxes_are_what_lies_in_them():
    given = images(2, 32)
    boxes = torch.tensor([[[0.0, 0, 32, 32], [8.2, 3.9, 24, 20]], [[30.9, 31, 32, 32], [0, 0, 16, 16]]])
    cut = cut_boxes(given, boxes, 16).unflatten(0, (2, 2))
    torch.testing.assert_close(cut[0, 1], given[0, :, 4:20, 8:24])
    torch.testing.assert_close(cut[1, 1], given[1, :, :16, :16])
    torch.testing.assert_close(cut[0, 0], F.interpolate(given[:1], (16, 16), mode="bilinear", antialias=True)[0])
    torch.testing.assert_close(cut[1, 0], given[1, :, 31:, 31:].expand(3, 16, 16))


def test_an_encoder_with_a_crop_sees_the_boxes_where_they_are():
    torch.manual_seed(0)
    backbone = backbones.create("conv4", channels=8)
    plain, cropping = (
        backbones.Encoder(backbone, mean=(0.5,) * 3, std=(0.25,) * 3, crop=crop).eval() for crop in (None, 96)
    )
    for features in ("shared", "reextract"):
        classifier = classifiers.create("ssanet", features=features, part_size=64)
        classifier.setup(8, CLASSES)
        given = images(2, 128)
        with torch.no_grad():
            inside = given[..., 16:112, 16:112]
            torch.testing.assert_close(classifier(cropping, given), classifier(plain, inside))


def test_wrong_options_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside tests
    for options in (
        {"dsm": "none", "pooling": "none"}, {"dsm": "ful"}, {"pooling": "mean"}, {"scales": 4}, {"scale_ratio": 1},
        {"parts": 0}, {"parts": 7}, {"features": "roi"}, {"patch": 4}, {"overlap": 2}, {"anchor_size": 0}, {"part": 3},
        {"op_weights": "own"}, {"dsm_feature": "flat"}, {"dsm_method": "slow"}, {"part_size": 0}, {"scales": "5"},
    ):  # fmt: skip
        with pytest.raises(FieldmarkError) as caught:
            classifiers.create("ssanet", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(FieldmarkError, match="dropout"):
        classifiers.create("nts", dropout=1.0)
