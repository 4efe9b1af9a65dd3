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


# Resident megabytes with a gigabyte in blocks that were freed but for the last, and after giving back all that is free.
_HELD = """
import sys
from fieldmark.allocation import give_back_freed_memory, keep_freed_memory
import numpy as np

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

keep_freed_memory()
blocks = [np.ones(2**23) for _ in range(16)]
blocks[:-1] = []
print(resident(), give_back_freed_memory(above=2**32), give_back_freed_memory(above=2**29), resident(), len(blocks))
"""


@glibc
def test_what_is_kept_is_given_back_above_a_bound():
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", _HELD], capture_output=True, text=True, check=True, env=bare)
    before, small, large, after, blocks = done.stdout.split()
    assert (small, large, blocks) == ("False", "True", "1")
    assert float(before) - float(after) > 900


@pytest.mark.parametrize("said", [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")])
def test_nothing_is_given_back_where_the_environment_decides(monkeypatch, said):
    monkeypatch.setenv(*said)
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)  # would fail if it were called
    assert allocation.give_back_freed_memory(above=0) is False


def test_nothing_is_given_back_by_another_c_library(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: "musl 1.2", raising=False)
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)  # would fail if it were called
    assert allocation.give_back_freed_memory(above=0) is False
