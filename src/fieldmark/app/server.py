"""The application on an address of this machine, until it is interrupted."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fieldmark.app.api import make_app
from fieldmark.app.guard import Access
from fieldmark.app.service import Service
from fieldmark.errors import FieldmarkError, MissingExtraError

_GRACE = 3  # seconds for open requests when the server is to end


def check_installed() -> None:
    """Name a package that is missing, before anything slow is begun.

    Raises:
        MissingExtraError: FastAPI, Gradio, Uvicorn or the reader of forms is not installed.
    """
    for package, module in (("gradio", "gradio"), ("fastapi", "fastapi"), ("uvicorn", "uvicorn"),
                            ("python-multipart", "python_multipart")):  # fmt: skip
        if find_spec(module) is None:
            raise MissingExtraError(package, "app", "fieldmark serve")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is known before the page is built.

    Raises:
        FieldmarkError: The address is taken, not this machine's, or not allowed.
    """
    if not 0 <= port <= 65535:
        raise FieldmarkError(f"--port is {port}; expected 0 (any that is free) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host.strip("[]"), port))
        found.listen(128)
    except OSError as error:
        found.close()
        reason = error.strerror or str(error)
        raise FieldmarkError(f"cannot listen on {host} port {port}: {reason}; give another --port or --host") from None
    return found


def serve(service: Service, access: Access, listening: socket.socket, ready: Callable[[], Any] = lambda: None) -> None:
    """Serve until interrupted, which raises ``KeyboardInterrupt`` after the open requests have ended.

    Args:
        service: The gallery.
        access: Who may come in.
        listening: From :func:`bind`.
        ready: Called when requests are answered.

    Raises:
        MissingExtraError: A package is not installed.
    """
    check_installed()
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    config = uvicorn.Config(
        make_app(service, access), log_level="error", access_log=False, timeout_graceful_shutdown=_GRACE,
        server_header=False, h11_max_incomplete_event_size=65_536, ws="none",
    )  # fmt: skip
    Server(config).run(sockets=[listening])
    # Uvicorn raises only where the signal was not ignored when the program was started (`serve &` in a script).
    raise KeyboardInterrupt
