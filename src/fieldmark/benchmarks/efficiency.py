"""How near ResNet-12 comes to the floor of its multiplications, and whether loading keeps up with training.

On an accelerator: batches of 128 images of 32 and of 84 pixels, bf16 autocast, channels last, as it is and compiled; on
a processor batches of 8 in float32, as it is. ``forward`` is a batch in evaluation without gradients; ``forward and
backward`` one in training: mean over the map, a linear classifier of 64 classes, cross-entropy, the gradients of all
weights. ``ours`` counts images a second; ``peer`` is the floor: what this machine would do if all convolutions ran as
fast as one large matrix product of the same type (8192 x 8192 in bf16; 1024 x 1024 on a processor), measured in the
same run in turn with the rest. The operations are counted by torch's own counter, the backward pass for itself (the
first convolution needs no gradient for the images). Normalisation, activation, pooling and the shortcuts' sums are not
in the floor: they move memory, and are why it is not reached.

Loading: our batches from an image store in memory, to the device, with crop, flip and colour jitter there; its ``peer``
is training, so above 1 loading alone is faster. Both in turn, as `fieldmark train` does it, is a row of its own.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fieldmark import backbones
from fieldmark.benchmarks.timing import Job, Side, interleaved, make_row, run_jobs
from fieldmark.benchmarks.training import AUGMENTATION
from fieldmark.shapes import Tensor

TARGET, TARGET_LOADING = 0.5, 1.0
BACKBONE, SIZES, CLASSES = "resnet12", (32, 84), 64
WARM, AT_LEAST = 3, 0.1  # calls before the clock starts; seconds of calls before the device is waited for
_PASSES = ("forward", "forward and backward")


@dataclass(frozen=True)
class Setting:
    """Where and how to run.

    Attributes:
        device: An accelerator, or the processor.
        batch: Images a step.
        matrix: Side of the product that gives the floor.
        compiled: Whether torch.compile makes the network's code.
    """

    device: torch.device
    batch: int
    matrix: int
    compiled: bool = False

    @classmethod
    def here(cls) -> Setting:
        """For this machine: its accelerator, if it has one."""
        if torch.accelerator.is_available():
            return cls(torch.accelerator.current_accelerator() or torch.device("cuda"), 128, 8192)
        return cls(torch.device("cpu"), 8, 1024)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def __str__(self) -> str:
        kind = "compiled" if self.compiled else "as it is"
        return f"batch {self.batch}, {self.device.type}, {str(self.dtype).removeprefix('torch.')}, {kind}"

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()


def run(
    repeats: int = 5, backbone: str = BACKBONE, sizes: tuple[int, ...] = SIZES, setting: Setting | None = None
) -> dict[str, Any]:
    """Medians of interleaved repeats.

    Args:
        repeats: Measurements of each side; fewer where one takes seconds.
        backbone: Name of a backbone with four stages.
        sizes: Sides of the images in pixels.
        setting: Default: for this machine.
    """
    plain = setting or Setting.here()
    accelerated = plain.device.type != "cpu"
    kinds = [plain, replace(plain, compiled=True)] if accelerated and setting is None else [plain]
    jobs: list[Job] = [partial(rows, backbone, size, kind, repeats) for size in sizes for kind in kinds]
    notes = ["peer is the floor: the operations of all convolutions at the rate of one large matrix product."]
    if not accelerated:
        notes.append("on the processor, for comparison alone: the target holds for an accelerator.")
    return {**run_jobs(jobs), "notes": notes}


def rows(backbone: str, size: int, setting: Setting, repeats: int) -> list[dict[str, Any]]:
    """Forward, forward and backward, loading, and loading with training."""
    network = Network(backbone, size, setting)
    batches = loading(size, setting)
    calls: dict[str, Callable[[], Any]] = {
        "matrix": matrix_product(setting),
        "forward": network.forward,
        "forward and backward": network.train,
        "loading": partial(next, batches),
        "loaded": lambda: network.train(*next(batches)),
    }
    blocks = {name: Block(call, setting) for name, call in calls.items()}
    every = torch.get_num_threads()
    times = interleaved({name: Side(block, every) for name, block in blocks.items()}, repeats)
    seconds = {name: [one / block.calls for one in times[name].wall] for name, block in blocks.items()}
    rate = 2 * setting.matrix**3 / min(seconds["matrix"])  # operations a second, the best that was seen
    counted = operations(backbone, size)
    floor = {name: [setting.batch * counted[name] / rate] for name in _PASSES}
    facts: dict[str, Any] = {"pixels": size, "batch": setting.batch, "device": setting.device.type}
    facts |= {"type": str(setting.dtype).removeprefix("torch."), "compiled": setting.compiled, "threads": every}
    facts |= {"matrix_operations_per_second": rate, "operations_per_image": counted}
    aims = setting.compiled and setting.device.type != "cpu"

    def row(what: str, ours: str, peer: list[float], against: str, target: float | None) -> dict[str, Any]:
        text = f"{backbone}, {what}, {size} px, {setting}; against {against}"
        return make_row(text, seconds[ours], peer, setting.batch, "images/s", target, **facts)

    both = "forward and backward"
    return [
        row("forward", "forward", floor["forward"], "its floor", None),
        row(both, both, floor[both], "its floor", TARGET if aims else None),
        row(f"loading, {both}", "loaded", floor[both], "the floor without loading", None),
        row("loading alone", "loading", seconds[both], both, TARGET_LOADING if aims else None),
    ]


class Block:
    """As many calls as keep the device busy for a while, and then its end is waited for."""

    def __init__(self, call: Callable[[], Any], setting: Setting) -> None:
        self.call, self.setting, self.calls = call, setting, 1
        processor = setting.device.type == "cpu"
        for _ in range(1 if processor else WARM):
            call()
        setting.wait()
        if processor:
            return
        started = time.perf_counter()
        self()
        self.calls = max(1, math.ceil(AT_LEAST / (time.perf_counter() - started)))

    def __call__(self) -> None:
        """All calls."""
        for _ in range(self.calls):
            self.call()
        self.setting.wait()


class Classifier(nn.Module):
    """The backbone, the mean over its map, and a linear layer."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = backbones.create(backbone)
        self.last = nn.Linear(self.backbone.channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``(B, classes)`` of normalised images."""
        return self.last(self.backbone(images).mean((-2, -1)))


class Network:
    """A classifier in evaluation, and one in training, on images that are ready."""

    def __init__(self, backbone: str, size: int, setting: Setting) -> None:
        self.setting = setting
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Classifier(backbone)
            images = torch.randn(setting.batch, 3, size, size)
        model = model.to(setting.device).to(memory_format=torch.channels_last)
        self.images = images.to(setting.device, memory_format=torch.channels_last)
        self.labels = torch.arange(setting.batch, device=setting.device) % CLASSES
        self.parameters = list(model.parameters())
        made = (copy.deepcopy(model).eval(), model.train())
        self.evaluated, self.trained = (torch.compile(one) if setting.compiled else one for one in made)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Scores."""
        with self._cast():
            return self.evaluated(self.images)

    def train(self, images: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The loss; the gradients stay with the weights.

        Args:
            images: Floats in [0, 1]; default: those that are ready.
            labels: Likewise.
        """
        for parameter in self.parameters:
            parameter.grad = None
        given = self.images if images is None else images.contiguous(memory_format=torch.channels_last)
        with self._cast():
            scores = self.trained(given)
            loss = nn.functional.cross_entropy(scores, self.labels if labels is None else labels)
        loss.backward()
        return loss.detach()

    def _cast(self) -> torch.autocast:
        kind = self.setting.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu")


def matrix_product(setting: Setting) -> Callable[[], Tensor]:
    """A product of two square matrices of the setting's type."""
    generator = torch.Generator().manual_seed(0)
    side = setting.matrix
    left, right = (torch.randn(side, side, generator=generator).to(setting.device, setting.dtype) for _ in range(2))
    return partial(torch.mm, left, right)


def loading(size: int, setting: Setting, batches: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a training without end: from the store to the device, augmented there; floats in [0, 1], and labels.

    Args:
        size: Of the images.
        setting: Batch and device.
        batches: In one pass over the made-up images.
    """
    from fieldmark.data import ImageStore, Manifest
    from fieldmark.data.augment import create_pipeline
    from fieldmark.training.loaders import ImageBatches

    count = batches * setting.batch
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % CLASSES
    store = ImageStore.from_arrays(images, labels, [str(i) for i in range(CLASSES)], Manifest("noise"))
    pipeline = create_pipeline(AUGMENTATION, size)
    generator = torch.Generator(device=setting.device).manual_seed(0)
    while True:
        for batch in ImageBatches(store, setting.batch, 1, (0, "efficiency")):
            moved = batch["images"].to(setting.device, non_blocking=True)
            yield pipeline(moved, generator), batch["labels"].to(setting.device, non_blocking=True)


@cache
def operations(backbone: str, size: int) -> dict[str, float]:
    """Multiplications and additions an image of each pass, by torch's counter on a network without memory.

    Args:
        backbone: Its name.
        size: Side of the image.

    Example:
        >>> counted = operations("conv4", 32)
        >>> 2 < counted["forward and backward"] / counted["forward"] < 3
        True
    """
    images = 2  # batch norm in training wants two values
    with torch.device("meta"):
        model = Classifier(backbone).train()
        given = torch.empty(images, 3, size, size)
        with FlopCounterMode(display=False) as forward:
            scores = model(given)
        with FlopCounterMode(display=False) as backward:
            scores.sum().backward()
    done = forward.get_total_flops() / images
    return {"forward": done, "forward and backward": done + backward.get_total_flops() / images}
