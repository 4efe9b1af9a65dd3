"""Images trained a second: our training step against a plain PyTorch loop with torchvision transforms in workers.

Both sides train the same layers on the same random images of 32 pixels with crop, flip and colour jitter, SGD, batch
128. Ours is the real path (image store, augmentation on the device, Lightning); the peer is what most code does: a
`Dataset` of PIL images, torchvision v2 transforms, a `DataLoader` with a worker a core, NCHW tensors. Then ours in
mixed precision against ours in single precision: faster where the processor (or the GPU) multiplies bfloat16.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fieldmark.benchmarks.timing import Job, in_turn, run_jobs

if TYPE_CHECKING:
    from fieldmark.training import Recipe

BATCH, SIZE, CLASSES, IMAGES = 128, 32, 64, 3840
STEPS = {"conv4": 24, "resnet12": 6}
WARM = 2  # steps before the clock starts
TARGETS = {"conv4": 1.3, "resnet12": 1.0}
AUGMENTATION: list[Any] = [
    {"name": "random_crop", "padding": 4},
    "flip",
    {"name": "colour_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
]
JITTER = 0.4


def run(repeats: int = 5, backbones: tuple[str, ...] = ("conv4", "resnet12")) -> dict[str, Any]:
    """Medians of interleaved repeats.

    Args:
        repeats: Measurements of each side.
        backbones: What to train.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(IMAGES) % CLASSES
    jobs: list[Job] = [partial(step_rows, name, images, labels, repeats) for name in backbones]
    return run_jobs(jobs + [partial(precision_rows, name, images, labels, repeats) for name in backbones])


def step_rows(name: str, images: np.ndarray, labels: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """The row of one backbone."""
    sides = {"ours": partial(ours, name, images, labels), "peer": partial(peer, name, images, labels)}
    return [_row(f"training step with augmentation, {name}, {SIZE} px, batch {BATCH}", sides, repeats, TARGETS[name])]


def precision_rows(name: str, images: np.ndarray, labels: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """The row of one backbone in mixed precision, against the same step in single precision."""
    sides = {"ours": partial(ours, name, images, labels, "bf16-mixed"), "peer": partial(ours, name, images, labels)}
    return [_row(f"our training step in bf16-mixed against single precision, {name}, {SIZE} px", sides, repeats)]


def _row(
    what: str, sides: Mapping[str, Callable[[], float]], repeats: int, target: float | None = None
) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for _, side in in_turn(sides, repeats):
        speeds[side].append(sides[side]())
    mid = {side: statistics.median(values) for side, values in speeds.items()}
    row = {"what": what, **mid, "unit": "images/s", "ratio": mid["ours"] / mid["peer"]}
    return {**row, **({} if target is None else {"target": target}), "repeats": speeds}


def ours(name: str, images: np.ndarray, labels: np.ndarray, precision: str = "32-true") -> float:
    """Images a second of the training that `fieldmark train` runs."""
    from fieldmark import training

    recipe = training.make_recipe(
        {
            "name": "bench",
            "data": {"name": "folder"},
            "backbone": {"name": name},
            "augmentation": AUGMENTATION,
            "trainer": {"precision": precision},
            "stages": [
                {
                    "name": "a",
                    "objective": "cross_entropy",
                    "epochs": 1,
                    "batch_size": BATCH,
                    "steps_per_epoch": STEPS[name],
                    "optimizer": {"lr": 0.01},
                }
            ],
        }
    )
    clock = ends_of_steps(recipe, images, labels)
    return BATCH * (STEPS[name] - WARM) / (clock[-1] - clock[WARM - 1])


def ends_of_steps(recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """When each step of a recipe's training on images from memory ended, in seconds."""
    import lightning

    from fieldmark import training
    from fieldmark.data import ImageStore, Manifest

    clock: list[float] = []

    class Clock(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            clock.append(time.perf_counter())

    manifest = Manifest("noise", split="train", size=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
    store = ImageStore.from_arrays(images, labels, [str(label) for label in np.unique(labels)], manifest)
    with tempfile.TemporaryDirectory() as out:
        training.train(recipe, out, data={"train": store}, callbacks=[Clock()])
    return clock


class Photos(torch.utils.data.Dataset):
    """PIL images with torchvision transforms, as tutorials do it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from PIL import Image
        from torchvision.transforms import v2

        self.images = [Image.fromarray(image) for image in images]
        self.labels = labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIZE, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(JITTER, JITTER, JITTER),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class Plain(nn.Module):
    """The backbone's layers in PyTorch's default layout, pooled, with a classifier."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from fieldmark import backbones

        backbone = backbones.create(name)
        self.layers = nn.Sequential(*(backbone.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)))
        self.classifier = nn.Linear(backbone.channels, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of normalised images."""
        return self.classifier(self.layers(images).mean((-2, -1)))


def peer(name: str, images: np.ndarray, labels: np.ndarray) -> float:
    """Images a second of the plain loop."""
    workers = min(os.cpu_count() or 1, 8)
    loader = torch.utils.data.DataLoader(
        Photos(images, labels), BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    model = Plain(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    clock = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step, (pictures, classes) in enumerate(loader):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pictures), classes).backward()
            optimizer.step()
            clock.append(time.perf_counter())
            if step + 1 == STEPS[name]:
                break
    return BATCH * (STEPS[name] - WARM) / (clock[-1] - clock[WARM - 1])
