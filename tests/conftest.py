"""Shapes in signatures are checked on every call in tests; paths of real data come from beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Tests run side by side, one process a core: one thread each, which also keeps them repeatable on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SOURCES = Path(__file__).resolve().parents[1] / "src"
# Wrapped in a check, a function cannot be compiled.
_COMPILED = {"order_free", "simplex_batch", "simplex_kernel", "vector"}
_checked = [
    ".".join(path.relative_to(_SOURCES).with_suffix("").parts)
    for path in (_SOURCES / "fieldmark" / "functional").rglob("*.py")
    if path.stem not in _COMPILED and path.stem != "__init__"
]
_hook = install_import_hook([*_checked, "fieldmark.heads", "fieldmark.backbones"], "beartype.beartype")

SHARED = Path(os.environ.get("FIELDMARK_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{relative} is not beside the checkout (set FIELDMARK_SHARED to the folder that holds it)")
    return path


@pytest.fixture
def shared_file():
    """A function: path below the folder of shared inputs, or skip with the reason."""
    return _shared


@pytest.fixture
def golden():
    """A function: the arrays of the named golden file (npz) by key, or skip with the reason."""
    import numpy as np

    def load(name: str):
        with np.load(_shared(f"golden/{name}.npz")) as file:
            return dict(file)

    return load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.getbasetemp() / "fieldmark-cache"))
