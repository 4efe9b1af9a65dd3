"""Any image file becomes upright 8-bit RGB, or one clear line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from fieldmark.data import images
from fieldmark.data.images import decode_image, fit_image, known_formats
from fieldmark.errors import FieldmarkError


def encoded(image, format="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(width=31, height=20, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (3, 2), 77), (77, 77, 77)),
        (Image.new("1", (3, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (3, 2), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (3, 2), (0, 0, 0, 255)), (0, 0, 0)),
        (Image.new("LA", (3, 2), (0, 128)), (127, 127, 127)),
        (Image.new("RGB", (3, 2), (9, 8, 7)).quantize(4), (9, 8, 7)),
        (Image.fromarray(np.full((2, 3), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 3), 32896, np.uint16)), (128, 128, 128)),
    ],
    ids=["grey", "1-bit", "transparent", "opaque", "grey-alpha", "palette", "16-bit", "16-bit-half"],
)
def test_every_mode_becomes_rgb(image, expected):
    decoded = decode_image(encoded(image), "x.png")
    assert decoded.mode == "RGB"
    assert decoded.size == (3, 2)
    assert decoded.getpixel((1, 1)) == expected


def test_16_bit_keeps_all_levels():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None]
    assert np.asarray(decode_image(encoded(Image.fromarray(ramp)), "x"))[0, :, 0].tolist() == list(range(256))


def test_float_tiff_is_scaled_not_clipped():
    values = np.linspace(0, 1, 11, dtype=np.float32)[None]
    decoded = np.asarray(decode_image(encoded(Image.fromarray(values), "tiff"), "x"))[0, :, 0]
    assert decoded.tolist() == np.rint(values[0].astype(float) * 255).astype(int).tolist()


def test_cmyk_jpeg_has_the_colours_of_the_rgb_one():
    image = Image.new("RGB", (16, 16), (200, 60, 30))
    decoded = decode_image(encoded(image.convert("CMYK"), "jpeg", quality=95), "x.jpg")
    assert np.abs(np.asarray(decoded).astype(int) - (200, 60, 30)).max() <= 12


def test_transparent_palette_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    decoded = decode_image(encoded(image, "png", transparency=0), "x")
    assert [decoded.getpixel((i, 0)) for i in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = photo(8, 6)
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    assert np.array_equal(decode_image(encoded(stored, exif=exif), "x"), upright)


def test_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    data = encoded(first, "gif", save_all=True, append_images=[second])
    assert decode_image(data, "x.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_truncated_files_are_refused_by_name(format, part):
    data = encoded(photo(200, 150), format)
    with pytest.raises(FieldmarkError, match=r"^cats/1\.img is .*(truncated|not an image)") as caught:
        decode_image(data[: int(len(data) * part)], "cats/1.img")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "text"), [(b"", "empty"), (b"hello" * 99, "not an image"), (b"\x89PNG\r\n\x1a\n", "image")]
)
def test_what_is_no_image_is_refused(data, text):
    with pytest.raises(FieldmarkError, match=text):
        decode_image(data, "x.png")


def test_huge_image_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    data = encoded(Image.new("RGB", (40, 30)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(FieldmarkError, match=r"40 x 30 pixels.*1,000"):
        decode_image(data, "big.png")


def test_decompression_bomb_is_refused():
    header = encoded(Image.new("1", (1, 1)))
    bomb = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    import zlib

    bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    with pytest.raises(FieldmarkError, match="too large"):
        decode_image(bomb, "bomb.png")


@pytest.mark.parametrize("shape", [(50, 31), (31, 50), (40, 40), (133, 100), (9, 77)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_torchvisions_resize_and_centre_crop(shape, interpolation):
    image = photo(*shape)
    expected = tv.center_crop(tv.resize(image, [24], tv.InterpolationMode(interpolation)), [24])
    assert np.array_equal(fit_image(image, 24, "crop", interpolation=interpolation), np.asarray(expected))


def test_squash_is_torchvisions_resize():
    image = photo(50, 31)
    expected = tv.resize(image, [20, 24], tv.InterpolationMode.BICUBIC)
    assert np.array_equal(fit_image(image, (20, 24), "squash"), np.asarray(expected))


def test_pad_keeps_everything_on_white():
    fitted = fit_image(Image.new("RGB", (40, 10)), 20, "pad")
    assert fitted.shape == (20, 20, 3)
    assert (fitted == 0).all(axis=(1, 2)).sum() == 5
    assert (fitted == 255).all(axis=(1, 2)).sum() == 15


def test_size_that_is_right_already_leaves_pixels_alone():
    image = photo(32, 32)
    for fit in ("crop", "squash", "pad"):
        assert np.array_equal(fit_image(image, 32, fit), np.asarray(image))


def test_box_is_cut_and_bounded():
    image = photo(40, 30)
    assert np.array_equal(fit_image(image, (10, 20), "squash", (5, 6, 25, 16)), np.asarray(image)[6:16, 5:25])
    assert np.array_equal(fit_image(image, (30, 15), "squash", (25, -3, 99, 99)), np.asarray(image)[:, 25:])
    with pytest.raises(FieldmarkError, match="holds no pixel"):
        fit_image(image, 8, box=(50, 0, 60, 9))


@pytest.mark.parametrize("bad", [0, -3, (3,), 9999, 2.5, (8, 0)])
def test_bad_size_is_refused(bad):
    with pytest.raises(FieldmarkError, match="size is"):
        fit_image(photo(), bad)


def test_unknown_fit_suggests_the_nearest():
    with pytest.raises(FieldmarkError, match="did you mean 'squash'"):
        fit_image(photo(), 8, "sqash")


def test_result_can_go_to_torch():
    assert torch.from_numpy(fit_image(photo(), 8).copy()).shape == (8, 8, 3)


def test_what_would_start_another_program_is_not_opened(monkeypatch):
    """Pillow hands EPS to Ghostscript."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "eps")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started another program"))
    with pytest.raises(FieldmarkError, match=r"drawing\.eps is not an image that can be read"):
        decode_image(buffer.getvalue(), "drawing.eps")
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"} <= set(known_formats())
