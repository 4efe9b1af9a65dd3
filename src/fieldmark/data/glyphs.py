"""The embedded data set: characters of eleven scripts, rendered from the fonts that matplotlib ships.

A class is a character; an image is that character in some font, weight, slant, place, scale, rotation, colour and
background, all drawn from a seed. Classes are split by script, so that the test's characters *and* scripts are new.
Nothing is downloaded, and the whole set is made in a few seconds.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.errors import FieldmarkError, unknown_name

if TYPE_CHECKING:
    import torch

    from fieldmark.data.store import ImageStore

VERSION = "1"
# Of the training split at 32 pixels and seed 0.
MEAN = (0.645, 0.647, 0.643)
STD = (0.281, 0.275, 0.285)

# Facts, not code: chosen once such that no two characters look alike when scaled to the same box (a test renders and
# compares all pairs), so that neither a new FreeType nor a new font release changes the classes.
ALPHABETS: dict[str, dict[str, str]] = {
    "train": {
        "latin": "ABCDEGHIJKMPQRSTUVWXYZabdefgkmnprtyßæðþ",
        "greek": "ΞΣΦΨΩαβεζηθικλνξπςσφχω",
        "cyrillic": "ДЖЙЛЦЧШЩЪЫЭЮЯгийфщыьЂЃЇЉЊЌЎЏ",
        "arabic": "ءؤئبةتجخدذزسشضعغفقلمنهىي",
        "canadian": "ᐂᐍᐕᐟᐨᑀᑖᑝᑤᑵᑼᒆᒧᒰᒹᓃᓋᓟᓧᓳᓻᔑᔙᔠᔨᔯᔶᔽᕎᕛᕹᖄᖔᖥᙇᙶ",
    },
    "val": {
        "hebrew": "אבדזטךלמנץצקשת",
        "lao": "ກຂຈຊຕຖນຜພມຣລຫຮ",
    },
    "test": {
        "armenian": "ԲԶԹԻԽՀՂՆՊՎՖգըիկմշպքև",
        "georgian": "ႠႢႦႨႫႮႱႴႼႾჂჄდვლპტფძჯ",
        "nko": "ߌߏߑߔߘߜߞߤ",
        "tifinagh": "ⴰⴳⴼⴾⵂⵄⵋⵐⵕⵗⵜⵤ",
    },
}
SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
SPLITS["all"] = ("train", "val", "test")

# Upright faces only: cursive italics give some Cyrillic letters the shape of other letters; slant is drawn instead.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
)
_MASK = 64  # side of a rendered mask
_GLYPH = 40  # the longer side of the character in it


def class_names(split: str | None = None) -> list[str]:
    """The class names of a split, in order: script, character and code point.

    Args:
        split: "train", "val", "test", "trainval" or "all" (also None).

    Example:
        >>> names = class_names("test")
        >>> len(names), names[0]
        (60, 'armenian/Բ U+0532')
    """
    return [f"{script}/{char} U+{ord(char):04X}" for script, char in _characters(split)]


def load_glyphs(split: str | None = None, size: int = 32, instances: int = 40, seed: int = 0) -> ImageStore:
    """Make the glyphs of a split.

    Every class has its own random numbers, so its first k images are the same whatever the split and ``instances``.

    Args:
        split: "train" (149 classes of 5 scripts), "val" (28 of 2), "test" (60 of 4), "trainval", or "all" (also None).
        size: Side of the square RGB images in pixels, 16 to 128.
        instances: Images per class, at least 1.
        seed: Seed of every random choice, at least 0; the same seed gives the same bytes.

    Raises:
        FieldmarkError: An option is out of its range.

    Example:
        >>> store = load_glyphs("val", instances=2)
        >>> len(store), store.images.shape[1:], store.class_names[0]
        (56, (32, 32, 3), 'hebrew/א U+05D0')
    """
    from fieldmark.data.manifest import Manifest
    from fieldmark.data.store import ImageStore

    images, labels = render_glyphs(split, size, instances, seed)
    names = class_names(split)
    manifest = Manifest(
        name="glyphs",
        version=VERSION,
        split=split or "all",
        fit="crop",
        mean=MEAN,
        std=STD,
    )
    files = [f"{name}/{i:04d}" for name in names for i in range(instances)]
    return ImageStore.from_arrays(images, labels, names, manifest, files)


def render_glyphs(
    split: str | None = None, size: int = 32, instances: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of `load_glyphs` as arrays: ``(N, size, size, 3)`` uint8 and ``(N,)`` int64, by class.

    Example:
        >>> images, labels = render_glyphs("test", instances=1)
        >>> images.shape, int(labels[-1])
        ((60, 32, 32, 3), 59)
    """
    _check("size", size, 16, 128)
    _check("instances", instances, 1, 10_000)
    _check("seed", seed, 0, 2**63)
    characters = [char for _, char in _characters(split)]
    masks, first = _masks("".join(characters))
    # Small chunks stay in the processor's cache; the result does not depend on their size.
    per_chunk = max(1, 160 // instances)
    chunks = []
    for start in range(0, len(characters), per_chunk):
        chosen = range(start, min(start + per_chunk, len(characters)))
        draw = _draw([ord(characters[i]) for i in chosen], size, instances, seed)
        fonts = np.repeat(np.diff(first)[chosen], instances)
        mask_of = np.repeat(first[:-1][chosen], instances) + (draw.uniform[:, 0] * fonts).astype(np.int64)
        chunks.append(_compose(masks, mask_of, draw, size))
    labels = np.repeat(np.arange(len(characters), dtype=np.int64), instances)
    return np.concatenate(chunks), labels


def _characters(split: str | None) -> list[tuple[str, str]]:
    """(script, character) of every class of a split, in order."""
    if (split or "all") not in SPLITS:
        raise unknown_name("split of glyphs", str(split), SPLITS)
    parts = [ALPHABETS[part] for part in SPLITS[split or "all"]]
    return [(script, char) for part in parts for script, chars in part.items() for char in chars]


def _check(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int | np.integer) or not low <= value <= high:
        raise FieldmarkError(f"glyphs: {name} is {value!r}; expected a whole number from {low} to {high}")


def _font_folder() -> Path:
    """Where matplotlib keeps its fonts, without importing pyplot or reading the user's configuration."""
    found = importlib.util.find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data/fonts/ttf" if found and found.origin else Path()
    if not (folder / f"{FONTS[0]}.ttf").is_file():
        raise FieldmarkError(f"glyphs: no fonts at {folder}; install matplotlib with its data: pip install matplotlib")
    return folder


@lru_cache(maxsize=4)
def _masks(characters: str) -> tuple[torch.Tensor, np.ndarray]:
    """Every character in every font that has it: masks ``(M, 1, 64, 64)`` in [0, 1] and, per character, its first.

    The mask is slightly blurred, so that a threshold on it makes the strokes thinner or thicker.
    """
    import torch
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    folder = _font_folder()
    paths = [folder / f"{name}.ttf" for name in FONTS if (folder / f"{name}.ttf").is_file()]
    # Basic layout: the shape of the lone character, whether or not a shaping library is there.
    fonts = [ImageFont.truetype(str(path), 72, layout_engine=ImageFont.Layout.BASIC) for path in paths]
    known = [FT2Font(str(path)).get_charmap() for path in paths]
    masks, first = [], [0]
    for char in characters:
        for font, charmap in zip(fonts, known, strict=True):
            if ord(char) not in charmap:
                continue
            page = Image.new("L", (256, 256))
            ImageDraw.Draw(page).text((72, 72), char, 255, font=font)
            glyph = page.crop(page.getbbox())
            scale = _GLYPH / max(glyph.size)
            shape = (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale)))
            mask = Image.new("L", (_MASK, _MASK))
            mask.paste(glyph.resize(shape, Image.Resampling.BOX), ((_MASK - shape[0]) // 2, (_MASK - shape[1]) // 2))
            masks.append(np.asarray(mask.filter(ImageFilter.GaussianBlur(1.0))))
        if len(masks) == first[-1]:
            raise FieldmarkError(
                f"glyphs: no font of matplotlib has {unicodedata.name(char, char)}; pip install -U matplotlib"
            )
        first.append(len(masks))
    stack = torch.from_numpy(np.stack(masks)).to(torch.float64).div_(255).unsqueeze(1)
    return stack, np.asarray(first)


@dataclass(frozen=True)
class _Draw:
    """The random numbers of some images, all uniform in [0, 1)."""

    uniform: np.ndarray  # (B, 24)
    coarse: np.ndarray  # (B, 3, 6, 6)
    fine: np.ndarray  # (B, 1, size, size)


def _draw(codes: list[int], size: int, instances: int, seed: int) -> _Draw:
    def of(stream: int, *shape: int) -> np.ndarray:
        draws = [np.random.default_rng([seed, code, stream]).random((instances, *shape)) for code in codes]
        return np.concatenate(draws)

    return _Draw(of(0, 24), of(1, 3, 6, 6), of(2, 1, size, size))


def _compose(masks: torch.Tensor, mask_of: np.ndarray, draw: _Draw, size: int) -> np.ndarray:
    """Characters on backgrounds: ``(B, size, size, 3)`` uint8.

    In float64, so that the rounding to bytes does not depend on the machine's vector units.
    """
    import torch

    u = torch.from_numpy(draw.uniform)
    alpha = _placed(masks[torch.from_numpy(mask_of)], u, size)
    contrast = 0.35 + 0.45 * u[:, 10]
    ink = 0.05 + (0.9 - contrast) * u[:, 11]
    # Mostly dark on light, so that plain pixels are a baseline and not a coin toss.
    ink, paper = (torch.where(u[:, 12] < 0.9, a, b) for a, b in ((ink, ink + contrast), (ink + contrast, ink)))
    # Colour is added without changing the brightness, so that the contrast stays what was drawn.
    tint = (u[:, 13:19].reshape(-1, 2, 3) - 0.5) * 0.4
    tint = tint - (tint * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).sum(-1, keepdim=True)
    background = (paper[:, None] + tint[:, 0])[:, :, None, None] + _texture(draw, contrast, size)
    foreground = (ink[:, None] + tint[:, 1])[:, :, None, None]
    images = background + alpha * (foreground - background)
    images = images + (torch.from_numpy(draw.fine) - 0.5) * (0.16 * u[:, 22])[:, None, None, None]
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _placed(masks: torch.Tensor, u: torch.Tensor, size: int) -> torch.Tensor:
    """The masks turned, slanted, scaled, moved and thinned: ``(B, 1, size, size)`` coverage in [0, 1]."""
    import torch
    from torch.nn import functional as F

    angle = (u[:, 1] - 0.5) * 0.42  # up to 12 degrees either way
    shear = (u[:, 2] - 0.5) * 0.4
    scale = 0.95 + 0.4 * u[:, 3]
    aspect = 0.9 + 0.2 * u[:, 4]
    shift = (u[:, 5:7] - 0.5) * 0.2
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    slant = torch.stack([torch.stack([one, shear], -1), torch.stack([zero, one], -1)], 1)
    stretch = torch.diag_embed(torch.stack([1 / (scale * aspect), aspect / scale], -1))
    matrix = stretch @ slant @ turn
    theta = torch.cat([matrix, -(matrix @ shift[:, :, None])], -1)
    fine = 2 * size if size <= 64 else size  # twice as fine, then averaged: smooth edges
    grid = F.affine_grid(theta, [len(u), 1, fine, fine], align_corners=False)
    soft = F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weight = (0.25 + 0.25 * u[:, 7])[:, None, None, None]
    return F.adaptive_avg_pool2d(((soft - weight) * 4 + 0.5).clamp(0, 1), size)


def _texture(draw: _Draw, contrast: torch.Tensor, size: int) -> torch.Tensor:
    """What varies across the background: a gradient, stripes, blotches, or nothing; ``(B, 3, size, size)``."""
    import torch
    from torch.nn import functional as F

    u = torch.from_numpy(draw.uniform)
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    angle = 2 * torch.pi * u[:, 19, None, None]
    along = torch.cos(angle) * axis + torch.sin(angle) * axis[:, None]
    stripes = torch.sin(along * (3 + 9 * u[:, 20, None, None]) + 6 * u[:, 8, None, None])
    blotches = F.interpolate(torch.from_numpy(draw.coarse) * 2 - 1, (size, size), mode="bilinear", align_corners=False)
    kind = (u[:, 21] * 4).long()[:, None, None, None]
    pattern = torch.where(kind == 1, stripes[:, None], torch.zeros_like(blotches))
    pattern = torch.where(kind == 0, along[:, None], pattern)
    pattern = torch.where(kind == 2, 1.5 * blotches, pattern)
    strength = contrast * (0.1 + 0.3 * u[:, 9])
    return pattern * strength[:, None, None, None]
