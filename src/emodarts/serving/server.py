"""The process of the web server: its socket, its signals, and clients that speak no proper HTTP."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import h11
import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from emodarts.errors import EmodartsError
from emodarts.serving.api import create_app
from emodarts.serving.guard import Limits
from emodarts.serving.model import Model

_HEADER_SECONDS = 10.0
"""For the headers of a request; a connection that sends them more slowly is closed."""

_CHUNK = 1 << 20
"""Most bytes of a message of a stream."""


class _Protocol(H11Protocol):
    """Answers what is no HTTP in JSON, and does not wait long for headers."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": "the request is not well-formed HTTP/1.1"}).encode()
        headers = [("content-type", "application/json"), ("connection", "close")]
        headers.append(("content-length", str(len(body))))
        answer = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in answer:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._late is None:
            self._late = self.loop.call_later(_HEADER_SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    model: Model,
    host: str,
    port: int,
    limits: Limits,
    token: str | None,
    ready: Callable[[str], None],
) -> None:
    """Answer requests until SIGINT or SIGTERM; then finish those that have come.

    Parameters
    ----------
    port : 0 takes a free one.
    ready : called with the server's URL once it accepts connections.

    Raises
    ------
    EmodartsError
        If the address cannot be used.
    """
    listening = _listen(host, port)
    # So that the first answer takes no longer than the others.
    model.predict(np.random.default_rng(0).normal(0, 0.1, 16000), sample_rate=16000)
    app = create_app(model, limits, token, local=is_loopback(host))
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=_CHUNK,
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(limits.timeout),
    )
    # uvicorn takes a stream that is refused with a reason for one without an answer.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing handshake" not in record.getMessage()
    )
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(url)

    # uvicorn raises a signal again when it is done; that this ends well is no error.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        Server(config).run([listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with ExitStack() as unless_bound:
            listening = unless_bound.enter_context(socket.socket(family, kind))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            unless_bound.pop_all()
    except OSError as error:
        raise EmodartsError(
            f"cannot listen at {host} port {port}: {error.strerror or error}; "
            "choose another by --host or --port"
        ) from error
    return listening
