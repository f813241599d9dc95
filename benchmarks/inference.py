"""One answer on one thread by torch, ONNX and ONNX in int8: latency, memory, size, cost of int8.

    python benchmarks/inference.py [--model MODEL] [--root EMODB] [--json FILE]

The sound is 8 s of generated syllables. Ways take turns in one process. Memory is that of a fresh
process that loads a model and answers once. With ``--root``, labels of the three ways are compared
on a corpus; a model that was trained on it says nothing about accuracy there, but its labels can be
compared. The real-time factor is seconds of computing for a second of sound. Latency of a stream is
from the end of a window to its answer.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emodarts.audio.io import load_audio
from emodarts.serving.export import export_onnx, open_session
from emodarts.serving.model import Model, find_audio
from measure import MIB, Spread, in_fresh_process, in_turn, parser, show, size_of, spread, spreads
from measure import write as write_result

REPEATS = {"full": 60, "quick": 20, "small": 2}
SECONDS = 8.0


def main() -> None:
    """Measure, print and write."""
    command = parser(__doc__)
    command.add_argument("--model", default="emodb", help="folder or name [emodb]")
    command.add_argument("--root", type=Path, help="folder of audio files to compare labels on")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    model = Model.load(arguments.model)
    [spec] = model.bundle.inputs.values()
    rate = spec.sample_rate
    sound = syllables(rate)
    with tempfile.TemporaryDirectory() as place:
        paths = {name: Path(place) / f"{name}.onnx" for name in ("onnx", "int8")}
        exported = {n: export_onnx(model, p, int8=n == "int8") for n, p in paths.items()}
        sessions = {name: open_session(path) for name, path in paths.items()}
        ways: dict[str, Any] = {"torch": lambda: model.predict(sound, sample_rate=rate)}
        for name, session in sessions.items():
            ways[name] = lambda session=session: session.run(None, {"waveform": sound[None]})
        repeats = REPEATS[size_of(arguments)]
        latency = spreads(in_turn(ways, repeats))
        processor = spreads(
            [{name: cpu_seconds(way) for name, way in ways.items()} for _ in range(repeats)]
        )
        memory = {"torch": in_fresh_process(answer_torch, arguments.model, sound)[1]["peak"]}
        for name, path in paths.items():
            memory[name] = peak_of_onnx(path, len(sound))
        measured: dict[str, Any] = {
            "seconds_of_sound": SECONDS,
            "latency_s": latency,
            "processor_s": processor,
            "real_time_factor": {n: found["median"] / SECONDS for n, found in latency.items()},
            "stream_latency_s": stream_latency(model, sound, rate),
            "peak_bytes": memory,
            "file_bytes": {
                "torch": sum(p.stat().st_size for p in model_files(arguments.model)),
                **{name: found.bytes for name, found in exported.items()},
            },
            "difference": {name: found.difference for name, found in exported.items()},
        }
        if arguments.root is not None:
            measured["labels"] = compare_labels(model, sessions, arguments.root, rate)
    for name in latency:
        print(
            f"{name:6} {show({k: 1e3 * v for k, v in latency[name].items()}, 1)} ms, processor "
            f"{show({k: 1e3 * v for k, v in processor[name].items()}, 1)} ms, RTF "
            f"{measured['real_time_factor'][name]:.5f}, {memory[name] / MIB:.0f} MiB, "
            f"{measured['file_bytes'][name] / 1e6:.2f} MB"
        )
    print(f"stream {show({k: 1e3 * v for k, v in measured['stream_latency_s'].items()}, 1)} ms")
    print(f"difference {measured['difference']}, labels {measured.get('labels')}")
    write_result("inference", arguments, measured, torch.device("cpu"), ["onnxruntime"])


def syllables(rate: int) -> NDArray[np.float32]:
    """Three syllables of noise a second."""
    n = round(SECONDS * rate)
    noise = np.random.default_rng(0).standard_normal(n)
    gate = np.clip(np.sin(2 * np.pi * 3 * np.arange(n) / rate), 0.02, None)
    return (0.1 * gate * noise).astype(np.float32)


def stream_latency(model: Model, sound: NDArray[np.float32], rate: int) -> Spread:
    """Seconds from the last sample of a window of 4 s to its answer, in chunks of 0.1 s."""
    given = 0.0

    def chunks() -> Any:
        nonlocal given
        for chunk in np.array_split(np.tile(sound, 3), round(3 * SECONDS * 10)):
            given = time.perf_counter()
            yield chunk

    found = []
    for _ in model.stream(chunks(), rate, 4.0, 1.0):
        found.append(time.perf_counter() - given)
        given = time.perf_counter()
    return spread(found)


def model_files(model: str) -> list[Path]:
    """The two files of a bundle."""
    from emodarts.bundle import DESCRIPTION, WEIGHTS
    from emodarts.serving.shipped import find_model

    return [find_model(model) / name for name in (DESCRIPTION, WEIGHTS)]


def answer_torch(model: str, sound: NDArray[np.float32]) -> None:
    """Load a model and answer once."""
    torch.set_num_threads(1)
    loaded = Model.load(model)
    [spec] = loaded.bundle.inputs.values()
    loaded.predict(sound, sample_rate=spec.sample_rate)


def peak_of_onnx(path: Path, samples: int) -> int:
    """Peak bytes of a process with numpy and onnxruntime alone that loads a file and answers."""
    code = (
        "import re, sys, numpy, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], options)\n"
        "noise = numpy.random.default_rng(0).standard_normal((1, int(sys.argv[2])))\n"
        "session.run(None, {'waveform': noise.astype('float32')})\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code, str(path), str(samples)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(found) * 1024


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of a call: unlike wall time, it says something on a busy machine."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def compare_labels(model: Model, sessions: Any, root: Path, rate: int) -> dict[str, Any]:
    """Share of files whose label is that of torch, and the largest difference."""
    found = dict.fromkeys(sessions, 0)
    largest = dict.fromkeys(sessions, 0.0)
    paths, _ = find_audio(root)
    for path in paths:
        sound = load_audio(path, rate)
        [answer] = model.predict(sound, sample_rate=rate)
        expected = np.array(list(answer.probabilities.values()))
        for name, session in sessions.items():
            [[given]] = session.run(None, {"waveform": sound[None]})
            found[name] += int(given.argmax() == expected.argmax())
            largest[name] = max(largest[name], float(np.abs(given - expected).max()))
    return {
        "files": len(paths),
        "same": {name: n / len(paths) for name, n in found.items()},
        "largest_difference": largest,
    }


if __name__ == "__main__":
    main()
