"""SSANET: the scales' response by FFT against directly, RoI align, and inference with shared or re-extracted features.

Response: one part, S = 3 to 65 candidates of K = 512 to 100,352 numbers (7 x 7 x 2,048, the paper's), one image and a
batch of 16; as many classes as 40 million weights allow, 4 to 100. ``ours`` is the way that ``auto`` takes, ``peer``
the other one; a row falls short where the choice is clearly wrong. Directly means all products of a candidate with a
scale of the weights, ``S^2`` multiplications for each number, image and class, in one matrix product. The transform
takes ``2 S`` in its place, but weights and features are transformed too, and written and read once more: with one image
or few classes that is all there is to do, so that nothing is to be gained.

RoI align: 22 boxes an image, as SSANET and NTS-Net take in training, of 8 maps of EfficientNet-Lite0, forward and
backward; ``ours`` is ``functional.region_maps``, ``peer`` torchvision's ``roi_align`` (decision 0008).

Inference: the whole classifier, one image of 448 pixels, ResNet-50 with random weights, 200 classes, 4 parts, 5 scales,
pooled features, oriented pooling. ``ours`` takes all boxes from the image's one map (RoI align), ``peer`` cuts them out
and encodes each at 224 pixels: 20 crops of a quarter of the image's pixels on top of the image, 6 times the work. The
paper re-extracts, and claims 50 ms an image on a Tesla P40, 40 of them in DSM.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fieldmark import backbones, classifiers
from fieldmark.backbones import Encoder
from fieldmark.benchmarks.timing import (
    CLOCKS,
    Side,
    clock_text,
    interleaved,
    make_row,
    on_both_clocks,
    on_clock,
    run_jobs,
)
from fieldmark.errors import FieldmarkError
from fieldmark.functional.regions import region_maps
from fieldmark.functional.scales import Method, circular_scale_response, faster_method
from fieldmark.shapes import Tensor

TARGET_CHOICE, TARGET_SHARED = 0.8, 3.0
SCALES = (3, 5, 9, 17, 33, 65)
LENGTHS = (512, 2048, 16_384, 100_352)
IMAGES = (1, 16)
_WEIGHTS = 40_000_000
#: Backbone, side of the image, side of a part, classes.
MODEL = ("resnet50", 448, 224, 200)
#: Images, channels, side of the map, boxes of each image, stride of the map.
REGIONS = (8, 1280, 7, 22, 32)


def run(
    repeats: int = 5,
    cases: tuple[tuple[int, int, int], ...] | None = None,
    model: tuple[str, int, int, int] = MODEL,
) -> dict[str, Any]:
    """Medians of interleaved repeats.

    Args:
        repeats: Measurements of each side; a side that takes seconds gets fewer.
        cases: Images, scales and length of the responses; default: all of them.
        model: Backbone, side of the image and of a part, and classes of the inference.
    """
    if cases is None:
        cases = tuple((images, scales, length) for length in LENGTHS for images in IMAGES for scales in SCALES)
    jobs: list[Any] = [partial(response_row, *case, repeats) for case in cases]
    jobs += [partial(region_rows, repeats), partial(inference_rows, model, repeats)]
    notes = [
        "response: ours is what auto takes, peer the other way; one thread.",
        f"inference: {model[0]}, {model[1]} pixels, {model[3]} classes; the paper claims 50 ms an image on a P40, "
        "40 of them in DSM, with re-extracted features.",
    ]
    return {**run_jobs(jobs), "notes": notes}


def classes_for(scales: int, length: int) -> int:
    """Classes of a response, so that the weights stay in memory.

    Example:
        >>> classes_for(5, 2048), classes_for(65, 100_352)
        (100, 6)
    """
    return max(4, min(100, _WEIGHTS // (scales * length)))


@torch.no_grad()
def response_row(images: int, scales: int, length: int, repeats: int) -> list[dict[str, Any]]:
    """The row of one size: the chosen way against the other."""
    generator = torch.Generator().manual_seed(0)
    classes = classes_for(scales, length)
    features = torch.randn(images, 1, scales, length, generator=generator)
    weights = torch.randn(classes, 1, scales, length, generator=generator)
    chosen: Method = faster_method(images, scales, length, classes)
    other: Method = "direct" if chosen == "fft" else "fft"
    calls = {name: partial(circular_scale_response, features, weights, name) for name in (chosen, other)}
    values = [call().value for call in calls.values()]
    if not torch.allclose(values[0], values[1], rtol=1e-3, atol=1e-3 * float(values[0].abs().max())):
        raise FieldmarkError(f"response of {scales} scales of {length} numbers differs between fft and direct")
    times = interleaved({name: Side(call) for name, call in calls.items()}, repeats)
    milliseconds = {"fft": times["fft"].wall, "direct": times["direct"].wall}
    what = f"response, S = {scales}, K = {length:,}, {images} image{'s' * (images > 1)}: {chosen} against {other}"
    return [
        make_row(
            what, times[chosen].wall, times[other].wall, images, "images/s", TARGET_CHOICE, milliseconds,
            images=images, scales=scales, length=length, classes=classes, chosen=chosen, clock="wall", threads=1,
        )
    ]  # fmt: skip


def region_rows(repeats: int) -> list[dict[str, Any]]:
    """Our RoI align against torchvision's, forward and backward, a row for each clock."""
    from torchvision.ops import roi_align

    images, channels, side, boxes, stride = REGIONS
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(images, channels, side, side, generator=generator).requires_grad_()
    corners = torch.rand(images, boxes, 2, generator=generator) * (side * stride / 2)
    sizes = stride + torch.rand(images, boxes, 2, generator=generator) * (side * stride / 2 - stride)
    given = torch.cat([corners, corners + sizes], dim=2)
    numbers = torch.arange(images, dtype=given.dtype).repeat_interleave(boxes).unsqueeze(1)

    def ours() -> Tensor:
        return region_maps(maps, given, (side * stride, side * stride), side).flatten(0, 1)

    def peer() -> Tensor:
        listed = torch.cat([numbers, given.flatten(0, 1) / stride], dim=1)
        return roi_align(maps, listed, side, sampling_ratio=2, aligned=True)

    if not torch.allclose(ours(), peer(), atol=1e-4):
        raise FieldmarkError("our RoI align differs from torchvision's")
    calls = {"ours": lambda: ours().sum().backward(), "peer": lambda: peer().sum().backward()}
    times = interleaved(on_both_clocks(calls), repeats)
    return [
        make_row(
            f"RoI align, {boxes} boxes of {images} maps, with gradients, against torchvision, {clock_text(clock)}",
            on_clock(times, "ours", clock), on_clock(times, "peer", clock), images * boxes, "boxes/s", 1.0,
            clock=clock, threads=torch.get_num_threads() if clock == "wall" else 1,
        )
        for clock in CLOCKS
    ]  # fmt: skip


class Inference:
    """A whole SSANET; a call gives the scores of one image."""

    def __init__(self, features: str, model: tuple[str, int, int, int] = MODEL) -> None:
        name, side, part_size, classes = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = Encoder(backbones.create(name), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
            self.classifier = classifiers.create("ssanet", features=features, part_size=part_size)
            self.classifier.setup(self.encoder.channels, classes)
            self.images = torch.rand(1, 3, side, side)
        self.classifier.eval()

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The scores."""
        return self.classifier(self.encoder, self.images)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The map of the whole image alone."""
        return self.encoder(self.images)


def inference_rows(model: tuple[str, int, int, int], repeats: int) -> list[dict[str, Any]]:
    """Shared against re-extracted features, a row for each clock."""
    sides = {"ours": Inference("shared", model), "peer": Inference("reextract", model)}
    times = interleaved(on_both_clocks({**sides, "map": sides["ours"].whole}), repeats)
    return [
        make_row(
            f"SSANET inference, shared against re-extracted features, {clock_text(clock)}",
            on_clock(times, "ours", clock), on_clock(times, "peer", clock), 1, "images/s", TARGET_SHARED,
            {"map of the image alone": on_clock(times, "map", clock)},
            clock=clock, threads=torch.get_num_threads() if clock == "wall" else 1,
        )
        for clock in CLOCKS
    ]  # fmt: skip
