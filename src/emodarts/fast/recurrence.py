"""Recurrent layers over time and the attention after them on a CPU, compiled by numba.

A sequence is an array ``(T, B, ...)``, float32 or float64. What a layer makes of its input is one
large product; then it goes through time with a product of a few utterances and the recurrent
weights at each step. The lock of Python is not held, and a call does a layer's whole work in one
direction: threads that call often wait for each other.

The two directions of a layer write to one output ``(T, B, D H)``, each its own units. Weights and
biases are those of ``torch.nn.LSTM`` and ``torch.nn.RNN``, with G H rows: of an LSTM G is 4, for
the gates i, f, g and o. Gradients of weights are added to arrays of the same names; an array of
size 0 takes none.

Utterance b has ``lengths[b]`` steps, (B,). Both directions have zeros after the last one, where the
way back begins.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import overload, register_jitable

from emodarts.fast.jit import (
    Array,
    add_packed_product,
    add_product,
    compiled,
    packed,
    packed_turned,
)


class Layer(NamedTuple):
    """Weights of a layer in one direction, or their gradients."""

    of_input: Array  # (G H, I)
    of_state: Array  # (G H, H)
    bias: Array  # (G H,)
    other_bias: Array  # (G H,)


class Way(NamedTuple):
    """A direction: the first of its units in the output, and whether it begins at the last step."""

    first: int
    backwards: bool


class Attention(NamedTuple):
    """Weights of an attention over time and of the projection after it, or their gradients."""

    score: Array  # (1, D)
    score_bias: Array  # (1,)
    project: Array  # (H, 2 D): for the step, and for the context
    project_bias: Array  # (H,)


def _continued_fraction(terms: int) -> tuple[list[Fraction], list[Fraction]]:
    """Coefficients of polynomials ``p, q`` in the square of x, with ``tanh x = x p / q`` nearly.

    Source: J. H. Lambert, 1768: ``tanh x = x / (1 + x^2 / (3 + x^2 / (5 + ...)))``.
    """
    above, below = [Fraction(1)], [Fraction(2 * terms - 1)]  # of one over what is left
    for k in range(terms - 1, 0, -1):
        summand = [Fraction(0), *above]
        total = [(2 * k - 1) * c for c in below] + [Fraction(0)] * (len(summand) - len(below))
        summand += [Fraction(0)] * (len(total) - len(summand))
        above, below = below, [x + y for x, y in zip(total, summand, strict=True)]
    return [c / below[0] for c in above], [c / below[0] for c in below]


#: Up to there 12 terms are as exact as float32; beyond, its distance from 1 is 2e-7.
_LARGEST = np.float32(8)
_ABOVE, _BELOW = (
    tuple(np.float32(float(c)) for c in polynomial) for polynomial in _continued_fraction(12)
)


@register_jitable
def _single_tanh(x: Any) -> Any:
    # NaN is neither.
    x = _LARGEST if x > _LARGEST else -_LARGEST if x < -_LARGEST else x
    y = x * x
    p, q = _ABOVE, _BELOW
    above = ((((p[5] * y + p[4]) * y + p[3]) * y + p[2]) * y + p[1]) * y + p[0]
    below = (((((q[6] * y + q[5]) * y + q[4]) * y + q[3]) * y + q[2]) * y + q[1]) * y + q[0]
    return x * above / below


def _tanh(x: Any) -> Any:
    """In compiled code: in float32 without a branch, so that loops of it become vectors."""
    raise NotImplementedError


@overload(_tanh, inline="always")
def _overload_tanh(x: Any) -> Any:
    def single(x: Any) -> Any:
        return _single_tanh(x)

    def double(x: Any) -> Any:
        return math.tanh(x)

    return single if x == numba.types.float32 else double


@compiled
def _sigmoid_of(x: Array) -> None:
    half = x.dtype.type(0.5)
    for k in range(len(x)):
        x[k] = half + half * _tanh(half * x[k])


@compiled
def tanh_of(x: Array) -> None:
    """In place, of a row."""
    for k in range(len(x)):
        x[k] = _tanh(x[k])


@compiled
def _rows(x: Array) -> Array:
    """``(T, B, N)`` -> ``(T B, N)``."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


@compiled
def _clear(row: Array) -> None:
    for k in range(len(row)):
        row[k] = 0


@compiled
def _step(n: int, time: int, backwards: bool) -> tuple[int, int]:
    """The n-th step that a direction takes, and the one before it."""
    return (time - 1 - n, time - n) if backwards else (n, n - 1)


@compiled
def _read(x: Array, layer: Layer, z: Array) -> None:
    """What a layer makes of its input (T, B, I), with both biases, in ``z`` (T, B, G H)."""
    z[:] = layer.bias + layer.other_bias
    add_packed_product(_rows(x), packed_turned(layer.of_input), _rows(z))


@compiled
def _cell(gates: Array, before: Array, c: Array, h: Array) -> None:
    size = len(c)
    i, f, g, o = gates[:size], gates[size:], gates[2 * size :], gates[3 * size :]
    for k in range(size):
        c[k] = f[k] * before[k] + i[k] * g[k]
    for k in range(size):
        h[k] = o[k] * _tanh(c[k])


@compiled
def lstm(
    x: Array, lengths: Array, layer: Layer, way: Way, h: Array, gates: Array, c: Array
) -> None:
    """Long short-term memory from zeros, in one direction: ``x`` (T, B, I).

    Written are its units of ``h`` (T, B, D H), ``gates`` (T, B, 4 H) and cell states ``c``
    (T, B, H).
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    last = way.first + units
    _read(x, layer, gates)
    turned = packed_turned(layer.of_state)
    for n in range(time):
        t, s = _step(n, time, way.backwards)
        if n > 0:
            add_packed_product(h[s, :, way.first : last], turned, gates[t])
        for b in range(batch):
            if t >= lengths[b]:
                _clear(h[t, b, way.first : last])
                _clear(c[t, b])
                continue
            row = gates[t, b]
            _sigmoid_of(row[: 2 * units])
            tanh_of(row[2 * units : 3 * units])
            _sigmoid_of(row[3 * units :])
            _cell(row, c[s, b] if n > 0 else nothing, c[t, b], h[t, b, way.first : last])


@compiled
def rnn(x: Array, lengths: Array, layer: Layer, way: Way, h: Array) -> None:
    """``h_t = tanh(W x_t + V h_s + biases)``, s the step before; its units of ``h`` are written."""
    time, batch, units = len(x), x.shape[1], len(layer.of_state)
    last = way.first + units
    z = np.empty((time, batch, units), x.dtype)
    _read(x, layer, z)
    turned = packed_turned(layer.of_state)
    for n in range(time):
        t, s = _step(n, time, way.backwards)
        if n > 0:
            add_packed_product(h[s, :, way.first : last], turned, z[t])
        for b in range(batch):
            if t >= lengths[b]:
                _clear(h[t, b, way.first : last])
                continue
            tanh_of(z[t, b])
            h[t, b, way.first : last] = z[t, b]


@compiled
def _of_cell(gates: Array, before: Array, c: Array, of_h: Array, of_c: Array, of_z: Array) -> None:
    size, one = len(c), c.dtype.type(1)
    i, f, g, o = gates[:size], gates[size:], gates[2 * size :], gates[3 * size :]
    of_i, of_f, of_g, of_o = of_z[:size], of_z[size:], of_z[2 * size :], of_z[3 * size :]
    for k in range(size):
        v = _tanh(c[k])
        of_o[k] = of_h[k] * v * o[k] * (one - o[k])
        of_c[k] += of_h[k] * o[k] * (one - v * v)
    for k in range(size):
        of_i[k] = of_c[k] * g[k] * i[k] * (one - i[k])
    for k in range(size):
        of_g[k] = of_c[k] * i[k] * (one - g[k] * g[k])
    for k in range(size):
        of_f[k] = of_c[k] * before[k] * f[k] * (one - f[k])
    for k in range(size):
        of_c[k] *= f[k]


@compiled
def lstm_gradient(
    of_h: Array,
    x: Array,
    lengths: Array,
    layer: Layer,
    way: Way,
    h: Array,
    gates: Array,
    c: Array,
    of_x: Array,
    of_layer: Layer,
) -> None:
    """Gradients of :func:`lstm`, added to ``of_x`` and ``of_layer``.

    ``of_h`` (T, B, D H) is that of its output; units of this direction are overwritten.
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    of_c = np.zeros((batch, units), c.dtype)
    of_z = np.empty(gates.shape, c.dtype)  # (T, B, 4 H)
    of_state = packed(layer.of_state)
    own = slice(way.first, way.first + units)
    for n in range(time - 1, -1, -1):
        t, s = _step(n, time, way.backwards)
        for b in range(batch):
            if t >= lengths[b]:
                _clear(of_z[t, b])
                continue
            before = c[s, b] if n > 0 else nothing
            _of_cell(gates[t, b], before, c[t, b], of_h[t, b, own], of_c[b], of_z[t, b])
        if n > 0:
            add_packed_product(of_z[t], of_state, of_h[s, :, own])
    _of_layer(of_z, x, layer, way, h, of_x, of_layer)


@compiled
def _of_tanh(h: Array, of_h: Array, of_z: Array) -> None:
    one = h.dtype.type(1)
    for k in range(len(h)):
        of_z[k] = of_h[k] * (one - h[k] * h[k])


@compiled
def rnn_gradient(
    of_h: Array,
    x: Array,
    lengths: Array,
    layer: Layer,
    way: Way,
    h: Array,
    of_x: Array,
    of_layer: Layer,
) -> None:
    """Gradients of :func:`rnn`; as :func:`lstm_gradient`."""
    time, batch, units = len(x), x.shape[1], len(layer.of_state)
    of_z = np.empty((time, batch, units), x.dtype)
    of_state = packed(layer.of_state)
    own = slice(way.first, way.first + units)
    for n in range(time - 1, -1, -1):
        t, s = _step(n, time, way.backwards)
        for b in range(batch):
            if t >= lengths[b]:
                _clear(of_z[t, b])
                continue
            _of_tanh(h[t, b, own], of_h[t, b, own], of_z[t, b])
        if n > 0:
            add_packed_product(of_z[t], of_state, of_h[s, :, own])
    _of_layer(of_z, x, layer, way, h, of_x, of_layer)


@compiled
def _of_layer(
    of_z: Array, x: Array, layer: Layer, way: Way, h: Array, of_x: Array, of_layer: Layer
) -> None:
    """What the gradient before the activations (T, B, G H) gives to all that made them."""
    rows, batch = _rows(of_z), x.shape[1]
    if of_x.size > 0:
        add_product(rows, layer.of_input, _rows(of_x))
    if of_layer.of_input.size > 0:
        add_product(rows.T, _rows(x), of_layer.of_input)
    if of_layer.of_state.size > 0:
        states = _rows(h)[:, way.first : way.first + layer.of_state.shape[1]]
        if way.backwards:
            add_product(rows[: len(rows) - batch].T, states[batch:], of_layer.of_state)
        else:
            add_product(rows[batch:].T, states[: len(rows) - batch], of_layer.of_state)
    if of_layer.bias.size == of_layer.other_bias.size == 0:
        return
    total = np.zeros(rows.shape[1], x.dtype)
    for row in rows:
        add_scaled(row, x.dtype.type(1), total)
    for of_bias in (of_layer.bias, of_layer.other_bias):
        if of_bias.size > 0:
            of_bias += total


@compiled
def dot(x: Array, y: Array) -> Any:
    total = x.dtype.type(0)
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


@compiled
def add_scaled(x: Array, factor: Any, out: Array) -> None:
    for k in range(len(x)):
        out[k] += factor * x[k]


@compiled
def normalise(x: Array, epsilon: float, out: Array, scale: Array) -> None:
    """Mean 0 and variance 1 over the features of each step.

    Parameters
    ----------
    x : (T, B, H).
    epsilon : added to the variance.
    out : (T, B, H), written.
    scale : (T, B), written: what the distance from the mean was multiplied by.
    """
    time, batch, width = x.shape
    for t in range(time):
        for b in range(batch):
            row, own = x[t, b], out[t, b]
            mean = row.sum() / x.dtype.type(width)
            for k in range(width):
                own[k] = row[k] - mean
            variance = dot(own, own) / x.dtype.type(width) + x.dtype.type(epsilon)
            scale[t, b] = x.dtype.type(1) / np.sqrt(variance)
            for k in range(width):
                own[k] *= scale[t, b]


@compiled
def normalise_gradient(of_out: Array, out: Array, scale: Array) -> None:
    """Gradient of :func:`normalise`, in place of that of its output (T, B, H)."""
    time, batch, width = out.shape
    for t in range(time):
        for b in range(batch):
            row, own = of_out[t, b], out[t, b]
            mean = row.sum() / out.dtype.type(width)
            slope = dot(row, own) / out.dtype.type(width)
            for k in range(width):
                row[k] = scale[t, b] * (row[k] - mean - own[k] * slope)


@compiled
def attend(
    h: Array, lengths: Array, weights: Attention, out: Array, shares: Array, context: Array
) -> None:
    """Join the context of an attention over time to every step, and project both.

    Parameters
    ----------
    h : (T, B, D), zeros after the last step of an utterance.
    lengths : (B,) steps of each.
    out : (T, B, H), written.
    shares : (T, B), written: softmax of the scores over the steps of each, then zeros.
    context : (B, D), written: sum of the steps by their shares.
    """
    time, batch, width = h.shape
    context[:] = h.dtype.type(0)
    for b in range(batch):
        for t in range(lengths[b]):
            shares[t, b] = dot(h[t, b], weights.score[0]) + weights.score_bias[0]
        shares[lengths[b] :, b] = h.dtype.type(0)
        own = shares[: lengths[b], b]
        own[:] = np.exp(own - own.max())
        own /= own.sum()
        for t in range(time):
            add_scaled(h[t, b], shares[t, b], context[b])
    project = weights.project
    of_step, of_context = packed_turned(project[:, :width]), packed_turned(project[:, width:])
    out[0] = weights.project_bias
    add_packed_product(context, of_context, out[0])  # the same at every step
    out[1:] = out[0]
    add_packed_product(_rows(h), of_step, _rows(out))


@compiled
def attend_gradient(
    of_out: Array,
    h: Array,
    weights: Attention,
    shares: Array,
    context: Array,
    of_h: Array,
    of_weights: Attention,
) -> None:
    """Gradients of :func:`attend`: ``of_h`` (T, B, D) is written, ``of_weights`` added to.

    ``of_out`` (T, B, H) is that of its output.
    """
    time, batch, width = h.shape
    project = weights.project
    of_total = np.zeros(of_out.shape[1:], h.dtype)  # (B, H)
    for t in range(time):
        of_total += of_out[t]
    of_context = np.zeros((batch, width), h.dtype)
    add_product(of_total, project[:, width:], of_context)
    of_h[:] = h.dtype.type(0)
    add_product(_rows(of_out), project[:, :width], _rows(of_h))
    if of_weights.project.size > 0:
        add_product(_rows(of_out).T, _rows(h), of_weights.project[:, :width])
        add_product(of_total.T, context, of_weights.project[:, width:])
    if of_weights.project_bias.size > 0:
        for b in range(batch):
            add_scaled(of_total[b], h.dtype.type(1), of_weights.project_bias)
    of_shares = np.empty(time, h.dtype)
    for b in range(batch):
        mean = h.dtype.type(0)
        for t in range(time):
            of_shares[t] = dot(of_context[b], h[t, b])
            mean += shares[t, b] * of_shares[t]
        for t in range(time):
            of_one = shares[t, b] * (of_shares[t] - mean)
            add_scaled(of_context[b], shares[t, b], of_h[t, b])
            add_scaled(weights.score[0], of_one, of_h[t, b])
            if of_weights.score.size > 0:
                add_scaled(h[t, b], of_one, of_weights.score[0])
            if of_weights.score_bias.size > 0:
                of_weights.score_bias[0] += of_one
