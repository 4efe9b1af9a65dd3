"""What one side of a comparison adds to the memory of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def added(module: str, given: Sequence[Any]) -> float:
    """Megabytes that one call of a side adds to a fresh process, which runs the module; see :func:`tell`.

    Args:
        module: Its name; run as a program, it calls :func:`tell`.
        given: What makes the side, as JSON values.
    """
    command = [sys.executable, "-m", module, json.dumps(given)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["megabytes"])


def tell(make: Callable[..., Callable[[], Any]], warm: Callable[..., Any] | None = None) -> None:
    """In that process: make the side, and only then look how much a call adds.

    Args:
        make: The side, from what is given.
        warm: Done first, so that what any call needs once does not count.
    """
    given = json.loads(sys.argv[1])
    if warm is not None:
        warm(*given)
    side = make(*given)
    before = largest_size()
    side()
    print(json.dumps({"megabytes": largest_size() - before}))


def largest_size() -> float:
    """The largest resident size of this process so far, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # A process that was started by a large one inherits that one's size in what getrusage tells.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
