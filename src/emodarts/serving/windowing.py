"""The streaming form of an ONNX file: chunks and a state in, answers of windows and a state out."""

from __future__ import annotations

from typing import Any, NamedTuple

_WINDOWING = """
windowing (float[chunk] chunk, float[before] state)
    => (float[windows, samples] waveform, float[after] new_state, bool due)
{{
    size = Constant <value_int: int = {size}> ()
    hop = Constant <value_int: int = {hop}> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    first_axis = Constant <value_ints: ints = [0]> ()
    second_axis = Constant <value_ints: ints = [1]> ()

    sound = Concat <axis: int = 0> (state, chunk)
    length = Size (sound)
    before = Size (state)
    began = GreaterOrEqual (before, size)
    next = Where (began, hop, zero)

    end_of_next = Add (next, size)
    room = Sub (length, end_of_next)
    room_and_hop = Add (room, hop)
    fitting = Div (room_and_hop, hop)
    count = Max (fitting, zero)
    numbers = Range (zero, count, one)
    distances = Mul (numbers, hop)
    starts = Add (distances, next)

    covered_hops = Mul (count, hop)
    after_last = Add (next, covered_hops)
    last = Sub (after_last, hop)
    some = Greater (count, zero)
    answered = Or (began, some)
    end_of_last = Add (last, size)
    covered = Where (answered, end_of_last, zero)
    uncovered = Less (covered, length)
    given = Size (chunk)
    end = Equal (given, zero)
    final = And (end, uncovered)
    final_count = Cast <to: int = 7> (final)
    width = Min (size, length)
    final_start = Sub (length, width)
    final_numbers = Range (zero, final_count, one)
    final_starts = Add (final_numbers, final_start)
    all_starts = Concat <axis: int = 0> (starts, final_starts)

    column = Unsqueeze (all_starts, second_axis)
    places = Range (zero, width, one)
    index = Add (column, places)
    waveform = Gather <axis: int = 0> (sound, index)
    due = Or (some, final)

    kept_from = Max (last, zero)
    kept_from_axis = Unsqueeze (kept_from, first_axis)
    length_axis = Unsqueeze (length, first_axis)
    new_state = Slice (sound, kept_from_axis, length_axis, first_axis)
}}
"""
"""The state begins with the last window that was answered, or with the sound before there is one.
It is as long as a window in the first case only."""


class Windows(NamedTuple):
    """Length of windows and distance of their starts, in samples at a rate."""

    size: int
    hop: int
    sample_rate: int

    @classmethod
    def of(cls, window: float, hop: float | None, sample_rate: int) -> Windows:
        """From seconds; the default of ``hop`` is ``window``."""
        size = round(window * sample_rate)
        return cls(size, size if hop is None else round(hop * sample_rate), sample_rate)

    @property
    def seconds(self) -> tuple[float, float]:
        """Window and hop."""
        return self.size / self.sample_rate, self.hop / self.sample_rate


def windowing(windows: Windows) -> Any:
    """Windows that a chunk completes, as a graph of ONNX.

    Windows are those of :func:`emodarts.serving.windows.cut`. An empty chunk is the end of the
    sound, and completes the last window.

    Returns
    -------
    a graph from ``chunk`` (n,) and ``state`` (m,) to ``waveform`` (windows, size), which is
    narrower for sound that is shorter than a window, ``new_state`` and ``due``: whether there is a
    window. The first state is empty; later ones are shorter than ``size + hop``.
    """
    import onnx.parser

    return onnx.parser.parse_graph(_WINDOWING.format(size=windows.size, hop=windows.hop))


def streaming(data: bytes, windows: Windows, n_classes: int) -> bytes:
    """A program from ``waveform`` to ``probabilities``, run on every window of a stream.

    It runs only in calls in which a window is due.

    Returns
    -------
    a program from ``chunk`` and ``state`` to ``probabilities`` (windows, K) and ``new_state``.
    """
    import onnx.parser
    from onnx import TensorProto, helper

    program = onnx.compose.add_prefix(onnx.load_from_string(data), "model_")
    graph = windowing(windows)
    for node in graph.node:
        node.output[:] = ["model_waveform" if o == "waveform" else o for o in node.output]
    del program.graph.input[:]  # a branch takes what it needs from around it
    found = helper.make_tensor_value_info(
        "probabilities", TensorProto.FLOAT, ["windows", n_classes]
    )
    nothing = onnx.parser.parse_graph(
        f"nothing () => (float[none, {n_classes}] none) {{ none = Constant <value: tensor = "
        f"float[0, {n_classes}] {{}}> () }}"
    )
    choice = helper.make_node(
        "If", ["due"], ["probabilities"], then_branch=program.graph, else_branch=nothing
    )
    graph.node.append(choice)
    _, new_state, _ = graph.output
    del graph.output[:]
    graph.output.extend([found, new_state])
    program.graph.CopyFrom(graph)
    done: bytes = program.SerializeToString()
    return done
