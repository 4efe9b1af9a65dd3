"""What recognising one image costs: time and memory of a head on descriptors that are there, and the encoder's time.

Always on the processor with one thread, whatever device the evaluation itself ran on, so that numbers compare.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from fieldmark.backbones import Encoder
from fieldmark.data import EpisodeIndex
from fieldmark.descriptors import Extractor, Kind, describe
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.features import Images
from fieldmark.heads import Head
from fieldmark.shapes import Float, Tensor

CLOCK = "processor time, one thread"
_BLOCK = 0.02  # seconds of calls that are timed together, and at least one call
_SLOW = 0.5  # seconds from which on the first call counts: it needs no warming up
_BUDGET = 30.0  # seconds after which no further episode is measured
_REST = 0.005  # seconds in which the threads of what ran before go to sleep
_IMAGES = 8  # images that are encoded one by one


@dataclass(frozen=True)
class HeadCost:
    """What a head costs on cached descriptors.

    Attributes:
        milliseconds_per_query: Processor time of one thread to fit the support and score all queries of an episode,
            divided by these queries; median over the episodes.
        milliseconds_one_query: The same where the episode has one query, which then pays for the fitting alone.
        queries: Queries that share the fitting in the first of the two.
        support_bytes_per_class: The descriptors of a class's support images, as the head takes them. This is what has
            to be kept to add images later; a head that reduces them (to their mean, to weights) can do with less.
        peak_bytes_one_query: The most that torch's allocator held at once, beyond the descriptors that were handed
            over, to fit the support and score one query. What compiled code holds for itself (the transport solver's
            trees, a matrix product's workspace) is not in it.
        descriptors: Number and channels of an image's descriptors, as the head takes them.
        episodes: How many were measured.
        clock: Whose time it is.
    """

    milliseconds_per_query: float
    milliseconds_one_query: float
    queries: int
    support_bytes_per_class: int
    peak_bytes_one_query: int
    descriptors: tuple[int, int]
    episodes: int
    clock: str = CLOCK

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "descriptors": list(self.descriptors)}


@torch.inference_mode()
def head_cost(
    head: Head,
    index: EpisodeIndex,
    query: Float[Tensor, "M N C"],
    support: Float[Tensor, "copies L N C"] | None = None,
    episodes: int = 5,
) -> HeadCost:
    """Measure a head on the first episodes, each by itself: as one user has it, not in the batches of an evaluation.

    Args:
        head: The head; one that needs base images must have seen them.
        index: Which descriptors are support and query.
        query: As for :func:`fieldmark.evaluation.score_episodes`.
        support: Likewise.
        episodes: How many; fewer where they would take more than half a minute.

    Raises:
        FieldmarkError: For no episodes.

    Example:
        >>> import numpy as np
        >>> from fieldmark import heads
        >>> from fieldmark.data import draw_episodes
        >>> index = draw_episodes(np.repeat(np.arange(5), 20), shot=2, queries=3, episodes=4)
        >>> cost = head_cost(heads.create("prototype"), index, torch.randn(100, 1, 64), episodes=2)
        >>> cost.milliseconds_per_query > 0, cost.queries, cost.support_bytes_per_class, cost.episodes
        (True, 15, 512, 2)
    """
    if episodes < 1:
        raise FieldmarkError(f"the cost of a head is measured on {episodes} episodes; expected at least 1")
    head = _on_processor(head)
    shared, alone = [], []
    with _one_thread():
        started = time.perf_counter()
        for number in range(min(episodes, len(index))):
            sets, labels, queries = _episode(index, number, query, support)
            shared.append(_milliseconds(lambda: head(sets, labels, queries, index.way)) / queries.shape[1])  # noqa: B023
            alone.append(_milliseconds(lambda: head(sets, labels, queries[:, :1], index.way)))  # noqa: B023
            if time.perf_counter() - started > _BUDGET:
                break
        peak = _peak(lambda: head(sets, labels, queries[:, :1], index.way))
    return HeadCost(
        milliseconds_per_query=statistics.median(shared),
        milliseconds_one_query=statistics.median(alone),
        queries=queries.shape[1],
        support_bytes_per_class=sets.nbytes // index.way,
        peak_bytes_one_query=peak,
        descriptors=(sets.shape[2], sets.shape[3]),
        episodes=len(shared),
    )


@torch.inference_mode()
def encoder_milliseconds(
    encoder: Encoder, data: Images, kinds: Iterable[Kind], extractor: Extractor, images: int = _IMAGES
) -> float:
    """Processor time of one thread, in milliseconds, to describe an image that comes alone; median over some images.

    Args:
        encoder: The model.
        data: The images.
        kinds: As for :func:`fieldmark.evaluation.encode`.
        extractor: Makes local descriptors.
        images: How many.
    """
    encoder, kinds = _on_processor(encoder), list(kinds)
    was_training = encoder.training, extractor.training
    encoder.eval(), extractor.eval()
    try:
        with _one_thread():
            times = []
            for number in range(min(images, len(data))):
                image, drawing = data.gather(range(number, number + 1)), torch.Generator().manual_seed(0)
                times.append(_milliseconds(lambda: describe(encoder, image, kinds, extractor, drawing)))  # noqa: B023
    finally:
        encoder.train(was_training[0]), extractor.train(was_training[1])
    return statistics.median(times)


def _on_processor(module: Any) -> Any:
    """The module itself where all of it is on the processor, else a copy there."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
    return module if all(one.device.type == "cpu" for one in tensors) else copy.deepcopy(module).cpu()


def _episode(index: EpisodeIndex, number: int, query: Tensor, support: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Support, labels and queries of one episode, as :func:`score_episodes` hands them to a head."""
    source = query.unsqueeze(0) if support is None else support
    chosen = source[:, torch.from_numpy(index.support[number])].flatten(0, 1).unsqueeze(0)
    labels = torch.from_numpy(index.support_labels[number]).repeat(len(source)).unsqueeze(0)
    return chosen, labels, query[torch.from_numpy(index.query[number])].unsqueeze(0)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    time.sleep(_REST)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _milliseconds(call: Callable[[], Any]) -> float:
    """Processor time of a call: of the first if it is slow, else the mean of a block of calls after it."""
    started, processor = time.perf_counter(), time.process_time()
    call()
    if time.perf_counter() - started > _SLOW:
        return 1e3 * (time.process_time() - processor)
    calls, started, processor = 0, time.perf_counter(), time.process_time()
    while calls == 0 or time.perf_counter() - started < _BLOCK:
        call()
        calls += 1
    return 1e3 * (time.process_time() - processor) / calls


def _peak(call: Callable[[], Any]) -> int:
    """The most bytes of torch's processor allocator that were in use at once, beyond those before the call."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else its stages are told on standard error
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    found = record.profiler.kineto_results if record.profiler is not None else None
    if found is None:
        return 0
    changes = sorted((one.start_ns(), one.nbytes()) for one in found.events() if one.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most
