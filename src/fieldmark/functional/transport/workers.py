"""Threads that share a compiled function: torch's own workers where they can be reached, else a pool of ours.

Torch's workers spin for milliseconds after each of its operations, waiting for the next. Threads of our own would have
to compete with them for the cores; handed to these very workers, a batch of small problems starts at once
(docs/decisions/0005).
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

_STARTED_IN = os.getpid()


def run_on_threads(address: int, data: int, threads: int) -> None:
    """Call a C function with the same argument on several threads at once, and wait for all of them.

    Args:
        address: Of a compiled function of one pointer (numba's ``cfunc``); it shares out the work itself.
        data: The pointer.
        threads: How many.
    """
    function = _callable(address)
    if threads <= 1:
        function(data)
        return
    parallel = _torch_workers()
    # Torch's workers do not survive a fork, ours are started anew.
    if parallel is not None and os.getpid() == _STARTED_IN:
        parallel(address, data, threads, 0)
        return
    helpers = [_pool(os.getpid()).submit(function, data) for _ in range(threads - 1)]
    function(data)
    # Helpers that a busy machine has not started by now are called off, so nobody waits for them.
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@cache
def _callable(address: int) -> Any:
    """The function for Python; the interpreter's lock is free while it runs."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def _torch_workers() -> Any:
    """The entry of the OpenMP library that torch has loaded (GCC's), or None."""
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    except OSError:
        return None
    mine = [path for path in sorted(loaded) if "torch" in path]
    if not mine:
        return None
    parallel = ctypes.CDLL(mine[0]).GOMP_parallel
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), "fieldmark-transport")
