"""A model as one ONNX file from sound to probabilities (the extra ``onnx``)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emodarts import files
from emodarts.audio.io import load_audio
from emodarts.errors import ExportError
from emodarts.serving.graph import Graph
from emodarts.serving.model import Model
from emodarts.serving.windowing import Windows, streaming
from emodarts.serving.windows import check_windows

OPSET = 20
TOLERANCE = 1e-4
"""Largest difference of a probability from that of torch."""
TOLERANCE_INT8 = 0.05
"""The same, of a file whose products are in int8."""
_BEFORE_NETWORKS = "front.", "hearing."
"""In the names of tensors that make features, and play them at several speeds: not in int8, as maps
have missing frames (NaN) there, of which there is no scale."""

_SECONDS = (0.3, 1.0, 2.5, 8.0, 13.7)
"""Lengths of the generated sounds that an export is compared on."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : of the file.
    bytes : its size.
    sounds : number of sounds that it was compared with torch on.
    difference : largest difference of a probability.
    same_labels : share of the sounds whose label is the same.
    """

    path: Path
    bytes: int
    sounds: int
    difference: float
    same_labels: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "path": str(self.path)}


def export_onnx(
    model: Model,
    path: Path,
    check: Sequence[Path] = (),
    *,
    int8: bool = False,
    window: float | None = None,
    hop: float | None = None,
) -> Exported:
    """Write a model as ONNX, unless its answers differ from those of torch.

    The file takes ``waveform`` ``(batch, samples)``, float32 at the sample rate in its metadata,
    and gives ``probabilities`` ``(batch, classes)``. It needs onnxruntime, and not this package.

    With ``window`` it is the streaming form: ``chunk`` ``(samples,)`` and ``state`` ``(held,)``
    give ``probabilities`` ``(windows, classes)`` of the windows that the chunk completes, and
    ``new_state``, which goes with the next chunk. The first state is empty. An empty chunk is the
    end, and completes the last window of :meth:`Model.stream`.

    Parameters
    ----------
    check : audio files to compare on, beside generated sounds.
    int8 : keep the weights of recurrent and dense layers, and multiply, in 8 bits.
    window, hop : seconds, rounded to samples; see :meth:`Model.stream`.

    Raises
    ------
    ExportError
        If the extra is missing, the model is of a kind that cannot be exported, or an answer
        differs by more than 1e-4, or 0.05 with ``int8``. No file is left then.
    AudioError
        If a file to check on cannot be used.
    EmodartsError
        If ``window`` or ``hop`` is not possible.
    """
    check_windows(window, hop)
    sounds = _sounds(model, check)
    data = to_onnx(model)
    if int8:
        data = quantised(data)
    if window is None:
        data = _with_facts(data, model)
        difference, same = _compare(model, data, sounds)
    else:
        [spec] = model.bundle.inputs.values()
        windows = Windows.of(window, hop, spec.sample_rate)
        facts = dict(zip(("window", "hop"), map(str, windows.seconds), strict=True))
        data = _with_facts(streaming(data, windows, len(model.classes)), model, facts)
        difference, same = _compare_streams(model, data, sounds, windows)
    allowed = TOLERANCE_INT8 if int8 else TOLERANCE
    if not difference <= allowed:
        raise ExportError(
            f"the exported model answers differently: a probability differs by {difference:.2g}; "
            f"allowed: {allowed:g}. Nothing was written"
        )
    files.write_bytes(path, data)
    return Exported(path, len(data), len(sounds), difference, same)


def to_onnx(model: Model) -> bytes:
    """The program alone, neither compared nor with metadata.

    Raises
    ------
    ExportError
        If the extra is missing, or the model is of a kind that cannot be exported.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{error.name} is missing; install the extra: pip install 'emodarts[onnx]'"
        ) from error
    data: bytes = _translate(Graph(model.bundle).eval()).SerializeToString()
    return data


def _with_facts(data: bytes, model: Model, more: Mapping[str, str] | None = None) -> bytes:
    import onnx

    [spec] = model.bundle.inputs.values()
    program = onnx.load_from_string(data)
    metadata = {
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "sample_rate": str(spec.sample_rate),
        "digest": hashlib.sha256(data).hexdigest(),
        "corpus": str(model.bundle.origin.get("corpus", "")),
        "licence": licence_note(model),
        **(more or {}),
    }
    onnx.helper.set_model_props(program, metadata)
    done: bytes = program.SerializeToString()
    return done


def licence_note(model: Model) -> str:
    """What must be said of the data that a model was trained on."""
    corpus = model.bundle.origin.get("corpus", "unknown data")
    notice = model.bundle.origin.get("notice")
    return f"Trained on {corpus}: the terms of that corpus may limit the use of the model." + (
        f" {notice}" if notice else ""
    )


def _translate(graph: Graph) -> Any:
    """The three parts of a graph, each on its own: one symbol for all sizes would take minutes."""
    import onnx

    size = graph.answers.spec.n_samples
    batch, rows, count = (torch.export.Dim(name) for name in ("batch", "rows", "pieces"))
    # Several rows and pieces, so that no size is taken for a constant.
    sound = torch.zeros(3, int(2.6 * size) + 7)
    n_classes = graph.answers(sound[:1, :size], torch.tensor([size])).shape[1]
    pieces = _translate_part(
        graph.pieces,
        {"waveform": (sound, {0: batch, 1: torch.export.Dim.DYNAMIC})},
        ["sound", "lengths", "weights"],
    )
    answers = _translate_part(
        graph.answers,
        {
            "sound": (torch.zeros(5, size), {0: rows}),
            "samples": (torch.full((5,), size), {0: rows}),
        },
        ["answers"],
    )
    mean = _translate_part(
        graph.mean,
        {
            "found": (torch.full((6, n_classes), 0.2), {0: torch.export.Dim.DYNAMIC}),
            "weights": (torch.ones(3, 2), {0: batch, 1: count}),
        },
        ["probabilities"],
    )
    for program, prefix in ((answers, "b_"), (mean, "c_")):
        onnx.compose.add_prefix(program, prefix, inplace=True)
    both = onnx.compose.merge_models(
        pieces,
        answers,
        [("sound", "b_sound"), ("lengths", "b_samples")],
        outputs=["weights", "b_answers"],
    )
    program = onnx.compose.merge_models(
        both, mean, [("b_answers", "c_found"), ("weights", "c_weights")]
    )
    del program.opset_import[1:]  # each part brought the same
    _rename_output(program.graph, "probabilities")
    return program


def _rename_output(graph: Any, name: str) -> None:
    [output] = graph.output
    for node in graph.node:
        node.output[:] = [name if o == output.name else o for o in node.output]
    output.name = name


def _translate_part(part: Any, given: dict[str, tuple[Any, Any]], outputs: list[str]) -> Any:
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                part,
                tuple(tensor for tensor, _ in given.values()),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=list(given),
                output_names=outputs,
                dynamic_shapes=tuple(shape for _, shape in given.values()),
                verbose=False,
            )
    except Exception as error:  # torch has an exception of its own for each stage
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ExportError(f"this model cannot be exported to ONNX: {reason}") from error
    if program is None:
        raise ExportError("this model cannot be exported to ONNX: torch gave no program")
    return _without_origins(program.model_proto)


def _without_origins(program: Any) -> Any:
    """Drop the source lines that the exporter notes for each node: a third of a file, and paths."""
    graph = program.graph
    for each in (graph, *graph.node, *graph.value_info, *graph.initializer):
        del each.metadata_props[:]
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def quantised(data: bytes) -> bytes:
    """A program whose recurrent and dense layers are in int8; what they read stays as it is."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, ready, small = (str(Path(folder) / name) for name in ("a", "b", "c"))
        Path(plain).write_bytes(data)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        program = onnx.load(ready)
        _unshare_recurrent_weights(program.graph)
        onnx.save(program, ready)
        before = [
            node.name
            for node in program.graph.node
            if node.op_type == "MatMul"
            and any(part in name for name in node.input for part in _BEFORE_NETWORKS)
        ]
        quantize_dynamic(
            ready,
            small,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
            weight_type=QuantType.QInt8,
            nodes_to_exclude=before,
        )
        program = onnx.load(small)
        _share_equal_weights(program.graph)
        done: bytes = program.SerializeToString()
        return done


def _unshare_recurrent_weights(graph: Any) -> None:
    """Give each LSTM weights of its own, where a network answers at several speeds.

    onnxruntime (1.32) transposes the weights of an LSTM in place, once for each that reads them.
    """
    weights, taken = {tensor.name: tensor for tensor in graph.initializer}, set()
    for node in graph.node:
        for k in (1, 2) if node.op_type == "LSTM" else ():
            if (name := node.input[k]) in taken:
                graph.initializer.add().CopyFrom(weights[name])
                graph.initializer[-1].name = node.input[k] = f"{name}.{node.name}"
            taken.add(name)


def _share_equal_weights(graph: Any) -> None:
    """Keep one of each set of equal tensors."""
    kept: dict[bytes, str] = {}
    names = {
        tensor.name: kept.setdefault(_content_of(tensor), tensor.name)
        for tensor in graph.initializer
    }
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    unique = [tensor for tensor in graph.initializer if names[tensor.name] == tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(unique)


def _content_of(tensor: Any) -> bytes:
    """Type, shape and values of a tensor."""
    unnamed = type(tensor)()
    unnamed.CopyFrom(tensor)
    unnamed.ClearField("name")
    content: bytes = unnamed.SerializeToString(deterministic=True)
    return content


def _sounds(model: Model, check: Sequence[Path]) -> list[Samples]:
    rate = next(iter(model.bundle.inputs.values())).sample_rate
    found = [_speech_like(seconds, rate) for seconds in _SECONDS]
    return [*found, *(load_audio(path, rate) for path in check)]


def _speech_like(seconds: float, rate: int) -> Samples:
    """Syllables of a buzz and noise between silences."""
    n = round(seconds * rate)
    time = np.arange(n) / rate
    noise = np.random.default_rng(n).standard_normal(n)
    buzz = np.sign(np.sin(2 * np.pi * (140 * time + 6 * np.sin(5 * time))))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, None) ** 2
    sound = 0.1 * syllables * (buzz + 0.3 * noise)
    sound[: n // 10] = 0
    found: Samples = sound.astype(np.float32)
    return found


def _compare(model: Model, data: bytes, sounds: Sequence[Samples]) -> tuple[float, float]:
    """Largest difference of a probability, alone and in a batch, and the share of same labels."""
    session = open_session(data)
    [spec] = model.bundle.inputs.values()
    difference, same = 0.0, 0
    for sound in sounds:
        [answer] = model.predict(sound, sample_rate=spec.sample_rate)
        if not answer.label:
            continue
        expected = np.array([answer.probabilities[name] for name in model.classes])
        batch = np.stack([sound, sound[::-1]])
        alone, together = (session.run(None, {"waveform": x})[0][0] for x in (batch[:1], batch))
        difference = max(difference, *(np.abs(x - expected).max() for x in (alone, together)))
        same += int(alone.argmax() == expected.argmax())
    return float(difference), same / len(sounds)


def _compare_streams(
    model: Model, data: bytes, sounds: Sequence[Samples], windows: Windows
) -> tuple[float, float]:
    """The same over the windows of each sound, in chunks of which some complete no window."""
    session = open_session(data)
    window, hop = windows.seconds
    difference, same, n = 0.0, 0, 0
    for sound in sounds:
        chunks = np.array_split(sound, 1 + len(sound) // (windows.hop // 2 + 1))
        answers = list(model.stream(chunks, windows.sample_rate, window, hop))
        state, found = sound[:0], []
        for chunk in (*chunks, sound[:0]):
            probabilities, state = session.run(None, {"chunk": chunk, "state": state})
            found += list(probabilities)
        if len(found) != len(answers):
            return float("inf"), 0.0
        for answer, shares in zip(answers, found, strict=True):
            if answer.label:
                expected = np.array([answer.probabilities[name] for name in model.classes])
                difference = max(difference, float(np.abs(shares - expected).max()))
                same += int(shares.argmax() == expected.argmax())
                n += 1
    return difference, same / max(n, 1)


def open_session(data: bytes | Path, threads: int = 1) -> Any:
    """An onnxruntime session of a file or its contents, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    source = data if isinstance(data, bytes) else str(data)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
