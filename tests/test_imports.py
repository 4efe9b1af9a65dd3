"""What an import costs is a promise: nothing heavy before it is used."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "numba",
    "sklearn",
    "scipy",
    "matplotlib",
    "PIL",
    "kornia",
    "rich",
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_brings_nothing_heavy():
    loaded = python(f"import sys, fieldmark; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_needs_no_torch():
    shown = f"print([m for m in {HEAVY} if m in sys.modules])"
    out = python(f"import sys; from fieldmark.cli.main import main; main(['--help']); {shown}")
    assert "fieldmark demo" in out
    assert out.strip().endswith("[]")


@pytest.mark.parametrize("room", ["functional", "alignment", "backbones", "heads", "data"])
def test_rooms_do_not_bring_the_heavy_packages_of_others(room):
    heavy = ("torchvision", "timm", "lightning", "sklearn", "matplotlib", "kornia")
    loaded = python(f"import sys, fieldmark.{room}; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_the_app_brings_its_packages_only_when_it_is_used():
    heavy = ("torch", "gradio", "fastapi", "starlette", "uvicorn", "lancedb", "PIL")
    loaded = python(f"import sys, fieldmark.app, fieldmark.cli.serve; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_functional_needs_torch_alone():
    others = ("torchvision", "timm", "lightning", "sklearn", "scipy", "PIL", "matplotlib", "rich", "yaml", "jaxtyping",
              "beartype", "jsonargparse", "safetensors", "numba", "kornia")  # fmt: skip
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {others}:
            raise ImportError('not installed: ' + name)
sys.meta_path.insert(0, Refuse())
import fieldmark.functional
print('ok')
"""
    assert python(code).strip().endswith("ok")
