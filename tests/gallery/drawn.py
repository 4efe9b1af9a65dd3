"""Small pictures of made-up classes, folders of them, and what describes them at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark import backbones
from fieldmark.gallery import Embedder

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


def picture(name: str, number: int, side: int = 24) -> np.ndarray:
    """A noisy colour patch; another one for each number."""
    noise = np.random.default_rng([number, *name.encode()]).integers(-25, 25, (side, side, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)


def write(folder: Path, name: str, number: int, like: str | None = None) -> Path:
    """One picture as a PNG file in the folder of its class."""
    path = folder / name / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(like or name, number)).save(path)
    return path


def class_folders(folder: Path, classes: dict[str, int]) -> Path:
    """Folders of so many pictures each."""
    for name, count in classes.items():
        for number in range(count):
            write(folder, name, number)
    return folder


def embedder(size: int = 16) -> Embedder:
    """Describes a picture by its own pixels."""
    return Embedder(backbones.create("pixels", size=8), size=size)
