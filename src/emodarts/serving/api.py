"""The web server's routes: uploads, streams, the model, metrics, and the page at ``/``.

Every answer is one of :class:`emodarts.serving.model.Model`, so it has the bits that
``emodarts predict`` gives. Every refusal is a JSON object with the reason as ``error``.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any, cast

import numpy as np
from anyio import CapacityLimiter, fail_after, from_thread, to_thread
from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from jinja2 import Environment, FileSystemLoader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from emodarts.audio.io import Recording, Samples
from emodarts.errors import AudioError, EmodartsError, shown
from emodarts.serving.describe import Description, describe, draw_cells
from emodarts.serving.guard import SUBPROTOCOL, Guard, Limits, Metrics, Places
from emodarts.serving.model import Answer, Model
from emodarts.serving.windows import LONGEST, check_windows

_PAGE = Path(__file__).parent / "page"

_SHORTEST = 0.1
"""Seconds; closer windows would be more answers than anybody reads."""

_MOST_CHANNELS = 32

_Window = Annotated[
    float | None,
    Query(ge=_SHORTEST, le=LONGEST, description="Seconds; classify windows of this length too."),
]
_Hop = Annotated[
    float | None,
    Query(
        ge=_SHORTEST,
        le=LONGEST,
        description="Seconds from the start of a window to the next; by default `window`.",
    ),
]


@dataclass(frozen=True)
class Reason:
    """Why there is no answer."""

    error: str


@dataclass(frozen=True)
class Prediction:
    """Answers for an upload: for the whole, and for each window if there are some.

    Each is what a line of `emodarts predict --format json` holds.
    """

    answer: Answer
    windows: list[Answer]


@dataclass(frozen=True)
class Health:
    """That the server answers."""

    status: str = "ok"


class _TooLong(AudioError):
    """More sound than the server takes."""


class _TooSlow(Exception):
    """No time is left for a request."""


class _Timed(io.RawIOBase):
    """A file of which nothing can be read after a point in time."""

    def __init__(self, file: IO[bytes], deadline: float) -> None:
        self._file = file
        self.deadline = deadline

    def read(self, size: int = -1, /) -> bytes:
        if time.monotonic() > self.deadline:
            raise _TooSlow
        return self._file.read(size)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Upload(Recording):
    """An upload, which is decoded as far as length and time allow."""

    def __init__(self, file: IO[bytes], name: str, limits: Limits, deadline: float) -> None:
        timed = _Timed(file, deadline)
        super().__init__(cast(Any, timed), name)
        timed.deadline = np.inf  # from here on the blocks look at the time
        self._limits, self._deadline = limits, deadline
        if self._sound.channels > _MOST_CHANNELS:
            raise AudioError(
                f"{self.name}: has {self._sound.channels} channels; allowed: {_MOST_CHANNELS}"
            )
        self._check_length(self.frames or 0)

    def blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[Samples]:
        n_samples = 0
        for block in super().blocks(start, end):
            n_samples += len(block)
            self._check_length(n_samples)
            if time.monotonic() > self._deadline:
                raise _TooSlow
            yield block

    def _check_length(self, n_samples: int) -> None:
        if n_samples > self._limits.seconds * self.sample_rate:
            raise _TooLong(
                f"{self.name}: is longer than the {self._limits.seconds:g} s of sound allowed"
            )


class Service:
    """A model behind limits: what the routes call.

    Whoever computes has one of few turns, in the order of asking; a stream that waits for sound
    gives its turn up.

    Parameters
    ----------
    model : that answers.
    limits : of what is accepted.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.requests = Places(limits.requests, "uploads are answered")
        self.streams = Places(limits.streams, "streams may be open")
        self.metrics = Metrics(self.requests, self.streams)
        self._turns = CapacityLimiter(limits.jobs)
        self._threads = CapacityLimiter(limits.streams)

    async def predict(
        self,
        file: IO[bytes],
        name: str,
        window: float | None,
        hop: float | None,
        deadline: float,
    ) -> Prediction:
        """Answers for an open file.

        Raises
        ------
        EmodartsError
            If the file cannot be used.
        _TooSlow
            At the deadline.
        """

        def classify() -> Prediction:
            open_again = partial(_Upload, file, name, self.limits, deadline)
            (answer,) = self.model.predict(open_again())
            windows = self.model.predict(open_again(), window, hop) if window else []
            return Prediction(answer, windows)

        try:
            with fail_after(deadline - time.monotonic()):
                found = await to_thread.run_sync(classify, limiter=self._turns)
        except TimeoutError:
            raise _TooSlow from None
        self.metrics.audio.inc(found.answer.end)
        return found

    async def stream(self, socket: WebSocket, sample_rate: int, window: float, hop: float) -> None:
        """Answer a stream until it ends. Raises as :meth:`predict` does."""
        n_samples = 0

        def chunks() -> Iterator[Samples]:
            nonlocal n_samples
            while (data := from_thread.run(self._receive, socket)) is not None:
                if len(data) % 2:
                    raise AudioError("a chunk ends within a sample; allowed: whole 16-bit samples")
                n_samples += len(data) // 2
                if n_samples > self.limits.seconds * sample_rate:
                    raise _TooLong(
                        f"the stream is longer than the {self.limits.seconds:g} s allowed"
                    )
                yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)

        def classify() -> None:
            for answer in self.model.stream(chunks(), sample_rate, window, hop):
                from_thread.run(self._send, socket, {"type": "answer", **asdict(answer)})

        try:
            with fail_after(self.limits.timeout):
                await self._turns.acquire_on_behalf_of(socket)
        except TimeoutError:
            raise _TooSlow from None
        try:
            await to_thread.run_sync(classify, limiter=self._threads)
        finally:
            self._turns.release_on_behalf_of(socket)
        seconds = n_samples / sample_rate
        self.metrics.audio.inc(seconds)
        await socket.send_json({"type": "end", "seconds": seconds})

    @asynccontextmanager
    async def _without_turn(self, socket: WebSocket) -> AsyncIterator[None]:
        self._turns.release_on_behalf_of(socket)
        try:
            yield
        finally:
            await self._turns.acquire_on_behalf_of(socket)

    async def _send(self, socket: WebSocket, value: dict[str, Any]) -> None:
        async with self._without_turn(socket):
            await socket.send_json(value)

    async def _receive(self, socket: WebSocket) -> bytes | None:
        """The next chunk; None at the end."""
        async with self._without_turn(socket):
            try:
                with fail_after(self.limits.timeout):
                    message = await socket.receive()
            except TimeoutError:
                raise AudioError(f"nothing came for {self.limits.timeout:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get("bytes") is not None:
            return bytes(message["bytes"])
        if message.get("text") == "end":
            return None
        raise AudioError("a text message other than end; allowed: binary chunks, then the text end")


def create_app(
    model: Model, limits: Limits | None = None, token: str | None = None, *, local: bool = True
) -> FastAPI:
    """The application.

    Parameters
    ----------
    token : that a client must send; None lets everyone ask.
    local : whether the server listens on loopback; see :class:`Guard`.
    """
    limits = limits or Limits()
    service = Service(model, limits)
    description, cells = describe(model), draw_cells(model)
    app = FastAPI(
        title="emodarts",
        version=version("emodarts"),
        description="Emotion in speech, by one model.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, limits=limits, metrics=service.metrics, token=token, local=local)
    _answer_errors(app)

    @app.post(
        "/v1/predict",
        summary="Classify an audio file",
        openapi_extra={"requestBody": _UPLOAD},
        responses=_reasons(400, 401, 403, 408, 413, 415, 421, 422, 503),
    )
    async def predict(request: Request, window: _Window = None, hop: _Hop = None) -> Prediction:
        """Send the file as part `file` of a form. It may be WAV, FLAC, Ogg, MP3 and whatever else
        libsndfile reads, of any sample rate. It is deleted before the answer is sent."""
        check_windows(window, hop)
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "multipart/form-data":
            raise HTTPException(
                415, f"content type is {kind!r}; allowed: multipart/form-data with the part file"
            )
        with service.requests.place():
            async with request.form(max_files=1, max_fields=0) as form:
                upload = form.get("file")
                if not isinstance(upload, UploadFile):
                    raise HTTPException(422, "the form has no part file with the audio file")
                name = shown(upload.filename or "upload")[:200]
                deadline = request.state.deadline
                return await service.predict(upload.file, name, window, hop, deadline)

    @app.websocket("/v1/stream")
    async def stream(
        socket: WebSocket,
        sample_rate: Annotated[int, Query(ge=4000, le=192000)] = 16000,
        window: Annotated[float, Query(ge=_SHORTEST, le=60)] = 3.0,
        hop: Annotated[float, Query(ge=_SHORTEST, le=60)] = 1.0,
    ) -> None:
        with service.streams.place(), suppress(WebSocketDisconnect):
            offered = SUBPROTOCOL in socket.scope["subprotocols"]
            await socket.accept(SUBPROTOCOL if offered else None)
            code, reason = 1000, ""
            try:
                await service.stream(socket, sample_rate, window, hop)
            except EmodartsError as error:
                code, reason = 1008, str(error)
            except _TooSlow:
                code, reason = 1013, "the server is busy; try again"
            if reason:
                await socket.send_json({"type": "error", "error": reason})
            await socket.close(code)

    @app.get("/v1/model", summary="What the model is", responses=_reasons(401, 403, 421))
    async def about() -> Description:
        """Its classes, the blocks of its network, where it comes from, and its test scores."""
        return description

    @app.get("/v1/limits", summary="What the server accepts", responses=_reasons(401, 403, 421))
    async def accepted() -> Limits:
        """Sizes in bytes, times in seconds."""
        return limits

    @app.get("/health", summary="Whether the server answers", responses=_reasons(403, 421))
    async def health() -> Health:
        """Answers while uploads are computed, too."""
        return Health()

    @app.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_reasons(401, 403, 421)},
    )
    async def metrics() -> Response:
        """Requests, their times, and seconds of sound; nothing about what was said."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/model/cells.svg", include_in_schema=False)
    async def drawing() -> Response:
        if cells is None:
            raise HTTPException(404, "this network has no searched cells")
        return Response(cells, media_type="image/svg+xml")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    templates = Environment(loader=FileSystemLoader(_PAGE), autoescape=True)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        text = templates.get_template("docs.html").render(api=app.openapi(), limits=limits)
        return Response(text, media_type="text/html")

    app.mount("/page", StaticFiles(directory=_PAGE))
    return app


_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        }
    },
}

_MEANINGS = {
    400: "The request is not well formed.",
    401: "The token is missing or wrong.",
    403: "The request comes from another web site.",
    408: "The upload took too long.",
    413: "The upload or its sound is too long.",
    415: "The body is not a form with a file.",
    421: "The host is not this machine.",
    422: "The options or the audio cannot be used.",
    503: "The server is busy; try again.",
}


def _reasons(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Reason, "description": _MEANINGS[status]} for status in statuses}


def _answer_errors(app: FastAPI) -> None:
    """Answer every error with its status and a JSON reason."""

    def refuse(error: str, status: int, headers: Any = None) -> JSONResponse:
        return JSONResponse(asdict(Reason(error)), status, headers)

    @app.exception_handler(HTTPException)
    async def _refused(_: Request | WebSocket, error: HTTPException) -> Response:
        return refuse(str(error.detail), error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: ClientDisconnect) -> Response:
        return refuse("the client went away", 400)

    @app.exception_handler(EmodartsError)
    async def _unusable(_: Request, error: EmodartsError) -> Response:
        return refuse(str(error), 413 if isinstance(error, _TooLong) else 422)

    @app.exception_handler(_TooSlow)
    async def _late(_: Request, error: _TooSlow) -> Response:
        return refuse("the server is busy: no answer in time; try again", 503, {"retry-after": "5"})

    @app.exception_handler(OSError)
    async def _full(_: Request, error: OSError) -> Response:
        why = error.strerror or type(error).__name__
        return refuse(f"the server cannot keep the upload: {why}; try again", 503)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return refuse(_faults(error), 422)

    @app.exception_handler(WebSocketRequestValidationError)
    async def _invalid_stream(_: WebSocket, error: WebSocketRequestValidationError) -> Response:
        return refuse(_faults(error), 422)

    @app.exception_handler(Exception)
    async def _broken(_: Request, error: Exception) -> Response:
        return refuse("the server made an error; its log says more", 500)


def _faults(error: RequestValidationError | WebSocketRequestValidationError) -> str:
    faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return "; ".join(faults)
