"""Interleaved timing of several sides that do the same work, and rows of a report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.progress import track

T = TypeVar("T")

BLOCK = 0.03  # seconds of measuring each side in each repeat, and at least one call
BUDGET = 4.0  # seconds after which a slow side is not repeated any more
SLOW = 0.5  # seconds from which on the first call counts: it needs no warming up
ONE = ", one thread"
REST = 0.005  # seconds in which the threads of the side before go to sleep


CLOCKS = ("wall", "cpu")

#: Measures something, and gives its rows.
Job = Callable[[], list[dict[str, Any]]]


class Side(NamedTuple):
    """One side: what it does, and with how many of torch's threads."""

    call: Callable[[], Any]
    threads: int = 1


def on_both_clocks(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Side]:
    """Each call with all of torch's threads, and (under its name with an ending) with one.

    Example:
        >>> list(on_both_clocks({"ours": list}))
        ['ours', 'ours, one thread']
    """
    every = torch.get_num_threads()
    sides = {name: Side(call, every) for name, call in calls.items()}
    return sides | {f"{name}{ONE}": Side(call) for name, call in calls.items()}


@dataclass
class Times:
    """Seconds a call, one number a repeat: on the clock (median of the calls) and of the processor (their mean)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def on_clock(times: Mapping[str, Times], name: str, clock: str) -> list[float]:
    """Seconds of each repeat: "wall" with all threads, or "cpu", processor time with one.

    Example:
        >>> on_clock({"ours": Times([0.1], [0.2]), "ours, one thread": Times([0.15], [0.14])}, "ours", "cpu")
        [0.14]
    """
    return times[name].wall if clock == "wall" else times[name + ONE].cpu


def clock_text(clock: str) -> str:
    """The clock with its threads.

    Example:
        >>> clock_text("cpu")
        'cpu, 1 thread'
    """
    threads = torch.get_num_threads() if clock == "wall" else 1
    return f"{clock}, {threads} thread{'s' * (threads > 1)}"


def in_turn(names: Iterable[T], repeats: int) -> Iterator[tuple[int, T]]:
    """Number of the repeat and a name: all names in every repeat, in the opposite order every second time.

    What drifts over the minutes of a measurement (heat, other processes) then meets all sides alike.

    Example:
        >>> list(in_turn(["ours", "peer"], 2))
        [(0, 'ours'), (0, 'peer'), (1, 'peer'), (1, 'ours')]
    """
    names = list(names)
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:
            yield repeat, name


def interleaved(sides: Mapping[str, Side], repeats: int) -> dict[str, Times]:
    """Time all sides in turn (:func:`in_turn`).

    Args:
        sides: What to time, by name.
        repeats: Blocks of calls of each side; fewer for a side that would take more than a few seconds.

    Example:
        >>> times = interleaved({"a": Side(lambda: sum(range(1000)))}, repeats=2)
        >>> len(times["a"].wall), times["a"].wall[0] > 0
        (2, True)
    """
    times = {name: Times() for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    threads = torch.get_num_threads()
    try:
        for _, name in in_turn(sides, repeats):
            if spent[name] > BUDGET:
                continue
            start = time.perf_counter()
            torch.set_num_threads(sides[name].threads)
            time.sleep(REST)
            _block(sides[name].call, times[name])
            spent[name] += time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return times


def _block(call: Callable[[], Any], times: Times) -> None:
    """Add one repeat: calls for a while, after one that warms up unless it is slow."""
    started, processor, walls = time.perf_counter(), time.process_time(), []
    call()
    first = time.perf_counter() - started
    if first > SLOW:
        walls.append(first)
    else:
        started, processor = time.perf_counter(), time.process_time()
        while not walls or time.perf_counter() - started < BLOCK:
            before = time.perf_counter()
            call()
            walls.append(time.perf_counter() - before)
    times.cpu.append((time.process_time() - processor) / len(walls))
    times.wall.append(statistics.median(walls))


def run_jobs(jobs: Sequence[Job]) -> dict[str, Any]:
    """Rows of all jobs; one that fails, for want of a peer's package or otherwise, costs only its own.

    Args:
        jobs: What to measure, in this order.

    Returns:
        "rows", and "skipped": a line for each reason why rows are missing.

    Raises:
        Exception: What the first one raised, if there are no rows at all.

    Example:
        >>> run_jobs([lambda: [{"what": "a"}], lambda: [{}["b"]]])
        {'rows': [{'what': 'a'}], 'skipped': ["KeyError: 'b'"]}
    """
    rows: list[dict[str, Any]] = []
    failures: list[Exception] = []
    for job in track(jobs, "measuring"):
        try:
            rows += job()
        except Exception as error:
            failures.append(error)
    if failures and not rows:
        raise failures[0]
    return {"rows": rows, "skipped": list(dict.fromkeys(map(one_line, failures)))}


def eight_digits(value: Any) -> Any:
    """Measured numbers in lists and mappings with eight digits: no clock repeats itself better, and files stay small.

    Example:
        >>> eight_digits({"ratio": 1.98187726371, "repeats": [208954.9738770086, 12], "clock": "wall"})
        {'ratio': 1.9818773, 'repeats': [208954.97, 12], 'clock': 'wall'}
    """
    if isinstance(value, Mapping):
        return {key: eight_digits(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [eight_digits(one) for one in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def one_line(error: Exception) -> str:
    """What went wrong, with the kind of error unless it is one of ours, which are complete.

    Example:
        >>> one_line(ValueError("bad value")), one_line(FieldmarkError("shot is 0"))
        ('ValueError: bad value', 'shot is 0')
    """
    text = " ".join(str(error).split())
    return text if isinstance(error, FieldmarkError) else f"{type(error).__name__}: {text}"


def make_row(
    what: str,
    ours: list[float],
    peer: list[float],
    count: float,
    unit: str,
    target: float | None = None,
    milliseconds: Mapping[str, list[float]] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """A row: how much both sides do in a second, by the medians of their repeats.

    Args:
        what: What was measured, against whom.
        ours: Seconds a call of each repeat.
        peer: Likewise.
        count: How much a call does.
        unit: Of what, "problems/s".
        target: The ratio to reach.
        milliseconds: More seconds to be told beside both sides'.
        facts: More columns of the row.

    Example:
        >>> row = make_row("ours against a loop", [0.1, 0.2, 0.3], [2.0], 50, "problems/s", 5.0)
        >>> row["ours"], row["peer"], row["ratio"], row["milliseconds"]["ours"]
        (250.0, 25.0, 10.0, 200.0)
    """
    rates = {"ours": count / statistics.median(ours), "peer": count / statistics.median(peer)}
    row: dict[str, Any] = {"what": what, **rates, "unit": unit, "ratio": rates["ours"] / rates["peer"]}
    if target is not None:
        row["target"] = target
    told = {"ours": ours, "peer": peer, **(milliseconds or {})}
    return row | {
        "milliseconds": {name: 1e3 * statistics.median(seconds) for name, seconds in told.items()},
        **facts,
        "repeats": {"ours": [count / seconds for seconds in ours], "peer": [count / seconds for seconds in peer]},
    }
