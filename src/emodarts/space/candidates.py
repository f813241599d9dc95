"""Cells of recurrent candidates on a CPU, compiled by numba.

Threads take candidates one after the other until there are no more, and hold no lock of Python
meanwhile. Each candidate writes to memory of its own. Who ends the last one of an edge adds them
up, who ends the last edge of a state adds up those; other threads wait only if they are to read a
state that is not there yet. All sums are in the order of the tables, so that results depend neither
on the number of threads nor on which of them was faster.

A sequence is a contiguous array ``(T, B, ...)``, float32 or float64. What a candidate keeps for its
gradient lies side by side: of each layer the output ``(T, B, D U)``, D directions of U units, and
for an LSTM of each direction gates and cell states; of an attention its output, shares and context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.extending import intrinsic, register_jitable

from emodarts.space.jit import Array, Kernel, cgutils, compiled
from emodarts.space.recurrence import (
    add_scaled,
    attend,
    attend_gradient,
    dot,
    lstm,
    lstm_gradient,
    rnn,
    rnn_gradient,
)

#: An edge from a state to another; its candidates lie side by side. States 0 and 1 are the inputs.
EDGE = np.dtype(
    [(name, np.int64) for name in ("source", "target", "first_candidate", "n_candidates")]
)
#: A candidate: whether it is an LSTM, its layers (none: a skip connection), directions and units,
#: whether an attention follows, its edge, and where its parameters and what it keeps begin.
CANDIDATE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("lstm", "layers", "directions", "units", "attention"),
            *("edge", "parameters", "kept"),
        )
    ]
)
#: An array of one of both.
Table = Any
#: Values of an LSTM for each unit and step: output, four gates, cell state.
_OF_LSTM = 6


def _pointer(typing: Any, address: Any, like: Any) -> tuple[Any, Callable[..., Any]]:
    """Of the elements of an array, at an address."""
    kind = numba.types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


def _add_atomically(
    typing: Any, counts: Any, index: Any, summand: Any
) -> tuple[Any, Callable[..., Any]]:
    """Add to a count, and tell what was there; what a thread wrote before, others see after."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(counts)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, counts, array, [arguments[1]])
        return builder.atomic_rmw("add", place, arguments[2], "acq_rel")

    return counts.dtype(counts, numba.types.intp, counts.dtype), generate


_pointer_to: Kernel = intrinsic(_pointer)
_added: Kernel = intrinsic(_add_atomically)


@compiled
def _vector(address: int, like: Array, size: int) -> Array:
    out: Array = carray(_pointer_to(address, like), (size,))
    return out


@compiled
def _matrix(address: int, like: Array, rows: int, columns: int) -> Array:
    out: Array = carray(_pointer_to(address, like), (rows, columns))
    return out


@compiled
def _zero_vector(address: int, like: Array, size: int) -> Array:
    """Of size 0 where there is none."""
    out: Array = _vector(address, like, size if address != 0 else 0)
    out[:] = like.dtype.type(0)
    return out


@compiled
def _zero_matrix(address: int, like: Array, rows: int, columns: int) -> Array:
    """Of size 0 where there is none."""
    if address == 0:
        rows = columns = 0
    out: Array = _matrix(address, like, rows, columns)
    out[:] = like.dtype.type(0)
    return out


@compiled
def _part(kept: Array, first: int, x: Array, width: int) -> Array:
    time, batch = x.shape[0], x.shape[1]
    part: Array = kept[first : first + time * batch * width].reshape(time, batch, width)
    return part


@register_jitable
def _n_kept_of_layer(c: Any, time: int, batch: int) -> int:
    size: int = (_OF_LSTM if c.lstm else 1) * time * batch * c.directions * c.units
    return size


@register_jitable
def n_kept(c: Any, time: int, batch: int) -> int:
    """How many values a candidate keeps for its gradient; in compiled code, and out of it."""
    of_layers: int = c.layers * _n_kept_of_layer(c, time, batch)
    if not c.attention:
        return of_layers
    total: int = of_layers + time * batch * (c.units + 1) + batch * c.directions * c.units
    return total


@compiled
def _states(c: Any, kept: Array, x: Array, layer: int) -> Array:
    """Output of a layer; the input of the first is ``x``."""
    if layer < 0:
        return x
    first = c.kept + layer * _n_kept_of_layer(c, x.shape[0], x.shape[1])
    out: Array = _part(kept, first, x, c.directions * c.units)
    return out


@compiled
def _gates(c: Any, kept: Array, x: Array, layer: int, way: int) -> tuple[Array, Array]:
    """Gates and cell states of a direction of an LSTM."""
    size = x.shape[0] * x.shape[1] * c.units
    first = c.kept + layer * _n_kept_of_layer(c, x.shape[0], x.shape[1])
    first += (c.directions + way * (_OF_LSTM - 1)) * size
    return _part(kept, first, x, 4 * c.units), _part(kept, first + 4 * size, x, c.units)


@compiled
def _attended(c: Any, kept: Array, x: Array) -> tuple[Array, Array, Array]:
    """Output, shares and context of an attention."""
    time, batch = x.shape[0], x.shape[1]
    first = c.kept + c.layers * _n_kept_of_layer(c, time, batch)
    shares = first + time * batch * c.units
    context = shares + time * batch
    width = c.directions * c.units
    return (
        _part(kept, first, x, c.units),
        kept[shares:context].reshape(time, batch),
        kept[context : context + batch * width].reshape(batch, width),
    )


@compiled
def _output(c: Any, kept: Array, x: Array) -> Array:
    out: Array = _attended(c, kept, x)[0] if c.attention else _states(c, kept, x, c.layers - 1)
    return out


@compiled
def _forward(c: Any, x: Array, parameters: Array, kept: Array) -> None:
    width, units = c.directions * c.units, c.units
    place, rows = c.parameters, (4 if c.lstm else 1) * units
    for layer in range(c.layers):
        steps, h = _states(c, kept, x, layer - 1), _states(c, kept, x, layer)
        for way in range(c.directions):
            of_input = _matrix(parameters[place], x, rows, steps.shape[2])
            of_state = _matrix(parameters[place + 1], x, rows, units)
            bias = _vector(parameters[place + 2], x, rows)
            other = _vector(parameters[place + 3], x, rows)
            place += 4
            if c.lstm:
                gates, cells = _gates(c, kept, x, layer, way)
                first = way * units
                lstm(steps, of_input, of_state, bias, other, first, way == 1, h, gates, cells)
            else:
                rnn(steps, of_input, of_state, bias, other, way * units, way == 1, h)
    if c.attention:
        score = _matrix(parameters[place], x, 1, width)
        score_bias = _vector(parameters[place + 1], x, 1)
        project = _matrix(parameters[place + 2], x, units, 2 * width)
        project_bias = _vector(parameters[place + 3], x, units)
        out, shares, context = _attended(c, kept, x)
        h = _states(c, kept, x, c.layers - 1)
        attend(h, score, score_bias, project, project_bias, out, shares, context)


@compiled
def _backward(
    c: Any,
    of_out: Array,
    x: Array,
    parameters: Array,
    kept: Array,
    of_parameters: Array,
    of_x: Array,
) -> None:
    """``of_out`` is overwritten; of a candidate that is no skip connection."""
    width, units = c.directions * c.units, c.units
    rows = (4 if c.lstm else 1) * units
    of_h = of_out
    if c.attention:
        h = _states(c, kept, x, c.layers - 1)
        of_h = np.empty_like(h)
        place = c.parameters + 4 * c.layers * c.directions
        score = _matrix(parameters[place], x, 1, width)
        project = _matrix(parameters[place + 2], x, units, 2 * width)
        of_score = _zero_matrix(of_parameters[place], x, 1, width)
        of_score_bias = _zero_vector(of_parameters[place + 1], x, 1)
        of_project = _zero_matrix(of_parameters[place + 2], x, units, 2 * width)
        of_project_bias = _zero_vector(of_parameters[place + 3], x, units)
        _, shares, context = _attended(c, kept, x)
        found = (of_score, of_score_bias, of_project, of_project_bias)
        attend_gradient(of_out, h, score, project, shares, context, of_h, *found)
    for layer in range(c.layers - 1, -1, -1):
        steps, h = _states(c, kept, x, layer - 1), _states(c, kept, x, layer)
        of_steps = np.empty_like(steps) if layer > 0 else of_x
        of_steps[:] = x.dtype.type(0)
        for way in range(c.directions - 1, -1, -1):
            place = c.parameters + 4 * (layer * c.directions + way)
            of_input = _matrix(parameters[place], x, rows, steps.shape[2])
            of_state = _matrix(parameters[place + 1], x, rows, units)
            of_weights = _zero_matrix(of_parameters[place], x, rows, steps.shape[2])
            of_recurrent = _zero_matrix(of_parameters[place + 1], x, rows, units)
            of_bias = _zero_vector(of_parameters[place + 2], x, rows)
            of_other = _zero_vector(of_parameters[place + 3], x, rows)
            same = of_bias if len(of_bias) > 0 else of_other
            given = (of_h, steps, of_input, of_state, way * units, way == 1, h)
            found = (of_steps, of_weights, of_recurrent, same)
            if c.lstm:
                lstm_gradient(*given, *_gates(c, kept, x, layer, way), *found)
            else:
                rnn_gradient(*given, *found)
            if len(of_bias) > 0 and len(of_other) > 0:
                of_other[:] = of_bias
        of_h = of_steps


@compiled
def _is_last_of_edge(edges: Table, edge: int, progress: Array) -> bool:
    """Count a candidate that ended; whether it was the last one."""
    last: bool = _added(progress[1], edge, 1) == edges[edge].n_candidates - 1
    return last


@compiled
def _is_last_of_state(edges: Table, state: int, forwards: bool, progress: Array) -> bool:
    """Count an edge that ended; whether it was the last one that enters, or leaves, a state."""
    others = -1
    for edge in edges:
        others += (edge.target if forwards else edge.source) == state
    last: bool = _added(progress[2], state, 1) == others
    return last


@compiled
def _wait_for(state: int, progress: Array) -> None:
    """Until a state was added up; who does that never waits for a candidate begun later."""
    while _added(progress[3], state, 0) == 0:
        pass


@compiled
def _state(state: int, first: Array, second: Array, nodes: Array) -> Array:
    return first if state == 0 else second if state == 1 else nodes[state - 2]


@compiled
def _flat(x: Array) -> Array:
    return x.reshape(x.size)


@compiled
def forward(
    first: Array,
    second: Array,
    edges: Table,
    candidates: Table,
    order: Array,
    parameters: Array,
    weights: Array,
    kept: Array,
    sums: Array,
    nodes: Array,
    progress: Array,
) -> None:
    """A thread's share of the candidates of a cell.

    Parameters
    ----------
    first, second : (T, B, I) and (T, B, J), the inputs.
    edges : table of :data:`EDGE`; each state but the inputs has one that enters it.
    candidates : table of :data:`CANDIDATE`, at least one of each edge.
    order : in which candidates are begun: those that a state sums before those that read it.
    parameters : addresses: of each layer and direction of a candidate weights of the input and of
        the state, and both biases; of an attention weights and bias of the score and of the
        projection. Contiguous, of the type of the inputs.
    weights : one of each candidate.
    kept : all that candidates keep, written.
    sums : (E, T, B, H), of the candidates of each edge, written.
    nodes : (N, T, B, H), the other states, written.
    progress : (4, n), zeros at first and the same for all threads: how many candidates were begun,
        in the first place; how many ended, by edge; how many edges ended and whether the state is
        there, by state. n is at least the number of edges and of states.
    """
    one = weights.dtype.type(1)
    while True:
        n = _added(progress[0], 0, 1)
        if n >= len(order):
            break
        c = candidates[order[n]]
        edge = edges[c.edge]
        if edge.source > 1:
            _wait_for(edge.source, progress)
        x = _state(edge.source, first, second, nodes)
        _forward(c, x, parameters, kept)
        if not _is_last_of_edge(edges, c.edge, progress):
            continue
        sums[c.edge][:] = x.dtype.type(0)
        for k in range(edge.first_candidate, edge.first_candidate + edge.n_candidates):
            add_scaled(_flat(_output(candidates[k], kept, x)), weights[k], _flat(sums[c.edge]))
        if not _is_last_of_state(edges, edge.target, True, progress):
            continue
        nodes[edge.target - 2][:] = x.dtype.type(0)
        for k in range(len(edges)):
            if edges[k].target == edge.target:
                add_scaled(_flat(sums[k]), one, _flat(nodes[edge.target - 2]))
        _added(progress[3], edge.target, 1)


@compiled
def backward(
    first: Array,
    second: Array,
    edges: Table,
    candidates: Table,
    order: Array,
    parameters: Array,
    weights: Array,
    kept: Array,
    nodes: Array,
    of_nodes: Array,
    of_parameters: Array,
    of_weights: Array,
    of_candidates: Array,
    of_first: Array,
    of_second: Array,
    progress: Array,
) -> None:
    """Gradients of :func:`forward`: a thread's share of the candidates.

    Parameters
    ----------
    first, second, edges, candidates, parameters, weights, kept, nodes : what it was given and left.
    order : in which candidates are begun: those that read a state before those that it sums.
    of_nodes : (N, T, B, H), gradients that come in from outside; all of each at the end.
    of_parameters : addresses, 0 for one without gradient; written.
    of_weights : one of each candidate, written, or none.
    of_candidates : a row for each candidate, as long as the largest state, written.
    of_first, of_second : like the inputs, added to; of size 0 where no gradient is wanted.
    progress : as there, of gradients: a state is there that no edge leaves.
    """
    one = weights.dtype.type(1)
    while True:
        n = _added(progress[0], 0, 1)
        if n >= len(order):
            break
        k = order[n]
        c, edge = candidates[k], edges[candidates[k].edge]
        _wait_for(edge.target, progress)
        x, of_out = _state(edge.source, first, second, nodes), of_nodes[edge.target - 2]
        if len(of_weights) > 0:
            y, total = _output(c, kept, x), 0.0
            for t in range(len(y)):
                for b in range(y.shape[1]):
                    total += dot(of_out[t, b], y[t, b])
            of_weights[k] = total
        of_x = _state(edge.source, of_first, of_second, of_nodes)
        own = of_candidates[k, : of_x.size].reshape(of_x.shape)
        if c.layers > 0:
            _backward(c, of_out * weights[k], x, parameters, kept, of_parameters, own)
        elif own.size > 0:
            own[:] = of_out * weights[k]
        if not _is_last_of_edge(edges, c.edge, progress) or of_x.size == 0:
            continue
        for m in range(edge.first_candidate + 1, edge.first_candidate + edge.n_candidates):
            add_scaled(
                of_candidates[m, : of_x.size],
                one,
                of_candidates[edge.first_candidate, : of_x.size],
            )
        if not _is_last_of_state(edges, edge.source, False, progress):
            continue
        for other in edges:
            if other.source == edge.source:
                add_scaled(of_candidates[other.first_candidate, : of_x.size], one, _flat(of_x))
        _added(progress[3], edge.source, 1)
