"""Whatever people hand over: every mode and file is read as a viewer shows it, or refused in one line."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.errors import FieldmarkError
from fieldmark.gallery.pictures import as_inputs, open_picture, read_pictures


def photo(width: int = 40, height: int = 30) -> Image.Image:
    """Left half red, right half blue."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, : width // 2, 0] = 200
    array[:, width // 2 :, 2] = 200
    return Image.fromarray(array)


def written(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A small PNG file whose header promises 60,000 x 60,000 pixels."""
    data = bytearray(written(photo(), "png"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def looks_right(image: Image.Image) -> None:
    array = np.asarray(image).astype(int)
    assert array.ndim == 3
    assert array.shape[2] == 3
    height, width = array.shape[:2]
    left, right = array[height // 2, width // 4], array[height // 2, 3 * width // 4]
    assert left[0] > 150 > 60 > left[2]
    assert right[2] > 150 > 60 > right[0]


MODES = {
    "png": lambda: written(photo(), "png"),
    "jpeg": lambda: written(photo(), "jpeg", quality=95),
    "cmyk": lambda: written(photo().convert("CMYK"), "jpeg", quality=95),
    "palette": lambda: written(photo().convert("P"), "png"),
    "alpha": lambda: written(photo().convert("RGBA"), "png"),
    "webp": lambda: written(photo(), "webp", lossless=True),
    "tiff": lambda: written(photo(), "tiff"),
    "animated": lambda: written(photo(), "gif", save_all=True, append_images=[Image.new("RGB", (40, 30))], loop=0),
}


@pytest.mark.parametrize("name", MODES)
def test_files_of_every_mode_are_read_as_a_viewer_shows_them(name, tmp_path):
    data = MODES[name]()
    looks_right(open_picture(data))
    (tmp_path / "image.bin").write_bytes(data)
    looks_right(open_picture(tmp_path / "image.bin"))  # the content says what it is, not the name


def test_sixteen_bits_keep_their_brightness():
    deep = Image.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16))
    array = np.asarray(open_picture(written(deep, "png")))
    assert array.shape == (16, 16, 3)
    np.testing.assert_allclose(array[..., 0].ravel(), np.arange(256), atol=1.5)


def test_a_photo_that_was_held_upright_stands_upright():
    turned = photo().rotate(90, expand=True)  # counterclockwise: as a camera stores it when it was turned
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    data = written(turned, "jpeg", quality=95, exif=exif)
    shown = open_picture(data)
    assert shown.size == (40, 30)
    looks_right(shown)


def test_all_kinds_of_inputs_give_the_same_picture(tmp_path):
    image = photo()
    path = tmp_path / "a.png"
    image.save(path)
    found = read_pictures([path, str(path), image, np.asarray(image), path.read_bytes()], 24, "squash")
    assert found.images.shape == (5, 24, 24, 3)
    assert (found.images == found.images[0]).all()
    assert found.names == [str(path), str(path), "image 2", "image 3", "image 4"]
    assert found.problems == []
    array = np.stack([np.asarray(image)] * 2)
    np.testing.assert_array_equal(read_pictures(array, 24, "squash").images[1], found.images[0])


def test_a_batch_of_paths_may_be_an_array_or_come_one_by_one(tmp_path):
    photo().save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png")] * 2
    for given in (np.array(paths), np.array(paths, object), tuple(paths), iter(paths)):
        assert len(read_pictures(given, 8)) == 2


BAD_FILES = {
    "empty": lambda: b"",
    "cut short": lambda: written(photo(400, 300), "jpeg")[:900],
    "no image": lambda: b"hello",
    "a bomb": bomb,
    "a page": lambda: b"<html><body>404</body></html>",
    "an SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_get_one_line_with_their_name(name, tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(BAD_FILES[name]())
    with pytest.raises(FieldmarkError) as caught:
        read_pictures([path], 16)
    text = str(caught.value)
    assert "\n" not in text
    assert "bad.jpg" in text
    with pytest.raises(FieldmarkError, match="image 0"):
        read_pictures([path.read_bytes()], 16)


BAD_ITEMS = [
    (np.zeros((8, 8), np.uint8), "uint8 of shape (8, 8); expected uint8 of shape (H, W, 3)"),
    (np.zeros((8, 8, 4), np.uint8), "expected uint8 of shape (H, W, 3)"),
    (np.zeros((8, 8, 3), np.float32), "float32 of shape (8, 8, 3)"),
    (np.zeros((0, 8, 3), np.uint8), "image 0"),
    (7, "of type int; expected a path"),
    (None, "of type NoneType; expected a path"),
    ("no/such/file.jpg", "no/such/file.jpg"),
    ("null\0character", "no image at null"),
    ("x" * 5000, "cannot be read"),
]


@pytest.mark.parametrize(("item", "words"), BAD_ITEMS, ids=[text[:24] for _, text in BAD_ITEMS])
def test_bad_items_get_one_line(item, words):
    with pytest.raises(FieldmarkError) as caught:
        read_pictures([item], 16)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert len(text) < 400


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(FieldmarkError, match=tmp_path.name):
        read_pictures([tmp_path], 16)


def test_bad_ones_are_skipped_or_counted():
    items = [photo(), b"bad", photo(), b"worse"]
    found = read_pictures(items, 16, on_error="skip")
    assert found.positions.tolist() == [0, 2]
    assert [place for place, _ in found.problems] == [1, 3]
    with pytest.raises(FieldmarkError, match=r"image 1 .*and 1 more"):
        read_pictures(items, 16)


@pytest.mark.parametrize("single", [Path("a.jpg"), "a.jpg", b"...", photo()])
def test_a_single_image_is_no_list(single):
    with pytest.raises(FieldmarkError, match=r"put it into one, \[image\]"):
        as_inputs(single)


def test_what_cannot_be_gone_through_is_refused():
    with pytest.raises(FieldmarkError, match="images is of type int"):
        as_inputs(3)
    with pytest.raises(FieldmarkError, match="array of float64 of shape"):
        as_inputs(np.zeros((2, 8, 8, 3)))
    with pytest.raises(FieldmarkError, match="did you mean 'skip'"):
        read_pictures([], 16, on_error="skp")
