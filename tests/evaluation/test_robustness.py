"""Robustness: what is done to the images, and that it is done to each image for itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import backbones, classifiers
from fieldmark.backbones import Encoder
from fieldmark.classifiers.trained import keep
from fieldmark.data import ImageStore, Manifest
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation import evaluate_robustness, evaluate_top1
from fieldmark.evaluation.robustness import make_change, reduce_images

NAMES = ["a", "b", "c"]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(45) % 3
    pixels = rng.integers(0, 120, (45, 24, 24, 3))
    for number, label in enumerate(labels):
        pixels[number, 8 * label : 8 * label + 8] += 130  # one bar, high, in the middle or low
    return ImageStore.from_arrays(pixels.astype(np.uint8), labels, NAMES, Manifest("bars", split="test"))


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    made = classifiers.create("linear")
    made.setup(16, 3)
    backbone = backbones.create("conv4", channels=16, last_pool=False)
    return Encoder(backbone, (0.5,) * 3, (0.2,) * 3, classifier=keep(made, NAMES)).eval()


def images(count=12, size=24):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def test_each_image_is_turned_by_one_of_three_angles_as_pillow_turns_it():
    batch = images()
    turned = make_change("rotated", 12, seed=3)(batch, np.arange(12))
    found = []
    for before, after in zip(batch, turned, strict=True):
        picture = Image.fromarray(before.permute(1, 2, 0).numpy())
        by = [angle for angle in (0, 90, 180, 270)
              if np.array_equal(np.asarray(picture.rotate(angle)), after.permute(1, 2, 0).numpy())]  # fmt: skip
        found += by
    assert len(found) == 12
    assert set(found) == {90, 180, 270}


def test_any_angle_is_drawn_evenly_and_fills_with_black():
    white = torch.full((300, 3, 21, 21), 255, dtype=torch.uint8)
    turned = make_change("any_angle", 300)(white, np.arange(300))
    assert turned.dtype == torch.uint8
    assert (turned[..., 10, 10] == 255).all()  # the middle stays
    corners = (turned[..., 0, 0] == 0).float().mean()
    assert corners > 0.8  # nearly every angle takes the corner away
    spread = {tuple(one.flatten().tolist()) for one in turned[:50]}
    assert len(spread) > 40


def test_reduced_images_are_small_and_centred_on_black():
    batch = torch.full((2, 3, 448, 448), 90, dtype=torch.uint8)
    small = reduce_images(batch, 300 / 448)
    inside = small[..., 74:374, 74:374]
    assert (inside == 90).all()
    assert small.sum() == inside.sum()
    odd = images(2, 25)
    rows = (reduce_images(odd, 0.5).float().amax((0, 1, 3)) > 0).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (6, 17)  # 12 of 25
    shrunk = np.asarray(Image.fromarray(odd[0].permute(1, 2, 0).numpy()).resize((12, 12), Image.Resampling.BILINEAR))
    ours = reduce_images(odd, 0.5)[0, :, 6:18, 6:18].permute(1, 2, 0).numpy()
    assert np.abs(shrunk.astype(int) - ours).max() <= 1
    floats = reduce_images(odd.float() / 255, 0.5)[0, :, 6:18, 6:18].permute(1, 2, 0).numpy()
    assert np.abs(floats * 255 - ours).max() < 1


@pytest.mark.parametrize("name", ["rotated", "any_angle", "reduced"])
def test_an_image_is_changed_in_the_same_way_in_whatever_batch(name):
    batch, change = images(), make_change(name, 12, seed=1)
    whole = change(batch, np.arange(12))
    for numbers in ([5], [11, 2, 5]):
        assert torch.equal(change(batch[numbers], np.array(numbers)), whole[numbers])
    if name != "reduced":
        assert not torch.equal(make_change(name, 12, seed=2)(batch, np.arange(12)), whole)


def test_predictions_do_not_depend_on_the_batch_size(encoder, data):
    one, other = (evaluate_robustness(encoder, data, batch_size=size, progress=False) for size in (1, 16))
    assert list(one.columns) == ["plain", "rotated", "any_angle", "reduced"]
    for name, column in one.columns.items():
        assert np.array_equal(column.predicted, other.columns[name].predicted), name


def test_each_column_is_top1_on_images_changed_beforehand(encoder, data):
    result = evaluate_robustness(encoder, data, seed=4, progress=False)
    for name in ("rotated", "any_angle", "reduced"):
        changed = make_change(name, len(data), seed=4)(data.gather(range(len(data))), np.arange(len(data)))
        pixels = changed.permute(0, 2, 3, 1).numpy()
        beforehand = ImageStore.from_arrays(pixels, data.labels, NAMES, Manifest("bars", split="test"))
        assert np.array_equal(
            evaluate_top1(encoder, beforehand, progress=False).predicted, result.columns[name].predicted
        )
        gap = result.columns[name].hits.astype(float) - result.plain.hits
        assert result.lost(name).mean == pytest.approx(gap.mean())
        assert result.lost(name).ci95 == pytest.approx(1.96 * gap.std() / np.sqrt(len(data)))


def test_a_head_is_fitted_on_unchanged_images_and_loses_by_rotation(data):
    pixels = backbones.create("pixels")
    result = evaluate_robustness(pixels, data, "prototype", support_data=data, progress=False)
    plain = evaluate_top1(pixels, data, "prototype", support_data=data, progress=False)
    assert result.plain.accuracy == plain.accuracy == 1
    assert result.lost("rotated").mean < -0.2


def test_models_are_compared_column_by_column(encoder, data):
    one = evaluate_robustness(encoder, data, progress=False)
    other = evaluate_robustness(backbones.create("pixels"), data, "prototype", support_data=data, progress=False)
    gap = one.difference(other, "rotated")
    assert gap.mean == pytest.approx(one.columns["rotated"].accuracy - other.columns["rotated"].accuracy)
    with pytest.raises(FieldmarkError, match="ratio or seed differ"):
        one.difference(evaluate_robustness(encoder, data, seed=1, progress=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": ["rotate"]}, "did you mean 'rotated'"),
        ({"ratio": 0.0}, "ratio is 0.0; expected a share"),
        ({"ratio": 1.5}, "ratio is 1.5; expected a share"),
    ],
)
def test_bad_input_is_one_line(encoder, data, options, message):
    with pytest.raises(FieldmarkError, match=message) as caught:
        evaluate_robustness(encoder, data, progress=False, **options)
    assert "\n" not in str(caught.value)
