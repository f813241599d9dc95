"""The exported graph answers as the model does, and a file that does not is not written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from commands import emodarts, refused
from emodarts.audio.features import FeatureExtractor, band_frequencies
from emodarts.bundle import Bundle, save_bundle
from emodarts.cli.app import app
from emodarts.errors import EmodartsError, ExportError
from emodarts.genotype import Genotype
from emodarts.recipe import FeatureSpec, NetworkSpec, SystemSpec
from emodarts.serving import export
from emodarts.serving.export import export_onnx
from emodarts.serving.graph import Graph
from emodarts.serving.model import Model
from emodarts.serving.windowing import Windows, windowing
from emodarts.serving.windows import cut
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import FittedNetwork
from emodarts.training.batches import Normalisation
from emodarts.training.classifier import Classifier, Ensemble
from emodarts.training.views import Hearing

ROOT = Path(__file__).resolve().parents[2]
RATE = 8000
CLASSES = ("anger", "calm", "joy")
MEL: dict[str, Any] = {
    "kind": "log_mel",
    "sample_rate": RATE,
    "duration": 1.0,
    "length": "segments",
    "n_fft": 256,
    "win_length": 200,
    "hop_length": 80,
    "n_mels": 16,
    "pool": 2,
}
SMALL: dict[str, Any] = {
    "stem": {"channels": [4], "frequency_strides": [2], "time_strides": [2]},
    "cnn": {"cells": 0},
    "frequency": "join",
}


def model_of(
    features: dict[str, Any],
    network: dict[str, Any],
    members: int = 1,
    speeds: tuple[float, ...] = (),
) -> Model:
    """An untrained model."""
    spec = FeatureSpec.model_validate(features, strict=False)
    shape = NetworkSpec.model_validate({**SMALL, **network}, strict=False)
    torch.manual_seed(5)
    made: list[Classifier] = []
    for _ in range(members):
        one = DiscreteNetwork(Genotype(), shape, spec.n_features, 3, n_channels=spec.n_channels)
        for parameter in one.parameters():  # so that answers are not all alike
            torch.nn.init.normal_(parameter, std=0.5)
        made.append(one)
    together = Ensemble(made) if members > 1 else made[0]
    if speeds:
        together = Ensemble(made, Hearing(speeds, band_frequencies(spec)))
    sound = torch.from_numpy(speech(3.0)[RATE : RATE + spec.n_samples])
    normalisation = Normalisation.fit(FeatureExtractor(spec)(sound[None]))
    settings = {
        "members": members,
        "speeds": list(speeds) or [1.0],
        "genotype": Genotype().to_dict(),
        "network": shape.model_dump(mode="json"),
    }
    fitted = FittedNetwork(together, normalisation, settings, Genotype())
    system = SystemSpec.model_validate({"kind": "searched"}, strict=False)
    origin = {"corpus": "toy", "recipe": "tiny"}
    bundle = Bundle(
        system, fitted, {"features": spec}, CLASSES, {"features": ""}, 1.7, origin=origin
    )
    return Model(bundle)


def speech(seconds: float) -> NDArray[np.float32]:
    """Syllables of noise that grows louder, with silence around and a pause of 2 s if it fits."""
    n = round(seconds * RATE)
    time = np.arange(n) / RATE
    found = np.random.default_rng(n).standard_normal(n) * np.clip(np.sin(9 * time), 0, None)
    found *= 0.02 + 0.2 * time / max(seconds, 1)
    found[: n // 8] = 0
    found[-n // 8 :] = 0
    if seconds > 5:
        found[2 * RATE : 4 * RATE] = 0
    return found.astype(np.float32)


def answers(model: Model, sound: NDArray[np.float32]) -> NDArray[np.float64]:
    [answer] = model.predict(sound, sample_rate=RATE)
    assert answer.label, answer.note
    return np.array(list(answer.probabilities.values()))


def run_without_emodarts(script: Path, *arguments: Path) -> str:
    """What a script prints in a process that has neither torch nor this package."""
    guard = "import sys; sys.modules['torch'] = sys.modules['emodarts'] = None\n"
    command = [sys.executable, "-c", guard + script.read_text(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


LSTM = {"mode": "fixed", "recurrent": "lstm", "layers": 2, "width": 4}
RECURRENT: dict[str, Any] = {"seqnn": LSTM}
BOTH: dict[str, Any] = {"seqnn": {**LSTM, "bidirectional": True}, "pooling": "mean"}


@pytest.mark.parametrize(
    ("features", "network", "members"),
    [
        ({"trim": 30.0, "level": -26.0, "pool_by": "mean"}, BOTH, 2),
        ({"pool_by": "mean", "speeds": (0.9, 1.0, 1.1)}, BOTH, 2),
        ({"kind": "mfcc", "deltas": 2, "n_mfcc": 12}, {**RECURRENT, "pooling": "attention"}, 1),
        (
            {"length": "pad", "padding": "zeros", "trim": 40.0},
            {**RECURRENT, "pooling": "statistics"},
            1,
        ),
        ({"length": "repeat", "level": -20.0}, BOTH, 1),
        ({"kind": "stft", "window": "hann", "hop_length": 93}, {**RECURRENT, "deltas": 1}, 1),
        ({"kind": "waveform", "frame_length": 40}, BOTH, 1),
    ],
    ids=["ensemble", "speeds", "deltas", "zeros", "repeat", "stft", "waveform"],
)
def test_the_graph_answers_as_the_model(
    features: dict[str, Any], network: dict[str, Any], members: int
) -> None:
    kinds = {"waveform": ("win_length", "n_fft", "hop_length", "n_mels"), "stft": ("n_mels",)}
    wanted = {k: v for k, v in MEL.items() if k not in kinds.get(features.get("kind", ""), ())}
    speeds = features.get("speeds", ())
    features = {k: v for k, v in features.items() if k != "speeds"}
    model = model_of({**wanted, **features}, network, members, speeds)
    graph = Graph(model.bundle).eval()
    found = []
    with torch.inference_mode():
        for seconds in (0.2, 0.9, 2.3, 7.7):
            sound = speech(seconds)
            batch = np.stack([sound, sound[::-1], 0.5 * np.roll(sound, 700)])
            expected = np.stack([answers(model, row) for row in batch])
            given = graph(torch.from_numpy(batch)).numpy()
            np.testing.assert_allclose(given, expected, atol=3e-6)
            found.append(expected)
        assert np.ptp(np.concatenate(found), axis=0).max() > 2e-4  # else it means nothing
        tiny = graph(torch.full((2, 1), 0.1)).numpy()
    np.testing.assert_allclose(tiny.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_an_exported_file_answers_without_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_layer = {**BOTH, "seqnn": {**LSTM, "layers": 1, "bidirectional": True}}  # translated sooner
    model = model_of({**MEL, "trim": 30.0}, one_layer)
    save_bundle(tmp_path / "model", model.bundle)
    file, wav = tmp_path / "toy.onnx", tmp_path / "a.wav"
    sound = speech(2.5)
    soundfile.write(wav, sound, RATE, subtype="FLOAT")
    done = emodarts("export", tmp_path / "model", "--onnx", file, "--check", wav, "--json")
    assert f"Exporting {tmp_path / 'model'} to {file}" in done.stderr
    facts = json.loads(done.stdout)
    assert facts["sounds"] == 6
    assert facts["difference"] < 1e-4
    assert facts["bytes"] == file.stat().st_size
    script = (ROOT / "examples" / "onnx_predict.py").read_text()
    assert len(script.splitlines()) <= 22
    shown = run_without_emodarts(ROOT / "examples" / "onnx_predict.py", file, wav)
    expected = answers(model, sound)
    assert CLASSES[int(expected.argmax())] in shown.split("{")[0]

    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert metadata["sample_rate"] == str(RATE)
    assert len(metadata["digest"]) == 64
    assert "toy" in metadata["licence"]
    for seconds, rows in ((0.05, 1), (3.3, 4)):
        batch = np.stack([np.roll(speech(seconds), 100 * k) for k in range(rows)])
        [given] = session.run(None, {"waveform": batch})
        np.testing.assert_allclose(
            given, np.stack([answers(model, row) for row in batch]), atol=1e-4
        )

    # A model that answers otherwise than what was exported: nothing is written. What was exported
    # is not translated anew, which takes long.
    monkeypatch.setattr(export, "to_onnx", lambda _: file.read_bytes())

    class Other(Model):
        def predict(self, *given: Any, **options: Any) -> Any:
            [answer] = super().predict(*given, **options)
            shares = dict(zip(CLASSES, (0.2, 0.3, 0.5), strict=True))
            return [replace(answer, probabilities=shares)]

    with pytest.raises(ExportError, match="Nothing was written"):
        export_onnx(Other(model.bundle), tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
    small = export_onnx(model, tmp_path / "small.onnx", int8=True)
    assert small.bytes < facts["bytes"]
    assert small.difference < 0.05

    # The streaming form answers as a stream does, a pause and the last window included.
    stream, long = tmp_path / "stream.onnx", speech(7.7)
    soundfile.write(wav, long, RATE, subtype="FLOAT")
    asked = ("export", tmp_path / "model", "--onnx", stream, "--window", 1.4, "--hop", 0.5)
    done = CliRunner().invoke(app, [*map(str, asked)], catch_exceptions=False)
    assert "100 % of the labels" in done.stdout
    expected = list(model.stream(np.split(long, 77), RATE, 1.4, 0.5))
    assert any(not answer.label for answer in expected)
    shown = run_without_emodarts(ROOT / "examples" / "onnx_stream.py", stream, wav)
    for line, answer in zip(shown.splitlines(), expected, strict=True):
        start, label, shares = line.split(" ", 2)
        assert float(start) == pytest.approx(answer.start, abs=0.01)
        if answer.label:
            assert label == answer.label
            assert json.loads(shares) == pytest.approx(answer.probabilities, abs=1e-4)
    for exported in (file, small.path, stream):
        assert b"emodarts" not in exported.read_bytes()  # the exporter notes source lines


@pytest.mark.slow
def test_int8_answers_at_several_speeds_as_the_model(tmp_path: Path) -> None:
    one_layer = {**BOTH, "seqnn": {**LSTM, "layers": 1, "bidirectional": True}}
    model = model_of({**MEL, "pool_by": "mean"}, one_layer, speeds=(0.9, 1.0, 1.1))
    assert export_onnx(model, tmp_path / "small.onnx", int8=True).difference < 0.03
    import onnx

    nodes = onnx.load(tmp_path / "small.onnx").graph.node
    weights = [node.input[1] for node in nodes if node.op_type == "DynamicQuantizeLSTM"]
    assert len(weights) == 3 * len(set(weights)) > 0  # kept once, and not for each speed


@given(
    st.lists(st.integers(1, 40), max_size=12), st.integers(1, 30), st.integers(1, 40), st.booleans()
)
@settings(max_examples=60)
def test_a_stream_is_cut_into_the_windows_of_predict(
    sizes: list[int], size: int, hop: int, ends: bool
) -> None:
    """Whatever the chunks are, the state is enough to know them, and no longer than it must be."""
    onnx = pytest.importorskip("onnx")
    opset = onnx.helper.make_opsetid("", export.OPSET)
    graph = windowing(Windows(size, hop, 1))
    program = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = export.open_session(program.SerializeToString())
    sound = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    state, found = sound[:0], []
    chunks = np.split(sound, np.cumsum(sizes))  # the last is empty
    for chunk in chunks if ends else chunks[:-1]:
        rows, state, due = session.run(None, {"chunk": chunk, "state": state})
        assert due == bool(len(rows))
        assert len(state) < size + hop
        found += [row.tolist() for row in rows]
    assert found == [
        part.tolist()
        for first, part in cut([sound], 1, size, hop)
        if ends or (first % hop == 0 and len(part) == size)
    ]


def test_what_cannot_be_exported_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = model_of(MEL, BOTH)
    two = replace(model.bundle, inputs={"a": model.bundle.inputs["features"]} | model.bundle.inputs)
    with pytest.raises(ExportError, match="2 feature maps"):
        Graph(two)
    other = SystemSpec.model_validate({"kind": "chance"}, strict=False)
    with pytest.raises(ExportError, match="system is chance"):
        Graph(replace(model.bundle, system=other, fitted=object()))  # type: ignore[arg-type]
    with pytest.raises(EmodartsError, match=r"window is 0.0 s"):
        export_onnx(model, tmp_path / "none.onnx", window=0.0)
    assert "need --onnx" in refused("export", "emodb", "--folder", tmp_path, "--window", "4")
    assert "give one of --onnx" in refused("export", "emodb").lower()
