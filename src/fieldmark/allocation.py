"""Freed memory stays with the process, where the next tensor finds it, up to what a program wants (decision 0012)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

# Numbers of parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for what is allocated next, in place of giving it back to the system.

    By default glibc takes a large block (the feature maps of a batch) from the system, gives it back once it is free,
    and the system clears every page of it anew: encoding images on a processor can take twice as long
    (``fieldmark bench allocation``). Results stay the same. What was needed once is not given back to other programs
    before the process ends, and the process may take more at its most. The command line does this by itself. In
    Python it is for the program to decide, since it concerns the whole process; call it before the first tensor is
    made.

    Nothing is done where the C library is another one than glibc (macOS, Windows, musl), or where the environment
    already says how memory is to be allocated (a variable ``MALLOC_...``, as of mallopt(3), or ``glibc.malloc`` among
    the ``GLIBC_TUNABLES``).

    Returns:
        Whether it took effect.

    Example:
        >>> import fieldmark as fm
        >>> fm.keep_freed_memory() in (True, False)  # False where there is nothing to do
        True
    """
    if not _is_ours_to_decide():
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, _MOST))


class _Info(ctypes.Structure):
    """glibc's struct mallinfo2, as of its malloc.h; the ninth number, fordblks, is the bytes that are free and kept."""

    _fields_ = [*((f"number_{place}", ctypes.c_size_t) for place in range(1, 9)),
                ("free", ctypes.c_size_t), ("keepcost", ctypes.c_size_t)]  # fmt: skip


def give_back_freed_memory(above: int) -> bool:
    """Give freed memory back to the system if more of it is kept than a program wants to; for those that run for long.

    Blocks of very different sizes (the photos that a server is sent) leave gaps that the next ones do not fit into, so
    that what is kept grows. Nothing is done where :func:`keep_freed_memory` would do nothing.

    Args:
        above: Bytes that may stay with the process.

    Returns:
        Whether any was given back; never with a glibc older than 2.33, which does not say how much it keeps.

    Example:
        >>> import sys
        >>> give_back_freed_memory(above=sys.maxsize)
        False
    """
    if not _is_ours_to_decide():
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return False
    library.mallinfo2.restype = _Info
    return library.mallinfo2().free > above and bool(library.malloc_trim(0))


@contextlib.contextmanager
def bounded_freed_memory(above: int) -> Iterator[None]:
    """After the block, however it ends, no more than so much freed memory stays with the process.

    Args:
        above: As of :func:`give_back_freed_memory`.

    Example:
        >>> with bounded_freed_memory(2**29):
        ...     large = bytearray(10)
    """
    try:
        yield
    finally:
        give_back_freed_memory(above)


def _is_ours_to_decide() -> bool:
    """Whether allocation can be told what to keep, and the environment does not say so already."""
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return is_glibc() and not tuned and not any(name.startswith("MALLOC_") for name in os.environ)


def is_glibc() -> bool:
    """Whether the C library of this process is glibc, whose allocation can be told what to keep."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
