"""A gallery in the browser, and by HTTP for programs: drop a photo, see the answer and why, correct it, add classes.

Only this machine can reach it, unless --host says otherwise: then a token is asked for, and a proxy with TLS in front
is advisable. What programs can ask for is described at /openapi.json. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from fieldmark.cli.enroll import add_classifier_options
from fieldmark.cli.output import add_json_option, emit_json
from fieldmark.cli.values import parse_options

if TYPE_CHECKING:
    from fieldmark.app import Access

EXAMPLE = "fieldmark serve --gallery birds --port 7860"
TOKEN = "FIELDMARK_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--gallery", required=True, metavar="DIR", help="folder of the gallery")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine only"
    )
    parser.add_argument("--port", type=int, default=7860, help="port, 0 for any that is free; default: 7860")
    parser.add_argument("--read-only", action="store_true", help="refuse changes of the gallery")
    parser.add_argument(
        "--token", default="", metavar="TEXT",
        help=f"what must be shown to come in (better in the environment variable {TOKEN}, which other users of the "
        "machine cannot see); where one is needed and none is given, one is made and printed",
    )  # fmt: skip
    parser.add_argument(
        "--proxied-as", action="append", default=[], metavar="NAME",
        help="host name by which a proxy on this machine makes the page known; asks for a token; may be repeated",
    )  # fmt: skip
    parser.add_argument("--max-bytes", type=int, default=20_000_000, help="of an uploaded photo; default: 20,000,000")
    parser.add_argument("--max-pixels", type=int, default=50_000_000, help="of an uploaded photo; default: 50,000,000")
    add_classifier_options(parser)
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from fieldmark.app import Access, Limits, Service, serve
    from fieldmark.app.server import bind, check_installed

    check_installed()
    access = Access.for_host(options.host, options.token or os.environ.get(TOKEN, ""), options.proxied_as)
    limits = Limits(options.max_bytes, options.max_pixels)
    head = {"head": options.head} if options.head else {}
    settings = {**head, "head_options": parse_options("--head-option", options.head_option)}
    listening = bind(options.host, options.port)
    with listening:
        service = Service(
            options.gallery,
            limits,
            options.read_only,
            backbone=options.backbone,
            device=options.device,
            options=settings,
        )
        service.warm()
        port = listening.getsockname()[1]
        made = bool(access.token) and not (options.token or os.environ.get(TOKEN))
        try:
            serve(service, access, listening, lambda: _announce(options, access, port, made))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; nothing is half-written") from None
    return 0


def _announce(options: argparse.Namespace, access: Access, port: int, made: bool) -> None:
    name = f"[{options.host}]" if ":" in options.host else options.host
    name = {"0.0.0.0": "localhost", "[::]": "localhost"}.get(name, name)
    address = f"http://{name}:{port}"
    report = {
        "gallery": options.gallery,
        "address": address,
        "openapi": f"{address}/openapi.json",
        "token": bool(access.token),
    }
    if emit_json(options.json, report):
        return
    print(
        f"gallery {options.gallery} is at {address} (for programs: {address}/openapi.json); Ctrl-C ends it", flush=True
    )
    if made:
        print(f"token: {access.token}", flush=True)
    if access.token and not options.proxied_as:
        print("note: what is sent is not encrypted; let a proxy with TLS stand in front", flush=True)
