"""The web server as a process: its answers, what it refuses, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from served import CLASSES, RATE, Served, serving, talk, write
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from commands import emodarts, refused
from emodarts.errors import EmodartsError
from emodarts.serving.guard import Limits
from emodarts.serving.model import Model
from emodarts.serving.server import serve

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from serving import load, recording

linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")

TOKEN = "0123456789abcdef"
BEARER = {"authorization": f"Bearer {TOKEN}"}
MB = 10**6
JSON = dict[str, Any]


def stream_url(server: Served, **query: float) -> str:
    pairs = "&".join(f"{key}={value}" for key, value in query.items())
    return f"{server.url.replace('http', 'ws')}/v1/stream?{pairs}"


class Slow:
    """An upload of which the first half is sent; it takes a place until the rest comes."""

    def __init__(self, server: Served, data: bytes) -> None:
        start = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = start + data + b"\r\n--b--\r\n"
        lines = [
            "POST /v1/predict HTTP/1.1",
            "host: localhost",
            "content-type: multipart/form-data; boundary=b",
            f"content-length: {len(body)}",
            "connection: close",
            f"authorization: Bearer {TOKEN}",
        ]
        self._socket = socket.create_connection(server.address, 60)
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])
        self._rest = body[len(body) // 2 :]

    def end(self) -> tuple[int, JSON]:
        """Send the rest; status and body of the answer."""
        self._socket.sendall(self._rest)
        return self.answer()

    def answer(self) -> tuple[int, JSON]:
        """Status and body of the answer."""
        with self._socket, self._socket.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def leave(self) -> None:
        """Go away without sending the rest."""
        self._socket.close()


def until(server: Served, gauge: str, value: float) -> None:
    """Wait until a gauge of the server has a value."""
    for _ in range(600):
        text = httpx.get(f"{server.url}/metrics", headers=BEARER, timeout=60).text
        if f"emodarts_{gauge}_in_progress {value}" in text:
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"{gauge} never became {value}")


def test_answers_are_those_of_predict_bit_for_bit(
    server: Served, served_model: Path, tmp_path: Path
) -> None:
    paths = [
        write(tmp_path / "a.wav"),
        write(tmp_path / "b.flac", 3.3, 44100, 2),
        write(tmp_path / "c.ogg", 12.0, 8000),
        write(tmp_path / "d.mp3", 2.0, 22050),
    ]
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    paths.append(tmp_path / "silent.wav")
    options = ("--window", "1.0", "--hop", "0.4")
    printed = emodarts("predict", served_model, *paths, "--format", "json", *options).stdout
    expected = [json.loads(line) for line in printed.splitlines()]
    found, loaded = [], Model.load(served_model)
    for path in paths:
        answered = server.post(path, window=1.0, hop=0.4).json()
        found += answered["windows"]
        (whole,) = loaded.predict(path)
        assert answered["answer"] == {**whole.to_dict(), "file": path.name}
        assert server.post(path).json() == {"answer": answered["answer"], "windows": []}
    assert found == [{**e, "file": Path(e["file"]).name} for e in expected]
    assert {answer["note"] for answer in found} == {"", "silent"}


def test_a_stream_gives_the_windows_of_its_recording(
    server: Served, served_model: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", 3.0, 22050)
    samples, rate = soundfile.read(path, dtype="int16")
    expected = Model.load(served_model).predict(path, 1.0, 0.5)
    with connect(stream_url(server, sample_rate=rate, window=1, hop=0.5)) as stream:
        stream.send(samples[:25000].tobytes())
        first = json.loads(stream.recv())  # before the rest is sent
        for part in np.array_split(samples[25000:], 7):
            stream.send(part.tobytes())
        stream.send("end")
        updates = [first, *map(json.loads, stream)]
    assert updates[-1] == {"type": "end", "seconds": 3.0}
    assert updates[:-1] == [{"type": "answer", **a.to_dict(), "file": ""} for a in expected]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"abc", "whole 16-bit samples"),
        ("hello", "other than end"),
        (bytes(2 * 4000 * 61), "longer than the 60 s"),
    ],
)
def test_a_stream_that_cannot_be_used_gets_a_reason(
    server: Served, message: bytes | str, reason: str
) -> None:
    with connect(stream_url(server, sample_rate=4000)) as stream:
        stream.send(message)
        update = json.loads(stream.recv())
        assert update["type"] == "error"
        assert reason in update["error"]
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ({"window": 0}, {}, 422),
        ({"sample_rate": 1}, {}, 422),
        ({}, {"Origin": "http://elsewhere.example"}, 403),
        ({}, {"Origin": "null"}, 403),
    ],
)
def test_a_stream_is_refused_with_a_reason(
    server: Served, query: dict[str, float], headers: dict[str, str], status: int
) -> None:
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(stream_url(server, **query), additional_headers=headers),
    ):
        pass
    assert refusal.value.response.status_code == status
    assert json.loads(refusal.value.response.body or b"")["error"]


def test_a_stream_of_the_own_page_is_accepted(server: Served) -> None:
    with connect(stream_url(server), additional_headers={"Origin": server.url}) as stream:
        stream.send("end")
        assert json.loads(stream.recv()) == {"type": "end", "seconds": 0.0}


def test_what_cannot_be_used_is_refused_with_a_reason(server: Served, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav").read_bytes()
    bomb = tmp_path / "bomb.flac"  # hours of sound in a small file
    with soundfile.SoundFile(bomb, "w", 8000, 1) as file:
        for _ in range(180):
            file.write(np.zeros(8000 * 60, np.int16))
    assert bomb.stat().st_size < MB
    channels = tmp_path / "channels.wav"
    soundfile.write(channels, np.tile(talk(0.1)[:, None], 200), RATE)
    broken = bytearray(whole)
    broken[20:40] = bytes(20)
    url, form = f"{server.url}/v1/predict", {"Content-Type": "multipart/form-data; boundary=b"}
    start = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    header = start[:-9] + b"a" * 30 * MB
    cases: list[tuple[int, str, JSON]] = [
        (413, "longer than the 60 s", {"files": {"file": bomb.read_bytes()}}),
        (413, "larger than the 64 MB", {"files": {"file": bytes(65 * MB)}}),
        (413, "larger than the 64 MB", {"content": [start, *[bytes(MB)] * 65], "headers": form}),
        (
            415,
            "content type is 'audio/wav'",
            {"content": whole, "headers": {"Content-Type": "audio/wav"}},
        ),
        (415, "content type is ''", {"content": whole}),
        (400, "boundary", {"content": whole, "headers": {"Content-Type": "multipart/form-data"}}),
        (400, "", {"content": whole, "headers": form}),
        (400, "", {"content": header, "headers": form}),
        (400, "Too many files", {"files": [("file", whole), ("file", whole)]}),
        (400, "Too many fields", {"files": {"file": whole}, "data": {"window": "1"}}),
        (422, "no part file", {"files": {"audio": whole}}),
        (422, "a.wav: is empty", {"files": {"file": ("a.wav", b"")}}),
        (422, "b.mp3: cannot be decoded", {"files": {"file": ("b.mp3", b"no sound")}}),
        (422, "is truncated", {"files": {"file": whole[:-20000]}}),
        (422, "cannot be decoded", {"files": {"file": bytes(broken)}}),
        (422, "200 channels", {"files": {"file": channels.read_bytes()}}),
        (422, "query.window", {"files": {"file": whole}, "params": {"window": 0}}),
        (422, "query.hop", {"files": {"file": whole}, "params": {"window": 1, "hop": "nan"}}),
        (422, "hop is given without window", {"files": {"file": whole}, "params": {"hop": 1}}),
        (403, "origin", {"files": {"file": whole}, "headers": {"Origin": "http://evil.example"}}),
        (421, "host", {"files": {"file": whole}, "headers": {"Host": "evil.example"}}),
    ]
    with httpx.Client(timeout=120) as client:
        for status, reason, request in cases:
            response = client.post(url, **request)
            assert response.status_code == status, (reason, response.text)
            assert reason in response.json()["error"]
        for status, method, path in ((404, "GET", "/v1/nothing"), (405, "GET", "/v1/predict")):
            response = client.request(method, f"{server.url}{path}")
            assert response.status_code == status
            assert response.json()["error"]
    for text in (
        b"GET / HTTP/1.1\r\nno header\r\n",
        b"\x16\x03\x01\x02\x00" * 9,
        b"GET /\xff HTTP/1.1\r\n",
    ):
        with socket.create_connection(server.address, 60) as broken_client:
            broken_client.sendall(text + b"\r\n")
            answer = broken_client.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert server.is_alive()


@linux
def test_uploads_end_with_their_request(server: Served, tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav", 59.0, 44100).read_bytes()  # too large to stay in memory
    assert server.audio_held() == []
    slow, gone = Slow(server, data), Slow(server, data)
    until(server, "uploads", 2)
    for _ in range(600):
        if len(held := server.audio_held()) == 2:
            break
        threading.Event().wait(0.1)
    assert len(held) == 2  # else the rest of this test means nothing
    gone.leave()
    assert slow.end()[0] == 200
    assert server.post(tmp_path / "a.wav").status_code == 200
    (tmp_path / "bad.wav").write_bytes(data[: len(data) // 2])
    assert server.post(tmp_path / "bad.wav").status_code == 422
    until(server, "uploads", 0)
    assert server.audio_held() == []


@linux
def test_two_hundred_clients_are_answered_or_sent_away(server: Served, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 5.0)
    assert server.post(path).status_code == 200
    before = server.peak_memory()

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(limits=limits, timeout=300) as client:
            url, data = f"{server.url}/v1/predict", path.read_bytes()
            asked = [client.post(url, files={"file": data}) for _ in range(200)]
            return await asyncio.gather(*asked)

    answers = asyncio.run(all_at_once())
    assert len(answers) == 200
    assert {r.status_code for r in answers} <= {200, 503}
    found = {json.dumps(r.json()["answer"]) for r in answers if r.status_code == 200}
    assert len(found) == 1
    for response in answers:
        if response.status_code == 503:
            assert "busy" in response.json()["error"]
            assert response.headers["retry-after"]
    assert server.is_alive()
    assert server.peak_memory() - before < 300 * MB


def test_limits_of_places_time_and_token_and_a_shutdown(served_model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav").read_bytes()
    limits = ("--token", TOKEN, "--max-requests", 2, "--max-streams", 1, "--timeout", 8)
    with serving(served_model, tmp_path / "tmp", *limits) as small:
        check_token(small)
        trickle = socket.create_connection(small.address, 60)
        trickle.sendall(b"GET /health HTTP/1.1\r\nhost: local")  # and its headers never end
        subprotocols: Any = ["emodarts", f"bearer.{TOKEN}"]
        with connect(stream_url(small), subprotocols=subprotocols) as stream:
            assert stream.subprotocol == "emodarts"
            check_places_and_time(small, data)
            assert "nothing came for 8 s" in json.loads(stream.recv(60))["error"]
        with trickle:
            assert trickle.recv(1) == b""
        check_shutdown(small, data)


def check_token(small: Served) -> None:
    with httpx.Client(base_url=small.url, timeout=60) as client:
        for path, status in (("/", 200), ("/health", 200), ("/v1/model", 401), ("/metrics", 401)):
            assert client.get(path).status_code == status
        wrong = client.get("/v1/model", headers={"authorization": f"Bearer {TOKEN}0"})
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/v1/model", headers=BEARER).status_code == 200
    with pytest.raises(InvalidStatus, match="401"), connect(stream_url(small)):
        pass


def check_places_and_time(small: Served, data: bytes) -> None:
    """One stream is open. Of two uploads that wait, the rest of one never comes."""
    with (
        pytest.raises(InvalidStatus, match="503"),
        connect(stream_url(small), additional_headers=BEARER),
    ):
        pass
    waiting = [Slow(small, data) for _ in range(2)]
    until(small, "uploads", 2)
    assert Slow(small, data).end()[0] == 503
    assert waiting[0].end()[0] == 200
    status, body = waiting[1].answer()
    assert status == 408
    assert "did not arrive within 8 s" in body["error"]


def check_shutdown(small: Served, data: bytes) -> None:
    """What has come when the server is asked to end is finished, and nothing else is begun."""
    slow = Slow(small, data)
    until(small, "uploads", 1)
    small.process.send_signal(signal.SIGTERM)
    while not refuses_connections(small):
        threading.Event().wait(0.1)
    status, body = slow.end()
    assert status == 200
    assert body["answer"]["probabilities"].keys() == set(CLASSES)
    small.process.wait(60)


def refuses_connections(server: Served) -> bool:
    try:
        socket.create_connection(server.address, 5).close()
    except OSError:
        return True
    return False


def test_the_page_and_the_api_load_nothing_from_elsewhere(server: Served) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        pages = {path: client.get(path) for path in ("/", "/docs", "/openapi.json")}
        linked = re.findall(r"(?:src|href|import\(|from)\W+(/page/[\w.-]+)", pages["/"].text)
        files = ["app.js", "sound.js", "view.js", "worklet.js", "style.css", "icon.svg"]
        assert {f"/page/{name}" for name in files} >= set(linked)
        pages |= {f"/page/{name}": client.get(f"/page/{name}") for name in files}
        cells = client.get("/v1/model/cells.svg")
        about = client.get("/v1/model").json()
    for path, response in pages.items():
        assert response.status_code == 200, path
        urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", response.text))
        assert urls <= {
            "http://www.w3.org/2000/svg",
            "http://127.0.0.1:8000/v1/predict?window=4&amp;hop=2",
        }
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
    assert cells.text.startswith("<?xml")
    assert about["classes"] == list(CLASSES)
    assert [part["title"] for part in about["parts"]] == [
        *("Log-mel bands", "Stem", "CNN cells", "SeqNN cells", "Attention", "Classifier"),
        "Probabilities",
    ]
    assert "cell: node 0 is " in about["cells"]


def test_the_benchmark_counts_every_request(server: Served) -> None:
    found = asyncio.run(load(server.url, recording(1.0), clients=3, requests=10))
    assert 0 < found["p50_s"] <= found["p95_s"] <= found["p99_s"]
    assert found["answers_per_s"] > 0


def test_metrics_count_requests_and_sound(server: Served, tmp_path: Path) -> None:
    def value(line: str) -> float:
        text = httpx.get(f"{server.url}/metrics", timeout=60).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    answered = 'emodarts_requests_total{route="/v1/predict",status="200"}'
    unknown = 'emodarts_requests_total{route="other",status="404"}'
    lines = (answered, unknown, "emodarts_audio_seconds_total")
    before = [value(line) for line in lines]
    assert server.post(write(tmp_path / "a.wav", 2.5)).status_code == 200
    httpx.get(f"{server.url}/nothing/{'x' * 50}", timeout=60)
    assert [value(line) for line in lines] == [before[0] + 1, before[1] + 1, before[2] + 2.5]


def test_the_api_is_what_its_schema_says(server: Served, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--seed", "1", "--max-examples", "5", "--phases", "examples,coverage,fuzzing"),
            # Random bytes are no sound, whatever the schema says of a file.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--generation-database", "none", "--no-color"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.is_alive()


def test_options_that_cannot_be(served_model: Path, server: Served) -> None:
    assert "16 or more letters" in refused("serve", served_model, "--token", "short")
    host, port = server.address
    with pytest.raises(EmodartsError, match="choose another by --host or --port"):
        serve(Model.load(served_model), host, port, Limits(), None, print)
