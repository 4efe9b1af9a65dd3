"""Foreground enhancement: both deformable convolutions, the mask, planted objects."""

import pytest
import torch
from torch.nn import functional as F

from fieldmark.alignment import ForegroundEnhancement
from fieldmark.errors import FieldmarkError

WAYS = ["auto", "torchvision", "grid_sample"]


def module(**options):
    torch.manual_seed(0)
    made = ForegroundEnhancement(4, **options).double()
    if made.with_features:
        torch.nn.init.normal_(made.offsets.weight, std=0.3)
        torch.nn.init.uniform_(made.offsets.bias, -1.5, 1.5)
    return made


def results(made, maps):
    maps = maps.clone().requires_grad_()
    out = made(maps)
    out.square().sum().backward()
    return [out.detach(), maps.grad, *(one.grad for one in made.parameters())]


@pytest.mark.parametrize("shape", [(5, 5), (2, 3), (1, 4), (1, 1)])
def test_all_implementations_are_equal_in_values_and_gradients(monkeypatch, shape):
    monkeypatch.setattr("fieldmark.alignment.foreground._AT_ONCE", 2 * 4 * 25 * 9 * 8)  # some images at a time
    maps = torch.randn(5, 4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, *others = (results(module(implementation=way), maps) for way in ("torchvision", "grid_sample", "auto"))
    assert expected[0].abs().max() > 0.1
    for other in others:
        for mine, theirs in zip(other, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_begins_as_a_plain_convolution(way):
    made = ForegroundEnhancement(4, mask=False, implementation=way).double().eval()
    maps = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    plain = F.conv2d(maps, made.weight, padding=1) / (1 + made.norm.eps) ** 0.5
    torch.testing.assert_close(made(maps), plain)


@pytest.mark.parametrize("relu", [False, True])
def test_the_mask_is_that_of_phi(relu):
    made = module(relu=relu).eval()
    maps = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        refined, mask, enhanced = made.refine(maps), made.mask(maps), made(maps)
    for image in range(2):
        mean = refined[image].mean((1, 2))
        for y in range(3):
            for x in range(3):
                place = refined[image, :, y, x]
                cosine = float(mean @ place / mean.norm() / place.norm()) if place.norm() else 0.0
                assert float(mask[image, y, x]) == pytest.approx((cosine + 1) / 2)
                torch.testing.assert_close(enhanced[image, :, y, x], mask[image, y, x] * place)


def test_parts_can_be_left_out():
    maps = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    bare = module(features=False)
    assert list(bare.parameters()) == []
    torch.testing.assert_close(bare(maps), maps * bare.mask(maps).unsqueeze(1))
    assert torch.equal(module(features=False, mask=False)(maps), maps)
    made = module(mask=False).eval()
    assert torch.equal(made(maps), made.refine(maps))


@pytest.mark.parametrize("way", WAYS)
def test_works_in_autocast_and_inference_mode(way):
    made, maps = module(implementation=way).float().eval(), torch.randn(2, 4, 5, 5)
    expected = made(maps)
    with torch.inference_mode():
        torch.testing.assert_close(made(maps), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made(maps).float(), expected, atol=0.2, rtol=0.1)


def test_the_core_operators_can_be_exported():
    made = module(implementation="grid_sample").float().eval()
    maps = torch.randn(2, 4, 5, 5)
    program = torch.export.export(made, (maps,))
    torch.testing.assert_close(program.module()(maps), made(maps))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 0}, "at least 1"), ({"channels": 4, "implementation": "torch"}, "did you mean 'torchvision'")],
)
def test_refused(options, message):
    with pytest.raises(FieldmarkError, match=message):
        ForegroundEnhancement(**options)
    with pytest.raises(FieldmarkError, match=r"expected \(B, 4, h, w\)"):
        module()(torch.ones(1, 3, 2, 2).double())


def planted(images, generator):
    """Objects of one of three kinds, 4x4 places of a 10x10 map, on noise; and where they are."""
    kinds = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(9)), dim=-1) * 4
    labels = torch.randint(3, (images,), generator=generator)
    maps, inside = torch.randn(images, 16, 10, 10, generator=generator), torch.zeros(images, 10, 10, dtype=torch.bool)
    corners = torch.randint(7, (images, 2), generator=generator).tolist()
    for number, (y, x) in enumerate(corners):
        inside[number, y : y + 4, x : x + 4] = True
        maps[number, :, y : y + 4, x : x + 4] += kinds[labels[number]].view(-1, 1, 1)
    return maps, labels, inside


def test_trained_on_planted_objects_the_mask_is_theirs():
    """Learned from the classes alone, by the nearest class mean of the enhanced maps' mean."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    made, classifier = ForegroundEnhancement(16), torch.nn.Linear(16, 3)
    optimizer = torch.optim.Adam([*made.parameters(), *classifier.parameters()], lr=0.01)
    for _ in range(60):
        maps, labels, _ = planted(32, generator)
        loss = F.cross_entropy(classifier(made(maps).mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    maps, _, inside = planted(64, generator)
    mask = made.eval().mask(maps)
    assert mask[inside].mean() - mask[~inside].mean() > 0.1
