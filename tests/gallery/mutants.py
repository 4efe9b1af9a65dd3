"""Files that call themselves images: cut short, bit-flipped, with another header, with huge sizes, of odd modes ..."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

Draw = np.random.Generator
SUFFIXES = (".jpg", ".png", ".gif", ".webp", ".bmp", ".tiff", ".ico", ".tga", ".ppm", ".jpeg")
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "TGA")


def drawn(draw: Draw, mode: str = "RGB", side: int = 48) -> Image.Image:
    """A picture of any mode."""
    width, height = (int(one) for one in draw.integers(1, side, 2))
    image = Image.fromarray(draw.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


@functools.cache
def originals() -> list[bytes]:
    """Whole files of each format."""
    draw, out = np.random.default_rng(0), []
    for name in FORMATS:
        for _ in range(4):
            file = io.BytesIO()
            drawn(draw).save(file, name)
            out.append(file.getvalue())
    return out


def some(draw: Draw) -> bytes:
    return originals()[int(draw.integers(len(originals())))]


def truncated(draw: Draw) -> bytes:
    content = some(draw)
    return content[: int(draw.integers(0, len(content)))]


def flipped(draw: Draw) -> bytes:
    content = bytearray(some(draw))
    for place in draw.integers(0, len(content), int(draw.integers(1, 20))):
        content[place] ^= 1 << int(draw.integers(8))
    return bytes(content)


def zeroed(draw: Draw) -> bytes:
    content = bytearray(some(draw))
    start = int(draw.integers(0, len(content)))
    stop = start + int(draw.integers(1, 200))
    content[start:stop] = bytes(len(content[start:stop]))
    return bytes(content)


def other_header(draw: Draw) -> bytes:
    one, other = some(draw), some(draw)
    count = int(draw.integers(2, 24))
    return other[:count] + one[count:]


def spliced(draw: Draw) -> bytes:
    one, other = some(draw), some(draw)
    return one[: int(draw.integers(len(one)))] + other[int(draw.integers(len(other))) :]


def noise(draw: Draw) -> bytes:
    return draw.bytes(int(draw.integers(0, 400)))


def with_a_long_tail(draw: Draw) -> bytes:
    return some(draw) + draw.bytes(int(draw.integers(1, 5000)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(draw: Draw) -> bytes:
    """Much larger than the file: declared only, or really inflating to a lot."""
    kind = int(draw.integers(5))
    side = int(draw.choice([5000, 9999, 12_000, 30_000, 60_000, 2**31 - 1]))
    if kind == 0:  # a PNG that declares a size and holds next to nothing
        header = struct.pack(">IIBBBBB", side, side, 8, int(draw.choice([0, 2, 6])), 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b"")
        )
    if kind == 1:  # a text chunk that inflates
        text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(int(draw.integers(1, 80)) << 20)))
        image = io.BytesIO()
        drawn(draw).save(image, "PNG")
        return image.getvalue()[:33] + text + image.getvalue()[33:]
    if kind == 2:  # a GIF with a huge screen
        image = io.BytesIO()
        drawn(draw).save(image, "GIF")
        content = bytearray(image.getvalue())
        content[6:10] = struct.pack("<HH", min(side, 65535), min(side, 65535))
        return bytes(content)
    if kind == 3:  # a BMP with a huge or negative size
        image = io.BytesIO()
        drawn(draw).save(image, "BMP")
        content = bytearray(image.getvalue())
        content[18:26] = struct.pack("<ii", min(side, 2**31 - 1), int(draw.choice([-1, 1])) * min(side, 2**31 - 1))
        return bytes(content)
    # A JPEG whose frame header says otherwise.
    image = io.BytesIO()
    drawn(draw).save(image, "JPEG")
    content = bytearray(image.getvalue())
    at = content.find(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", min(side, 65535), min(side, 65535))
    return bytes(content)


def honest_and_large(draw: Draw) -> bytes:
    """A whole picture of many pixels in a small file."""
    side = int(draw.choice([1200, 2500, 11_000], p=[0.7, 0.25, 0.05]))
    width = max(1, int(draw.integers(side // 2, side)))
    image = io.BytesIO()
    Image.new(str(draw.choice(["1", "L"])), (width, side), int(draw.integers(0, 2))).save(image, "PNG")
    return image.getvalue()


def odd_mode(draw: Draw) -> bytes:
    mode = str(draw.choice(["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "LAB"]))
    image = drawn(draw, "L" if mode in ("I;16", "F", "I") else "RGB" if mode in ("LAB",) else mode)
    if mode in ("I", "I;16"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    elif mode == "F":
        values = np.asarray(image).astype(np.float32)
        values[0, 0] = draw.choice([np.nan, np.inf, 1e30, -1.0])
        image = Image.fromarray(values)
    file = io.BytesIO()
    for name in draw.permutation(["PNG", "TIFF", "JPEG", "WEBP", "GIF"]):
        try:
            image.save(file, str(name))
            return file.getvalue()
        except (OSError, ValueError, KeyError):
            file = io.BytesIO()
    return b""


def animated(draw: Draw) -> bytes:
    """Up to hundreds of pictures in one file."""
    frames = [drawn(draw).resize((16, 16)) for _ in range(int(draw.choice([2, 20, 300], p=[0.5, 0.4, 0.1])))]
    file = io.BytesIO()
    frames[0].save(file, str(draw.choice(["GIF", "PNG", "WEBP", "TIFF"])), save_all=True, append_images=frames[1:])
    content = file.getvalue()
    return content[: int(draw.integers(len(content) // 2, len(content) + 1))]


def odd_exif(draw: Draw) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(draw.integers(0, 300))
    exif[0x010E] = "x" * int(draw.integers(0, 3000))
    file = io.BytesIO()
    drawn(draw).save(file, str(draw.choice(["JPEG", "PNG", "WEBP"])), exif=exif)
    content = bytearray(file.getvalue())
    place = content.find(b"MM\x00*") if b"MM\x00*" in content else content.find(b"II*\x00")
    if place >= 0:
        for at in draw.integers(place, min(len(content), place + 40), 3):
            content[at] = int(draw.integers(256))
    return bytes(content)


def whole(draw: Draw) -> bytes:
    return some(draw)


def not_an_image(draw: Draw) -> bytes:
    texts = [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4\n", b"PK\x03\x04", b"\x7fELF",
             b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM",
             b"P6\n99999999 99999999\n255\n", b"P5 1 1 65535\n\0", b"import os; os.abort()",
             b"RIFF\xff\xff\xff\xffWEBPVP8 ",
             b"II*\0\x08\0\0\0", b"\0\0\1\0\xff\xff", b"/* XPM */\nstatic char *x[] = {"]  # fmt: skip
    return texts[int(draw.integers(len(texts)))] + draw.bytes(int(draw.integers(0, 40)))


KINDS: tuple[Callable[[Draw], bytes], ...] = (
    truncated, flipped, zeroed, other_header, spliced, noise, with_a_long_tail, bomb, odd_mode, animated, odd_exif,
    whole, not_an_image, honest_and_large,
)  # fmt: skip


def mutant(seed: int, number: int) -> tuple[str, str, bytes]:
    """Kind, file name and content; the same for the same two numbers."""
    draw = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    content = kind(draw)
    return kind.__name__, f"{number:05d}{SUFFIXES[int(draw.integers(len(SUFFIXES)))]}", content
