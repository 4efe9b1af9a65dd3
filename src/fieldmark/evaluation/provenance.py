"""Where a number comes from: code, machine, versions, threads, time."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from fieldmark._version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")  # pillow: it decodes, and draws the glyphs


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Facts that every results file carries.

    Args:
        command: The command line that made the result; default: this process's.

    Example:
        >>> sorted(provenance())[:4]
        ['command', 'commit', 'fieldmark', 'hardware']
    """
    import torch

    program = Path(sys.argv[0]).name.replace("__main__.py", "fieldmark")  # python -m fieldmark is the same command
    arguments = command if command is not None else [program, *sys.argv[1:]]
    return {
        "fieldmark": __version__,
        "commit": commit(),
        "command": shlex.join(_portable(text) for text in arguments),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def _portable(argument: str) -> str:
    """An absolute path says where one machine keeps a file; its name is what others need."""
    return Path(argument).name if os.path.isabs(argument) else argument


def commit() -> str:
    """Commit of the running code, with ``+changes`` if the tree differs from it; ``unknown`` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if not (top / "src" / "fieldmark").is_dir():
            return "unknown"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/src", ":/recipes")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerator of this machine."""
    import torch

    facts: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if torch.cuda.is_available():
        facts["accelerator"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
