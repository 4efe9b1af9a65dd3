import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import descriptors
from fieldmark.descriptors.grid import cell_bounds
from fieldmark.errors import FieldmarkError


def pictures(count, side, seed=0):
    return torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_the_official_cell_boundaries(golden):
    rows = golden("extras")["deepemd_grid_size_ratio_g_lo_hi"]
    cases = {tuple(row[:3]) for row in rows}
    assert len(cases) > 3
    for pixels, ratio, size in cases:
        expected = [row[3:].tolist() for row in rows if tuple(row[:3]) == (pixels, ratio, size)]
        low, high = cell_bounds(int(pixels), int(size), torch.arange(int(size)), float(ratio))
        assert [list(pair) for pair in zip(low.tolist(), high.tolist(), strict=True)] == expected


@pytest.mark.parametrize("size", [None, 5, 40])
def test_cells_of_one_colour_keep_it_whatever_they_are_resized_to(size):
    colours = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images = colours.repeat_interleave(7, 2).repeat_interleave(7, 3)
    found = descriptors.create("grid", sizes=4, ratio=1, size=size).eval()(lambda x: x, images)
    torch.testing.assert_close(found, colours.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(("side", "size"), [(84, None), (60, 33), (31, 48)])
def test_enlarged_cells_are_those_of_pillow(side, size):
    """A plain loop: crop and resize (bilinear, antialiased) in bytes, which Pillow rounds twice."""
    images, out = pictures(2, side), size or side
    found = descriptors.create("grid", sizes=(3, 2), size=size).eval().cut(images)
    assert found.shape == (2, 13, 3, out, out)
    for b, image in enumerate(images):
        picture, node = Image.fromarray(image.permute(1, 2, 0).numpy()), 0
        for cells in (3, 2):
            length = side // cells
            for row in range(cells):
                for column in range(cells):
                    ends = [
                        (max(int(np.floor(length * (c - 0.5))), 0), min(int(np.floor(length * (c + 1.5))), side))
                        for c in (row, column)
                    ]
                    box = (ends[1][0], ends[0][0], ends[1][1], ends[0][1])
                    expected = picture.crop(box).resize((out, out), Image.Resampling.BILINEAR)
                    ours = found[b, node].permute(1, 2, 0).numpy() * 255
                    assert np.abs(ours - np.asarray(expected, dtype=np.float64)).max() < 1.5
                    node += 1


def test_an_image_pyramid_is_its_grids_one_after_the_other():
    images, encode = pictures(2, 30), torch.nn.Conv2d(3, 4, 5)
    parts = [descriptors.create("grid", sizes=n).eval()(encode, images.float() / 255) for n in (5, 3, 2)]
    whole = descriptors.create("grid", sizes=(5, 3, 2)).eval()(encode, images.float() / 255)
    assert whole.shape == (2, 38, 4)
    torch.testing.assert_close(whole, torch.cat(parts, dim=1))


def test_in_training_every_cell_of_every_image_is_enlarged_by_its_own_ratio():
    grid = descriptors.create("grid", sizes=(3, 2))
    drawn = grid.windows(50, 84, 84, torch.Generator().manual_seed(0))
    assert len({tuple(one.tolist()) for one in drawn.height}) == 50
    least, most = (descriptors.create("grid", sizes=(3, 2), ratio=r).eval().windows(1, 84, 84, None) for r in (1, 3))
    for start in ("top", "left"):
        assert (getattr(drawn, start) <= getattr(least, start)).all()
        assert (getattr(drawn, start) >= getattr(most, start)).all()
    for length in ("height", "width"):
        assert (getattr(drawn, length) >= getattr(least, length)).all()
        assert (getattr(drawn, length) <= getattr(most, length)).all()
    # The middle cell of 3 x 3 (28 pixels) is never clipped: its side is 28 times the ratio, uniform on [1, 3].
    ratios = grid.windows(4000, 84, 84, torch.Generator().manual_seed(1)).height[:, 4] / 28
    assert ratios.mean().item() == pytest.approx(2, abs=0.04)
    assert ratios.var().item() == pytest.approx(4 / 12, abs=0.02)


def test_training_draws_from_the_given_generator_or_the_global_one():
    grid, images = descriptors.create("grid"), pictures(3, 24)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(grid(lambda x: x, images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    given = [grid(lambda x: x, images, torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*given)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((24, 30), "grid got images of 24 x 30 pixels; expected square ones, or the option size"),
        ((2, 2), "but the images have 2 x 2 pixels; expected at least one pixel a cell"),
    ],
)
def test_images_that_cannot_be_cut_are_refused(shape, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        descriptors.create("grid").eval()(lambda x: x, torch.zeros(1, 3, *shape))
    assert "\n" not in str(caught.value)


def test_images_that_are_not_square_are_cut_when_a_size_is_given():
    colours = torch.rand(1, 3, 3, 3)
    images = colours.repeat_interleave(6, 2).repeat_interleave(10, 3)
    found = descriptors.create("grid", ratio=1.0, size=8).eval()(lambda x: x, images)
    torch.testing.assert_close(found, colours.flatten(2).transpose(1, 2))
