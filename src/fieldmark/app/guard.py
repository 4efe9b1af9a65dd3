"""What every request passes before anything else sees it: host, origin, token, size, and which paths there are.

It stands around the API and the page alike, as ASGI middleware that needs no package.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fieldmark.app.login import login_page
from fieldmark.errors import FieldmarkError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SHORTEST_TOKEN = 16
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_FORM_ROOM = 16_384  # what a multipart form adds to its file
_SMALL = 1_000_000  # bytes of a request that carries no photo
_COOKIE = "fieldmark"
_SAFE = ("GET", "HEAD")

# Of Gradio's many paths those that the page needs. Closed are its upload of files, the reading of files, proxies, the
# fetching of addresses, and its own API.
_PAGE = re.compile(
    r"/|/config/?|/theme\.css|/manifest\.json|/favicon\.ico|/robots\.txt|/(assets|static|svelte)/[^\\]*"
    r"|/gradio_api/(queue/(join|data)|heartbeat/\w+|cancel|reset|info|app_id|startup-events|theme\.css)/?"
)
_API = re.compile(r"/api(/.*)?|/openapi\.json")

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        # Gradio's page writes its scripts and styles into the page; nothing may come from, or go to, anywhere else.
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
)


@dataclass(frozen=True)
class Access:
    """Who may come in.

    Attributes:
        token: What must be shown; "" lets in everybody who reaches the address.
        names: Names (and addresses) that the ``Host`` header may have; empty: any.

    Raises:
        FieldmarkError: A token that could be guessed.

    Example:
        >>> Access.for_host("127.0.0.1").token, len(Access.for_host("0.0.0.0").token) > 30
        ('', True)
    """

    token: str = field(default="", repr=False)
    names: tuple[str, ...] = _LOCAL_NAMES

    def __post_init__(self) -> None:
        if self.token and (
            len(self.token) < SHORTEST_TOKEN or not self.token.isascii() or not self.token.isprintable()
        ):
            raise FieldmarkError(
                f"the token has {len(self.token)} characters; expected at least {SHORTEST_TOKEN}, all of ASCII (leave "
                "it out and one is made)"
            )

    @classmethod
    def for_host(cls, host: str, token: str = "", proxied_as: Sequence[str] = ()) -> Access:
        """What an address to listen on asks for: off this machine, and behind a proxy, there is always a token.

        Args:
            host: Address to listen on.
            token: What must be shown; "": one is made where it is needed.
            proxied_as: Names by which a proxy on this machine makes the page known.

        Raises:
            FieldmarkError: A token that could be guessed.
        """
        local = is_loopback(host)
        if not token and (not local or proxied_as):
            token = secrets.token_urlsafe(24)
        shown = f"[{host}]" if ":" in host else host
        names = (*_LOCAL_NAMES, shown.lower(), *(name.lower() for name in proxied_as)) if local else ()
        return cls(token, names)

    def matches(self, token: str) -> bool:
        """Whether a token is the right one, in a time that does not tell how much of it is."""
        return hmac.compare_digest(_digest(token), _digest(self.token))

    @property
    def cookie(self) -> str:
        """What a browser keeps instead of the token."""
        return hashlib.sha256(b"fieldmark cookie " + self.token.encode()).hexdigest()


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: What is guarded.
        access: Who may come in.
        max_bytes: Of an uploaded file.
    """

    def __init__(self, app: Any, access: Access, max_bytes: int) -> None:
        self.app, self.access, self.max_bytes = app, access, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # neither page nor API speaks by WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        request = _Request(scope)
        answer = await self._answer(request, receive)
        if answer is not None:
            await _send(send, *answer)
            return
        limit = self._limit(request)
        body = _Body(receive, send, limit)
        if request.path.rstrip("/") == "/gradio_api/queue/join":
            data = await body.read()
            if data is None:
                return
            if _names_a_file(data):
                await _send(send, 403, "files are taken by /api/predict alone")
                return
        await body.run(self.app, scope)

    async def _answer(self, request: _Request, receive: Receive) -> tuple[int, Any] | tuple[int, Any, list[Any]] | None:
        """What to say at once, or None to pass the request on."""
        if self.access.names and request.name not in self.access.names:
            return 421, f"host {request.name[:80]!r} is not served here; open {_LOCAL_NAMES[0]} or {_LOCAL_NAMES[1]}"
        if request.foreign:
            return 403, "requests from pages of other sites are refused"
        if ".." in request.path or not (
            _PAGE.fullmatch(request.path) or _API.fullmatch(request.path) or request.path == "/login"
        ):
            return 404, "there is nothing at this address"
        if request.path == "/api/health":
            return None
        if self.access.token:
            if request.path == "/login" and request.method == "POST":
                return await self._log_in(request, receive)
            if not self._known(request):
                if request.method in _SAFE and request.wants_page:
                    return 401, login_page()
                return 401, "a token is needed: send the header 'Authorization: Bearer TOKEN'"
        if request.path == "/login":
            return 303, "", [(b"location", b"/")]
        length = request.header(b"content-length")
        if length.isdigit() and int(length) > self._limit(request):
            return 413, _too_large(self._limit(request))
        return None

    def _known(self, request: _Request) -> bool:
        kind, _, token = request.header(b"authorization").partition(" ")
        if kind.lower() == "bearer" and self.access.matches(token.strip()):
            return True
        return any(hmac.compare_digest(_digest(one), _digest(self.access.cookie)) for one in request.cookies(_COOKIE))

    async def _log_in(self, request: _Request, receive: Receive) -> tuple[int, Any] | tuple[int, Any, list[Any]]:
        data = await _Body(receive, None, 4096).read()
        given = parse_qs((data or b"").decode("ascii", "replace")).get("token", [""])[0]
        if not self.access.matches(given.strip()):
            return 401, login_page(wrong=True)
        cookie = f"{_COOKIE}={self.access.cookie}; Path=/; HttpOnly; SameSite=Lax"
        if request.header(b"x-forwarded-proto") == "https" or request.scope.get("scheme") == "https":
            cookie += "; Secure"
        return 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())]

    def _limit(self, request: _Request) -> int:
        takes_photo = request.path.startswith("/api/")
        return self.max_bytes + _FORM_ROOM if takes_photo else _SMALL


class _Request:
    """What the guard wants to know of a request."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.method, self.path = scope, str(scope["method"]), str(scope["path"])
        self.host = self.header(b"host").lower()
        self.name = re.sub(r":\d+$", "", self.host)

    def header(self, name: bytes) -> str:
        """A header's value, or ""; one that is there twice counts as wrong."""
        found = [value for key, value in self.scope["headers"] if key == name]
        return found[0].decode("latin-1") if len(found) == 1 else ""

    def cookies(self, name: str) -> list[str]:
        """Values of cookies of a name."""
        pairs = (pair.strip().partition("=") for pair in self.header(b"cookie").split(";"))
        return [value for key, _, value in pairs if key == name]

    @property
    def wants_page(self) -> bool:
        """Whether a browser asks for a page to show."""
        return "text/html" in self.header(b"accept")

    @property
    def foreign(self) -> bool:
        """Whether a page of another site sent it; links that are followed are none of that."""
        origin = self.header(b"origin")
        if any(key == b"origin" for key, _ in self.scope["headers"]) and urlsplit(origin).netloc.lower() != self.host:
            return True
        site = self.header(b"sec-fetch-site")
        followed = self.method in _SAFE and self.header(b"sec-fetch-mode") == "navigate"
        return site in ("cross-site", "same-site") and not followed


class _Body:
    """The body of a request, counted while it comes; what is too long is answered with 413."""

    def __init__(self, receive: Receive, send: Send | None, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._seen, self._over, self._started = 0, False, False
        self._kept: list[Message] = []

    async def read(self) -> bytes | None:
        """All of it, kept for the application as well; None if it is too long (which was then said)."""
        parts: list[bytes] = []
        while True:
            message = await self._next()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                data = b"".join(parts)
                self._kept.append({"type": "http.request", "body": data, "more_body": False})
                return data

    async def run(self, app: Any, scope: Scope) -> None:
        """Hand the request on."""
        assert self._send is not None
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            # An application whose client has gone (as far as it knows) may well be upset.
            if not self._over:
                raise

    async def receive(self) -> Message:
        """For the application."""
        return self._kept.pop(0) if self._kept else await self._next()

    async def send(self, message: Message) -> None:
        """Likewise."""
        if self._over or self._send is None:
            return
        if message["type"] == "http.response.start":
            self._started = True
            names = {key.lower() for key, _ in message["headers"]}
            kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": [*kept, *(pair for pair in _HEADERS if pair[0] not in names)]}
        await self._send(message)

    async def _next(self) -> Message:
        if self._over:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                self._over = True
                if self._send is not None and not self._started:
                    await _send(self._send, 413, _too_large(self._limit))
                return {"type": "http.disconnect"}
        return message


async def _send(send: Send, status: int, content: Any, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    page = isinstance(content, bytes)
    body = content if page else json.dumps({"error": content}, ensure_ascii=False).encode() if content else b""
    kind = b"text/html; charset=utf-8" if page else b"application/json"
    all_headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401 and not page:
        all_headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        all_headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": [*all_headers, *headers, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("example.org")
        (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _too_large(limit: int) -> str:
    return f"the request is too large; at most {limit:,} bytes are taken"


def _names_a_file(data: bytes) -> bool:
    """Whether a call of the page carries a file's path or address, for Gradio to read or fetch; ours never does."""
    try:
        stack = [json.loads(data)]
    except (ValueError, RecursionError):
        return True
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if "meta" in one or "path" in one or "url" in one:
                return True
            stack += one.values()
        elif isinstance(one, list):
            stack += one
    return False
