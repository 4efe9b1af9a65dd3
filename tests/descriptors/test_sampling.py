import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import descriptors


def pictures(count, side):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_windows_do_not_depend_on_how_the_images_are_grouped(parts):
    """One generator over data in order; in evaluation mode as in training."""
    sampling, images = descriptors.create("sampling", patches=4).eval(), pictures(6, 20)
    together = sampling.cut(images, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    apart = torch.cat([sampling.cut(part, generator) for part in images.split(parts)])
    torch.testing.assert_close(together, apart)
    assert not torch.equal(together, sampling.cut(images, torch.Generator().manual_seed(6)))


def test_windows_follow_torchvision_and_lie_inside_the_image():
    transforms = pytest.importorskip("torchvision.transforms")
    sampling = descriptors.create("sampling")
    found = sampling.windows(200, 60, 80, torch.Generator().manual_seed(0))
    assert found.height.shape == (200, 25)
    assert min(found.top.min(), found.left.min()) >= 0
    assert min(found.height.min(), found.width.min()) >= 1
    assert (found.top + found.height).max() <= 60
    assert (found.left + found.width).max() <= 80
    torch.manual_seed(0)
    image = torch.empty(3, 60, 80)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(5000)]
    ).double()
    ours = torch.stack([found.top, found.left, found.height, found.width], -1).double().flatten(0, 1)
    spread = theirs.std(0) * (2 / 5000) ** 0.5
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * spread).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.06)
    assert found.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_windows_are_those_of_pillow(flip):
    """A plain loop: crop, resize (bilinear, antialiased) and mirror in bytes."""
    images, sampling = pictures(2, 40), descriptors.create("sampling", patches=5, flip=flip, size=24)
    found = sampling.cut(images, torch.Generator().manual_seed(2))
    places = sampling.windows(2, 40, 40, torch.Generator().manual_seed(2))
    for b, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        for n in range(5):
            top, left, height, width = (
                int(side[b, n]) for side in (places.top, places.left, places.height, places.width)
            )
            expected = picture.crop((left, top, left + width, top + height)).resize((24, 24), Image.Resampling.BILINEAR)
            if flip:
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            ours = found[b, n].permute(1, 2, 0).numpy() * 255
            assert np.abs(ours - np.asarray(expected, dtype=np.float64)).max() < 1.5


def test_without_a_generator_the_global_one_is_used():
    sampling, images = descriptors.create("sampling", patches=3), pictures(2, 16)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(sampling(lambda x: x, images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_window_is_one_node():
    """Nodes are the means of the windows' maps."""
    sampling, images, encode = descriptors.create("sampling", patches=3), pictures(2, 16), torch.nn.Conv2d(3, 4, 3)
    found = sampling(encode, images, torch.Generator().manual_seed(0))
    windows = sampling.cut(images, torch.Generator().manual_seed(0))
    for b in range(2):
        for n in range(3):
            torch.testing.assert_close(found[b, n], encode(windows[b, n][None])[0].mean((1, 2)))
