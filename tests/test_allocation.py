"""Freed memory stays with the process, and where it cannot, nothing happens."""

import os
import subprocess
import sys

import pytest

from fieldmark import allocation
from fieldmark.cli import main as cli

# Page faults of making and freeing 64 MB twenty times, after a first time.
_FAULTS = """
import resource, sys
from fieldmark.allocation import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
import numpy as np
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(not allocation.is_glibc(), reason="the C library is not glibc")


def faults(side, **environment):
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, side], capture_output=True, text=True, check=True, env=bare | environment
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@glibc
def test_memory_that_was_used_before_is_not_asked_for_again():
    kept, count = faults("keep")
    assert kept == "True"
    assert count < 20
    # Without, glibc gives the 64 MB back each time: at least 20 times as many faults, with pages of 2 MB or of 4 kB.
    assert faults("as it is")[1] > 20 * max(count, 1)


@glibc
@pytest.mark.parametrize("said", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_the_environment_decides_if_it_says_anything(said):
    assert faults("keep", **said)[0] == "False"


@pytest.mark.parametrize("error", [ValueError, AttributeError, OSError])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def refuse(name):
        raise error(name)

    monkeypatch.setattr(os, "confstr", refuse, raising=False)
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)  # would fail if it were called
    assert allocation.keep_freed_memory() is False


def test_the_command_line_does_it(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append(1))
    assert cli.main(["--version"]) == 0
    assert calls == [1]
