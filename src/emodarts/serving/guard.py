"""What stands before the routes of the server: who may ask, limits of size and time, metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SUBPROTOCOL = "emodarts"
"""WebSocket subprotocol; a browser sends the token beside it as ``bearer.TOKEN``."""

_OPEN = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""Paths that need no token, beside the files of the page."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_PATIENCE = 5.0
"""Seconds for which the rest of a refused body is read and thrown away. A client that is still
sending would otherwise see a broken connection and not the reason."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; media-src blob:; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes
    ----------
    upload : bytes of a request's body.
    seconds : of sound in an upload or a stream.
    requests : uploads that are received, waiting or computed at the same time.
    streams : open at the same time.
    timeout : seconds for a request, from its headers to its answer, and for which a stream may
        send nothing.
    jobs : recordings that are classified at the same time.
    """

    upload: int = 64 * 10**6
    seconds: float = 600.0
    requests: int = 32
    streams: int = 8
    timeout: float = 60.0
    jobs: int = 2


class Places:
    """A number of places; who comes when all are taken is refused at once.

    A status of 503 says: come back later.
    """

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self.taken = 0
        self._what = what

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place. Raises :class:`HTTPException`."""
        if self.taken >= self.most:
            raise HTTPException(
                503,
                f"the server is busy: {self.most} {self._what} at the same time; try again",
                {"retry-after": "1"},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Metrics:
    """Counts in Prometheus' format, without anything about what was said or answered."""

    def __init__(self, requests: Places, streams: Places) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "emodarts_requests",
            "Requests, by route and status; streams with that of their handshake.",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "emodarts_request_seconds",
            "Seconds from the headers of a request to its answer.",
            ["route"],
            registry=self.registry,
        )
        self.audio = Counter(
            "emodarts_audio_seconds",
            "Seconds of sound that were classified.",
            registry=self.registry,
        )
        for name, places in (("uploads", requests), ("streams", streams)):
            gauge = Gauge(f"emodarts_{name}_in_progress", f"Open {name}.", registry=self.registry)
            gauge.set_function(partial(getattr, places, "taken"))


class Guard:
    """ASGI middleware around the routes.

    Parameters
    ----------
    token : that a client must send; None lets everyone ask.
    local : whether the server listens on loopback. Then the host in a request must be this machine
        by name, so that no web site can reach the server under a name of its own (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None, local: bool
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._token = token
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            await (refusal or self._app)(scope, receive, self._counted(scope, send))
            return
        started = time.monotonic()
        deadline = started + self._limits.timeout
        scope.setdefault("state", {})["deadline"] = deadline
        exchange = _Exchange(scope, receive, self._counted(scope, send), self._limits, deadline)
        await (refusal or self._app)(scope, exchange.receive, exchange.send)
        self._metrics.seconds.labels(_route(scope)).observe(time.monotonic() - started)

    def _counted(self, scope: Scope, send: Send) -> Send:
        """``send`` that adds headers and counts statuses."""

        async def counted(message: Message) -> None:
            kind = message["type"]
            if kind.endswith("response.start"):
                names = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(h for h in more if h[0] not in names)]
                self._metrics.requests.labels(_route(scope), message["status"]).inc()
            elif kind == "websocket.accept":
                self._metrics.requests.labels(_route(scope), 101).inc()
            await send(message)

        return counted

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._local and _hostname(f"//{host}") not in _LOOPBACK:
            return _reason(421, f"host is {host!r}; allowed: {', '.join(sorted(_LOOPBACK))}")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            return _reason(403, f"origin is {origin!r}; allowed: pages of this server")
        path = scope["path"]
        if self._token is None or path in _OPEN or path.startswith("/page/"):
            return None
        if not hmac.compare_digest(_sent_token(scope, headers).encode(), self._token.encode()):
            return _reason(
                401,
                "no token or a wrong one; needed: the header Authorization: Bearer TOKEN",
                {"www-authenticate": "Bearer"},
            )
        return None


class _Exchange:
    """A request's body within its limits of size and time, and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, deadline: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._deadline = deadline
        headers = Headers(scope=scope)
        self._waits = headers.get("expect", "").lower() == "100-continue"
        stated = headers.get("content-length", "0")
        self._stated = int(stated) if stated.isdecimal() else 0
        self._more = self._stated > 0 or "transfer-encoding" in headers
        self._received = 0

    async def receive(self) -> Message:
        """The next part of the body. Raises :class:`HTTPException`."""
        if not self._more:
            return await self._receive()
        if self._stated > self._limits.upload:
            raise too_large(self._limits)
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._next()
        except TimeoutError:
            raise HTTPException(
                408, f"the request did not arrive within {self._limits.timeout:g} s"
            ) from None
        if self._received > self._limits.upload:
            raise too_large(self._limits)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; if it comes before the body has, that is thrown away first."""
        if message["type"] == "http.response.start" and self._more and not self._waits:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while self._more:
                        await self._next()
        # Whoever does not read the answer shall not keep it here for ever.
        async with asyncio.timeout(self._limits.timeout):
            await self._send(message)

    async def _next(self) -> Message:
        message = await self._receive()
        self._waits = False
        self._received += len(message.get("body", b""))
        self._more = bool(message.get("more_body", False))
        return message


def too_large(limits: Limits) -> HTTPException:
    """The answer to a body over the limit."""
    return HTTPException(413, f"the upload is larger than the {limits.upload / 1e6:g} MB allowed")


def _sent_token(scope: Scope, headers: Headers) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    offered = [p for p in scope.get("subprotocols", ()) if p.startswith("bearer.")]
    return offered[0].removeprefix("bearer.") if offered else ""


def _reason(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


def _route(scope: Scope) -> str:
    """Path of the route that answered: one of few, whatever clients ask for."""
    path = getattr(scope.get("route"), "path", None)
    return str(path) if path else "other"


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None
