"""A small model, and a real server process that answers with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from emodarts.bundle import Bundle, save_bundle
from emodarts.recipe import CNNSpec, FeatureSpec, NetworkSpec, SearchedSeqNN, SystemSpec
from emodarts.searching.derivation import random_genotype
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import FittedNetwork
from emodarts.training.batches import Normalisation

RATE = 16000
CLASSES = ("anger", "happiness", "neutral", "sadness")


def save_model(folder: Path) -> Path:
    """A searched network with random weights."""
    features = FeatureSpec(
        kind="log_mel", sample_rate=RATE, duration=1.0, n_fft=512, hop_length=256, n_mels=16
    ).model_copy(update={"length": "segments"})
    torch.manual_seed(0)
    spec = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=2, channels=2), seqnn=SearchedSeqNN(cells=1, nodes=1, width=4)
    )
    genotype = random_genotype(spec, torch.Generator().manual_seed(0))
    network = DiscreteNetwork(genotype, spec, 16, 4)
    network(torch.randn(4, 1, 16, 60))
    settings = {
        "genotype": genotype.to_dict(),
        "network": spec.model_dump(mode="json"),
        "members": 1,
    }
    statistics = Normalisation(torch.full((1, 16), -40.0), torch.full((1, 16), 10.0))
    bundle = Bundle(
        SystemSpec(kind="searched"),
        FittedNetwork(network, statistics, settings, genotype),
        {"features": features},
        CLASSES,
        {"features": ""},
        origin={"corpus": "toy", "recipe": "tiny", "parameters": 1234, "ua": 0.5, "n_test": 8},
    )
    save_bundle(folder, bundle)
    return folder


def talk(seconds: float, rate: int = RATE) -> NDArray[np.float64]:
    """Noise in syllables, which passes for speech; it grows louder."""
    n = round(seconds * rate)
    syllables = 0.02 + np.sin(3 * np.pi * np.arange(n) / rate) ** 2
    return np.linspace(0.02, 0.2, n) * syllables * np.random.default_rng(0).standard_normal(n)


def write(path: Path, seconds: float = 2.5, rate: int = RATE, channels: int = 1) -> Path:
    """An audio file of the format of its suffix."""
    soundfile.write(path, np.tile(talk(seconds, rate)[:, None], channels), rate)
    return path


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes
    ----------
    folder : where its temporary files are.
    """

    url: str
    process: subprocess.Popen[str]
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def post(self, path: Path, **query: float) -> httpx.Response:
        with path.open("rb") as file:
            return httpx.post(
                f"{self.url}/v1/predict", files={"file": file}, params=query, timeout=120
            )

    def is_alive(self) -> bool:
        return httpx.get(f"{self.url}/health", timeout=120).json() == {"status": "ok"}

    def audio_held(self) -> list[str]:
        """Temporary files that the process holds, removed or not, and that lie in their folder."""
        fds = Path(f"/proc/{self.process.pid}/fd")
        links = [str(fd.readlink()) for fd in fds.iterdir() if fd.is_symlink()]
        held = [link for link in links if link.startswith(str(self.folder))]
        return [*held, *map(str, self.folder.iterdir())]

    def peak_memory(self) -> int:
        """Bytes of memory that the process had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


@contextmanager
def serving(model: Path, folder: Path, *options: object) -> Iterator[Served]:
    """Run ``emodarts serve`` with options; it must end with exit code 0."""
    folder.mkdir()
    command = [sys.executable, "-W", "error", "-m", "emodarts", "serve", model, "--port", 0]
    process = subprocess.Popen(
        [*map(str, command), *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("http://"), line
        yield Served(line.split()[0], process, folder)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
