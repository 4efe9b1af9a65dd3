"""Every operation against torchvision's with the same parameters, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from fieldmark.data import augment
from fieldmark.data.augment import colour, geometry
from fieldmark.errors import FieldmarkError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(16, 3, 32, 32)


CONTRACT = {name: {} for name in augment.AUGMENTATIONS.names()}


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name, images):
    """Registered augmentations are repeatable, keep range, type and size, and leave their input alone."""
    pipeline = augment.create_pipeline([name], size=32)
    before = images.clone()
    first, second = pipeline(images, generator(3)), pipeline(images, generator(3))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1 + 1e-6
    eight = (images * 255).to(torch.uint8)
    assert torch.allclose(pipeline(eight, generator(3)), pipeline(eight.float() / 255, generator(3)))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a training step in mixed precision calls it
        assert torch.equal(pipeline(images, generator(3)), first)


@pytest.mark.parametrize("name", sorted(set(CONTRACT) - {"resize", "center_crop"}))
def test_images_of_a_batch_draw_their_own_parameters(name, images):
    same = images[:1].expand(64, -1, -1, -1).contiguous()
    options = {"padding": 4} if name == "random_crop" else {}
    out = augment.create_pipeline([{"name": name, **options}], size=32)(same, generator(1))
    assert len(torch.unique(out.flatten(1), dim=0)) >= 2


def test_random_crop_is_a_window_of_the_padded_image(images):
    out = augment.RandomCrop(32, padding=4)(images, generator(5))
    padded = tv.pad(images, [4] * 4)
    for image, window in zip(padded, out, strict=True):
        windows = image.unfold(1, 32, 1).unfold(2, 32, 1)
        assert (windows == window[:, None, None]).all((0, 3, 4)).any()


def test_crop_places_are_uniform():
    ramp = torch.arange(40.0).view(1, 1, 1, 40).expand(4000, 3, 40, 40) / 100
    left = (augment.RandomCrop(32)(ramp, generator())[:, 0, 0, 0] * 100).round().long()
    counts = torch.bincount(left, minlength=9)
    assert len(counts) == 9
    assert counts.min() > 4000 / 9 * 0.8


def test_flip_rate_and_value(images):
    many = images.repeat(200, 1, 1, 1)
    out = augment.Flip(0.3)(many, generator())
    flipped = (out == many.flip(-1)).all((1, 2, 3))
    kept = (out == many).all((1, 2, 3))
    assert (flipped | kept).all()
    assert abs(float(flipped.float().mean()) - 0.3) < 0.03


@pytest.mark.parametrize("size", [32, 20, 84])
def test_random_resized_crop_equals_torchvision(images, size):
    step = augment.RandomResizedCrop(size)
    out = step(images, generator(2))
    for image, result, *window in zip(images, out, *step.window(images, generator(2)), strict=True):
        top, left, height, width = (int(v) for v in window)
        expected = tv.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        assert torch.allclose(result, expected, atol=1e-5)


def test_resized_crop_windows_follow_scale_and_ratio():
    many = torch.zeros(3000, 3, 64, 64)
    top, left, height, width = augment.RandomResizedCrop(32, scale=(0.2, 0.6)).window(many, generator())
    share = height * width / 64**2
    assert float(share.min()) > 0.17
    assert float(share.max()) < 0.65
    assert abs(float(share.mean()) - 0.4) < 0.02
    assert float((width / height).min()) > 0.7
    assert float((top + height).max()) <= 64
    assert float((left + width).max()) <= 64


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (colour.brightness, tv.adjust_brightness, (0.0, 0.6, 1.0, 1.4)),
        (colour.contrast, tv.adjust_contrast, (0.0, 0.6, 1.0, 1.4)),
        (colour.saturation, tv.adjust_saturation, (0.0, 0.6, 1.0, 1.4)),
        (colour.hue, tv.adjust_hue, (-0.5, -0.2, 0.0, 0.1, 0.5)),
    ],
)
def test_colours_equal_torchvision(images, ours, theirs, factors):
    images[0] = 0.5  # grey has no hue
    for factor in factors:
        expected = torch.stack([theirs(image, factor) for image in images])
        out = ours(images, torch.full((len(images), 1, 1, 1), factor))
        assert torch.allclose(out, expected, atol=2e-5)


def test_jitter_applies_each_change_once_in_some_order(images):
    """Every output is one of the 3! orders of the three changes with that image's factors."""
    from itertools import permutations

    step = augment.ColourJitter(0.4, 0.3, 0.2)
    out = step(images, generator(7))
    source = generator(7)
    torch.rand(len(images), generator=source)
    torch.rand(len(images), 3, generator=source)
    factors = {
        name: 1 - a + 2 * a * torch.rand(len(images), generator=source)
        for name, a in (("brightness", 0.4), ("contrast", 0.3), ("saturation", 0.2))
    }
    change = {"brightness": tv.adjust_brightness, "contrast": tv.adjust_contrast, "saturation": tv.adjust_saturation}
    orders = set()
    for i, image in enumerate(images):
        for order in permutations(change):
            expected = image
            for name in order:
                expected = change[name](expected, float(factors[name][i]))
            if torch.allclose(out[i], expected, atol=1e-4):
                orders.add(order)
                break
        else:
            pytest.fail(f"image {i} is no order of the three changes")
    assert len(orders) > 2


def test_grayscale_rate(images):
    many = images.repeat(100, 1, 1, 1)
    out = augment.Grayscale(0.2)(many, generator())
    is_grey = (out[:, 0] == out[:, 1]).all((1, 2))
    assert abs(float(is_grey.float().mean()) - 0.2) < 0.03
    assert torch.allclose(out[is_grey], tv.rgb_to_grayscale(many[is_grey], 3), atol=1e-5)


def test_quarter_turns_equal_rot90(images):
    turns = torch.arange(16) % 5
    out = geometry.rotate90(images, turns)
    for image, turned, k in zip(images, out, turns.tolist(), strict=True):
        assert torch.equal(turned, torch.rot90(image, k, (1, 2)))


@pytest.mark.parametrize("name", ["rand_augment", "auto_augment"])
def test_policies_equal_torchvision_operations(name, images):
    """Each image is what torchvision's own transform makes of it alone with the same draws."""
    step = augment.AUGMENTATIONS.create(name)
    together = step(images, generator(4))
    assert (together != images).any((1, 2, 3)).float().mean() > 0.5
    eight = (images * 255).round().to(torch.uint8)
    if name == "rand_augment":
        source = generator(4)
        chosen = torch.randint(0, len(step._space), (16, 2), generator=source)
        signs = torch.rand(16, 2, generator=source)
        names = list(step._space)
        for i in range(16):
            image = eight[i]
            for place in range(2):
                op = names[chosen[i, place]]
                make, signed = step._space[op]
                level = make(31, 32, 32)
                value = 0.0 if level is None else float(level[9])
                value = -value if signed and signs[i, place] < 0.5 else value
                image = step._transform._apply_image_or_video_transform(
                    image, op, value, tv.InterpolationMode.NEAREST, {}
                )
            assert torch.equal((together[i] * 255).round().to(torch.uint8), image)
        return
    source = generator(4)
    rows = torch.randint(0, len(step._policies), (16,), generator=source)
    drawn = torch.rand(16, 4, generator=source)
    for i in range(16):
        image = eight[i]
        for place, (op, probability, level) in enumerate(step._policies[rows[i]]):
            if drawn[i, place] > probability:
                continue
            make, signed = step._space[op]
            levels = make(10, 32, 32)
            value = 0.0 if levels is None else float(levels[level])
            value = -value if signed and drawn[i, 2 + place] < 0.5 else value
            image = step._transform._apply_image_or_video_transform(image, op, value, tv.InterpolationMode.NEAREST, {})
        assert torch.equal((together[i] * 255).round().to(torch.uint8), image)


def test_scl_views_are_as_published():
    names = [type(step).__name__ for step in augment.scl_first(84).steps]
    assert names == ["RandomCrop", "ColourJitter", "Flip"]
    assert augment.scl_first(84).steps[0].padding == 8
    assert augment.scl_first(32).steps[0].padding == 4
    assert [type(step).__name__ for step in augment.scl_second(32).steps][-1] == "Grayscale"
    assert augment.scl_second(32)(torch.rand(2, 3, 40, 40), generator()).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fliip", "did you mean 'flip'"),
        ({"name": "flip", "prob": 1}, "unknown option"),
        ({"name": "flip", "p": 2}, "expected 0 to 1"),
        ({"padding": 4}, "has no name"),
        ({"name": "colour_jitter", "hue": 0.9}, "expected 0 to 0.5"),
        ({"name": "random_resized_crop", "scale": [0.5, 0.1]}, "0 < low <= high"),
        ({"name": "auto_augment", "policy": "imagenett"}, "did you mean 'imagenet'"),
    ],
)
def test_bad_specs_are_refused_before_anything_runs(spec, message):
    with pytest.raises(FieldmarkError, match=message):
        augment.create_pipeline([spec], size=32)


def test_too_small_images_are_named():
    with pytest.raises(FieldmarkError, match="cannot be cut from images of 8 x 8"):
        augment.RandomCrop(32)(torch.zeros(1, 3, 8, 8), generator())
    with pytest.raises(FieldmarkError, match="square"):
        augment.rotate90(torch.zeros(1, 3, 8, 9), torch.tensor([1]))
