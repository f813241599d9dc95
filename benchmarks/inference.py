"""One answer on one thread by torch, ONNX and ONNX in int8: latency, memory, size, cost of int8.

    python benchmarks/inference.py [--model MODEL] [--run RUN --root DIR] [--json FILE]

The sound is 8 s of generated syllables. Ways take turns in one process. Memory is that of a fresh
process that loads a model and answers once. The real-time factor is seconds of computing for a
second of sound. Latency of a stream is from the end of a window to its answer. With ``--run``, a
finished run whose corpus is in ``--root``, the model of each fold answers its test utterances in
all three ways: the UA of each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emodarts.audio.io import load_audio
from emodarts.bundle import DESCRIPTION, WEIGHTS
from emodarts.corpora import load_corpus
from emodarts.layout import RunFolder
from emodarts.reports.report import load_result
from emodarts.scoring.metrics import aggregate
from emodarts.scoring.predictions import Prediction, read_predictions
from emodarts.serving.export import open_session, quantised, to_onnx
from emodarts.serving.model import Model
from emodarts.serving.shipped import find_model
from measure import MIB, Spread, in_fresh_process, in_turn, parser, show, size_of, spread, spreads
from measure import write as write_result

REPEATS = {"full": 60, "quick": 20, "small": 2}
SECONDS = 8.0


def main() -> None:
    """Measure, print and write."""
    command = parser(__doc__)
    command.add_argument("--model", default="emodb", help="folder or name [emodb]")
    command.add_argument("--run", type=Path, help="finished run whose test folds are scored")
    command.add_argument("--root", type=Path, help="folder of its corpus")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    model = Model.load(arguments.model)
    [spec] = model.bundle.inputs.values()
    rate = spec.sample_rate
    sound = syllables(rate)
    forms = exported(find_model(arguments.model))
    sessions = {name: open_session(data) for name, data in forms.items()}
    with tempfile.TemporaryDirectory() as place:
        ways: dict[str, Any] = {"torch": lambda: model.predict(sound, sample_rate=rate)}
        for name, session in sessions.items():
            ways[name] = lambda session=session: session.run(None, {"waveform": sound[None]})
        repeats = REPEATS[size_of(arguments)]
        latency = spreads(in_turn(ways, repeats))
        processor = spreads(
            [{name: cpu_seconds(way) for name, way in ways.items()} for _ in range(repeats)]
        )
        memory = {"torch": in_fresh_process(answer_torch, arguments.model, sound)[1]["peak"]}
        for name, data in forms.items():
            path = Path(place) / name
            path.write_bytes(data)
            memory[name] = peak_of_onnx(path, len(sound))
        measured: dict[str, Any] = {
            "seconds_of_sound": SECONDS,
            "latency_s": latency,
            "processor_s": processor,
            "real_time_factor": {n: found["median"] / SECONDS for n, found in latency.items()},
            "stream_latency_s": stream_latency(model, sound, rate),
            "peak_bytes": memory,
            "file_bytes": file_bytes(find_model(arguments.model)),
        }
    if arguments.run is not None:
        measured["unseen"] = score_folds(arguments.run, arguments.root)
    for name in latency:
        print(
            f"{name:6} {show({k: 1e3 * v for k, v in latency[name].items()}, 1)} ms, processor "
            f"{show({k: 1e3 * v for k, v in processor[name].items()}, 1)} ms, RTF "
            f"{measured['real_time_factor'][name]:.5f}, {memory[name] / MIB:.0f} MiB, "
            f"{measured['file_bytes'][name] / 1e6:.2f} MB"
        )
    print(f"stream {show({k: 1e3 * v for k, v in measured['stream_latency_s'].items()}, 1)} ms")
    for name, found in measured.get("unseen", {}).items():
        print(f"unseen speakers, {name}: {found}")
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


@cache
def exported(folder: Path) -> dict[str, bytes]:
    """The ONNX file of a model, and the one in int8."""
    data = to_onnx(Model.load(folder))
    return {"onnx": data, "int8": quantised(data)}


def file_bytes(folder: Path) -> dict[str, int]:
    """Size of each way's files."""
    torch_files = [folder / name for name in (DESCRIPTION, WEIGHTS)]
    return {
        "torch": sum(path.stat().st_size for path in torch_files),
        **{name: len(data) for name, data in exported(folder).items()},
    }


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


def score_folds(run: Path, root: Path) -> dict[str, dict[str, Any]]:
    """UA of each way on the test utterances of a run, each answered by the model of its fold."""
    predictions, classes = read_predictions(RunFolder(run).predictions)
    utterances = {u.name: u for u in load_corpus(load_result(run)["corpus"], root)}
    given: dict[str, list[Prediction]] = {"torch": [], "onnx": [], "int8": []}
    for (fold, seed), tested in groupby(predictions, lambda p: (p.fold, p.seed)):
        place = RunFolder(run).trial(fold, seed).model
        model = Model.load(place)
        [spec] = model.bundle.inputs.values()
        sessions = {name: open_session(data) for name, data in exported(place).items()}
        for prediction in tested:
            u = utterances[prediction.name]
            [answer] = model.predict(u.path, start=u.start, end=u.end)
            shares = {"torch": list(answer.probabilities.values())}
            sound = load_audio(u.path, spec.sample_rate, u.start, u.end)
            for name, session in sessions.items():
                [[found]] = session.run(None, {"waveform": sound[None]})
                shares[name] = found.tolist()
            for name, row in shares.items():
                label = classes[int(np.argmax(row))]
                given[name].append(replace(prediction, predicted=label, probabilities=tuple(row)))
    return {
        name: {
            "utterances": len(found),
            "ua": (scores := aggregate(found, classes))["ua"],
            "ua_folds": [fold["ua"] for fold in scores["folds"]],
            "same_labels": same_labels(found, given["torch"]),
            "largest_difference": max(
                abs(p - q)
                for a, b in zip(found, given["torch"], strict=True)
                for p, q in zip(a.probabilities, b.probabilities, strict=True)
            ),
        }
        for name, found in given.items()
    }


def same_labels(one: Sequence[Prediction], two: Sequence[Prediction]) -> float:
    """Share of the utterances whose label is the same."""
    return statistics.fmean(a.predicted == b.predicted for a, b in zip(one, two, strict=True))


if __name__ == "__main__":
    main()
