"""Progress bars: on a terminal, for work that lasts more than two seconds, and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 2.0  # seconds before a bar appears


def track(
    items: Sequence[T] | Iterable[T], text: str, step: int = 1, total: int | None = None, *, show: bool = True
) -> Iterator[T]:
    """Iterate with a progress bar on standard error that appears after two seconds, and only on a terminal.

    Args:
        items: What to go through.
        text: What is being done.
        step: How far the bar moves an item.
        total: Length of the bar; default: that of ``items`` times ``step``.
        show: False for no bar at all.

    Example:
        >>> list(track([1, 2], "counting"))
        [1, 2]
    """
    if not show or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if total is None:
        total = len(items) * step if isinstance(items, Sequence) else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(text, total=total)
    started, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            bar.advance(task, step)
            if not shown and time.monotonic() - started > _PATIENCE:
                bar.start()
                shown = True
    finally:
        if shown:
            bar.stop()
