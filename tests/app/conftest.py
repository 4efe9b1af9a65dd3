"""A small gallery of drawn pictures, and the application around it."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "gallery"))
from drawn import picture

pytest.importorskip("lancedb", reason="the gallery's package is not installed (extra: gallery)")
for name in ("fastapi", "httpx", "python_multipart", "uvicorn"):
    pytest.importorskip(name, reason="the packages of the web page and API are not installed (extra: app)")

CLASSES = ("red", "green", "blue")


def png(name: str, number: int = 50, side: int = 24) -> bytes:
    """A drawn picture that is not enrolled, as a file."""
    file = io.BytesIO()
    Image.fromarray(picture(name, number, side)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Three classes of four photos; a convolutional model with weights of a file."""
    from fieldmark import backbones
    from fieldmark.gallery import Embedder, Gallery

    folder = tmp_path_factory.mktemp("app")
    torch.manual_seed(0)
    backbone = backbones.create("conv4")
    encoder = backbones.Encoder(backbone, (0.5,) * 3, (0.5,) * 3)
    path = backbones.save_model(
        folder / "m.safetensors", encoder, {"manifest": {"name": "x", "size": [32, 32], "fit": "crop"}}
    )
    gallery = Gallery.open(folder / "colours", create=True)
    gallery.enroll(
        [picture(name, number) for name in CLASSES for number in range(4)],
        [name for name in CLASSES for _ in range(4)], embedder=Embedder(path), model=str(path),
    )  # fmt: skip
    return folder / "colours"


@pytest.fixture
def place(original, tmp_path):
    """A copy of it that may be changed."""
    shutil.copytree(original, tmp_path / "colours")
    return tmp_path / "colours"


@pytest.fixture
def open_client(place):
    """A function: a client of the API without the page; the options are of Service, and who may come in."""
    from starlette.testclient import TestClient

    from fieldmark.app import Access, Service, make_app

    def opened(access=None, base="http://127.0.0.1:8000", **options):
        app = make_app(Service(place, **options), access or Access(), page=False)
        return TestClient(app, base_url=base)

    return opened


@pytest.fixture
def client(open_client):
    return open_client()


@pytest.fixture
def photo():
    """A function: a photo that is not enrolled, as the bytes of a file."""
    return png
