"""Images augmented a second: ours on the batch against torchvision image by image, in two loader workers, and kornia.

All sides get the same uint8 images and do a padded random crop, a flip and a colour jitter with own parameters for
each image, to floats in [0, 1], in batches of 128. Torchvision in workers is timed as the main process sees it; on a
machine with two cores these workers take the cores that the training step needs.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fieldmark.benchmarks.timing import in_turn, run_jobs
from fieldmark.errors import MissingExtraError

BATCH = 128
WORKERS = 2
JITTERS = {"jitter 0.4": 0.0, "jitter 0.4, hue 0.1": 0.1}
SECONDS = 0.4  # of measuring each side in each repeat


def run(repeats: int = 5, sizes: tuple[int, ...] = (32, 84)) -> dict[str, Any]:
    """Medians of interleaved repeats.

    Args:
        repeats: Measurements of each side.
        sizes: Sides of the images in pixels.

    Example:
        >>> sorted(run.__annotations__)
        ['repeats', 'return', 'sizes']
    """
    jobs = [partial(case_rows, size, text, hue, repeats) for size in sizes for text, hue in JITTERS.items()]
    found = run_jobs(jobs)
    if not kornia_is_there():
        found["skipped"].append(str(MissingExtraError("kornia", "bench", "the comparison with kornia")))
    return found


def case_rows(size: int, text: str, hue: float, repeats: int) -> list[dict[str, Any]]:
    """A row for each peer, at one size and with one jitter."""
    images = torch.randint(256, (BATCH, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    sides = {"ours": ours(images, hue), **_peers(images, hue)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _, side in in_turn(sides, repeats):
        times[side].append(sides[side]())
    mid = {side: statistics.median(values) for side, values in times.items()}
    return [
        {
            "what": f"crop, flip, {text}; {size} px, batch {BATCH}; against {peer}",
            "ours": mid["ours"],
            "peer": mid[peer],
            "unit": "images/s",
            "ratio": mid["ours"] / mid[peer],
            "milliseconds": {"ours": 1e3 * BATCH / mid["ours"], "peer": 1e3 * BATCH / mid[peer]},
            "repeats": {"ours": times["ours"], "peer": times[peer]},
        }
        for peer in list(sides)[1:]
    ]


def kornia_is_there() -> bool:
    """Whether the package can be imported."""
    try:
        importlib.import_module("kornia.augmentation")
    except ImportError:
        return False
    return True


def ours(images: torch.Tensor, hue: float) -> Callable[[], float]:
    """Our pipeline on the whole batch."""
    from fieldmark.data.augment import create_pipeline

    size = images.shape[-1]
    jitter = {"name": "colour_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": hue}
    pipeline = create_pipeline([{"name": "random_crop", "padding": size // 8}, "flip", jitter], size)
    generator = torch.Generator()
    return lambda: _rate(lambda: pipeline(images, generator))


def _peers(images: torch.Tensor, hue: float) -> dict[str, Callable[[], float]]:
    from torchvision.transforms import v2

    size = images.shape[-1]
    transform = v2.Compose(
        [
            v2.RandomCrop(size, padding=size // 8),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4, hue),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    contiguous = images.contiguous()
    found = {
        "torchvision image by image": lambda: _rate(lambda: torch.stack([transform(image) for image in contiguous])),
        f"torchvision in {WORKERS} workers": lambda: _workers(contiguous, transform),
    }
    if not kornia_is_there():
        return found
    import kornia.augmentation as kornia

    chain = torch.nn.Sequential(
        kornia.RandomCrop((size, size), padding=size // 8, cropping_mode="slice"),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJiggle(0.4, 0.4, 0.4, hue, p=1.0),
    )
    return {**found, "kornia on the batch": lambda: _rate(lambda: chain(images.float() / 255))}


class _Images(torch.utils.data.Dataset):
    """Each image again and again, transformed on its own."""

    def __init__(self, images: torch.Tensor, transform: Any, batches: int) -> None:
        self.images, self.transform, self.batches = images, transform, batches

    def __len__(self) -> int:
        return len(self.images) * self.batches

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.images[index % len(self.images)])


def _rate(step: Callable[[], Any]) -> float:
    """Images a second of a step that changes one batch."""
    with torch.no_grad():
        step()
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            step()
            done += 1
    return done * BATCH / (time.perf_counter() - start)


def _workers(images: torch.Tensor, transform: Any, batches: int = 24, warm: int = 6) -> float:
    """Images a second that come out of a loader with workers, once they are running."""
    loader = torch.utils.data.DataLoader(_Images(images, transform, batches), BATCH, num_workers=WORKERS)
    for number, _ in enumerate(loader):
        if number == warm - 1:
            start = time.perf_counter()
    return (batches - warm) * BATCH / (time.perf_counter() - start)
