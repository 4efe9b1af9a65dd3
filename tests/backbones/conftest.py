import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("official_weights", Path(__file__).with_name("official.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


@pytest.fixture
def official(shared_file):
    """A function: (golden backbone, rule, seed) -> its state dict in official names."""

    def load(name, rule="B", seed=0):
        return _module.official_weights(shared_file(f"golden/{name}_keys.json"), rule, seed)

    return load
