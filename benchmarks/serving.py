"""Latency of the web server on loopback, at 1, 8 and 32 clients that ask one after the other.

Each client posts the same recording (noise in syllables) and waits for its answer before it asks
again. The server is a process of its own with the default limits; it shares the cores with the
clients.
"""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import torch

from measure import MIB, parser, size_of, write

CLIENTS = (1, 8, 32)
RATE = 16000
SIZES = {"full": (4.0, 200), "quick": (4.0, 64), "small": (1.0, 32)}
"""Seconds of the recording, and requests at each number of clients."""


def recording(seconds: float) -> bytes:
    """A WAV file that passes for speech."""
    n = round(seconds * RATE)
    syllables = 0.02 + np.sin(3 * np.pi * np.arange(n) / RATE) ** 2
    file = io.BytesIO()
    samples = 0.1 * syllables * np.random.default_rng(0).standard_normal(n)
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


async def load(url: str, data: bytes, clients: int, requests: int) -> dict[str, float]:
    """Requests by so many clients: percentiles of their seconds, and answers a second."""
    left = iter(range(requests))
    seconds: list[float] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=300, limits=limits) as session:

        async def ask() -> float:
            began = time.perf_counter()
            response = await session.post(f"{url}/v1/predict", files={"file": data})
            response.raise_for_status()
            return time.perf_counter() - began

        async def client() -> None:
            for _ in left:
                seconds.append(await ask())

        await asyncio.gather(*(ask() for _ in range(clients)))  # connects all of them
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        whole = time.perf_counter() - began
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {
        "p50_s": float(p50),
        "p95_s": float(p95),
        "p99_s": float(p99),
        "answers_per_s": requests / whole,
    }


def main() -> None:
    """Print the numbers, and write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("model", type=Path, help="folder of a trained model")
    arguments = taking.parse_args()
    seconds, requests = SIZES[size_of(arguments)]
    data = recording(seconds)
    found: dict[str, Any] = {"recording_s": seconds, "requests": requests}
    command = [sys.executable, "-m", "emodarts", "serve", str(arguments.model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[0] if server.stdout else ""
            for clients in CLIENTS:
                latency = asyncio.run(load(url, data, clients, requests))
                found[f"clients_{clients}"] = latency
                p50, p95, p99 = (1e3 * latency[p] for p in ("p50_s", "p95_s", "p99_s"))
                print(
                    f"{clients:2} clients: median {p50:.0f} ms, 95 % {p95:.0f} ms, 99 % {p99:.0f} "
                    f"ms, {latency['answers_per_s']:.1f} answers a second",
                    flush=True,
                )
            metrics = httpx.get(f"{url}/metrics", timeout=60).text
            (memory,) = re.findall(r"^process_resident_memory_bytes (\S+)$", metrics, re.MULTILINE)
            found["memory_bytes"] = float(memory)
            print(f"memory of the server: {found['memory_bytes'] / MIB:.0f} MiB")
        finally:
            server.terminate()
    write("serving", arguments, found, torch.device("cpu"), ("uvicorn", "starlette"))


if __name__ == "__main__":
    main()
