"""Recurrent layers over time and the attention after them on a CPU, compiled by numba.

A sequence is an array ``(T, B, ...)``, float32 or float64. What a layer makes of its input is one
large product; then it goes through time with a product of a few utterances and the recurrent
weights at each step. The lock of Python is not held, and a call does a layer's whole work in one
direction: threads that call often wait for each other.

The two directions of a layer write to one output ``(T, B, D H)``: units from ``first`` on are those
of a direction. It goes ``backwards`` from the last step, or forwards. Weights and biases are those
of ``torch.nn.LSTM`` and ``torch.nn.RNN``.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numba
import numpy as np
from numba.extending import overload, register_jitable

from emodarts.space.jit import Array, add_product, compiled


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
def _tanh_of(x: Array) -> None:
    for k in range(len(x)):
        x[k] = _tanh(x[k])


@compiled
def _turned(weights: Array) -> Array:
    """``(N, K)`` -> ``(K, N)``, a few rows at a time so that all stay in the first cache."""
    rows, columns = weights.shape
    out = np.empty((columns, rows), weights.dtype)
    for first in range(0, rows, 16):
        last = min(rows, first + 16)
        for k in range(columns):
            for n in range(first, last):
                out[k, n] = weights[n, k]
    return out


@compiled
def _rows(x: Array) -> Array:
    """``(T, B, N)`` -> ``(T B, N)``."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


@compiled
def _step(n: int, time: int, backwards: bool) -> tuple[int, int]:
    """The n-th step that a direction takes, and the one before it."""
    return (time - 1 - n, time - n) if backwards else (n, n - 1)


@compiled
def _read(x: Array, of_input: Array, bias: Array, other_bias: Array, z: Array) -> None:
    """What a layer makes of its input (T, B, I), with both biases, in ``z``."""
    z[:] = bias + other_bias
    add_product(_rows(x), _turned(of_input), _rows(z))


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
    x: Array,
    of_input: Array,
    of_state: Array,
    bias: Array,
    other_bias: Array,
    first: int,
    backwards: bool,
    h: Array,
    gates: Array,
    c: Array,
) -> None:
    """Long short-term memory from zeros, in one direction.

    Parameters
    ----------
    x : (T, B, I).
    of_input, of_state : (4 H, I) and (4 H, H), for i, f, g and o.
    bias, other_bias : (4 H,).
    h : (T, B, D H); units of this direction are written.
    gates, c : (T, B, 4 H) and (T, B, H), written: gates and cell states.
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    _read(x, of_input, bias, other_bias, gates)
    turned = _turned(of_state)
    for n in range(time):
        t, s = _step(n, time, backwards)
        if n > 0:
            add_product(h[s, :, first : first + units], turned, gates[t])
        for b in range(batch):
            row = gates[t, b]
            _sigmoid_of(row[: 2 * units])
            _tanh_of(row[2 * units : 3 * units])
            _sigmoid_of(row[3 * units :])
            before = c[s, b] if n > 0 else nothing
            _cell(row, before, c[t, b], h[t, b, first : first + units])


@compiled
def rnn(
    x: Array,
    of_input: Array,
    of_state: Array,
    bias: Array,
    other_bias: Array,
    first: int,
    backwards: bool,
    h: Array,
) -> None:
    """``h_t = tanh(W x_t + V h_s + biases)``, s the step before, in one direction.

    Parameters
    ----------
    x : (T, B, I).
    of_input, of_state : W (H, I) and V (H, H).
    bias, other_bias : (H,).
    h : (T, B, D H); units of this direction are written.
    """
    time, batch, units = len(x), x.shape[1], len(of_state)
    z = np.empty((time, batch, units), x.dtype)
    _read(x, of_input, bias, other_bias, z)
    turned = _turned(of_state)
    for n in range(time):
        t, s = _step(n, time, backwards)
        if n > 0:
            add_product(h[s, :, first : first + units], turned, z[t])
        for b in range(batch):
            _tanh_of(z[t, b])
            h[t, b, first : first + units] = z[t, b]


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
    of_input: Array,
    of_state: Array,
    first: int,
    backwards: bool,
    h: Array,
    gates: Array,
    c: Array,
    of_x: Array,
    of_weights: Array,
    of_recurrent: Array,
    of_bias: Array,
) -> None:
    """Gradients of :func:`lstm`.

    Parameters
    ----------
    of_h : (T, B, D H), gradient of its output; units of this direction are overwritten.
    x, of_input, of_state, h, gates, c : what it was given, and what it left.
    of_x, of_weights, of_recurrent, of_bias : gradients of input, weights and of either bias, added
        to; not of one that has size 0.
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    of_c = np.zeros((batch, units), c.dtype)
    of_z = np.empty(gates.shape, c.dtype)
    for n in range(time - 1, -1, -1):
        t, s = _step(n, time, backwards)
        for b in range(batch):
            before = c[s, b] if n > 0 else nothing
            own = of_h[t, b, first : first + units]
            _of_cell(gates[t, b], before, c[t, b], own, of_c[b], of_z[t, b])
        if n > 0:
            add_product(of_z[t], of_state, of_h[s, :, first : first + units])
    _of_layer(of_z, x, of_input, first, backwards, h, of_x, of_weights, of_recurrent, of_bias)


@compiled
def _of_tanh(h: Array, of_h: Array, of_z: Array) -> None:
    one = h.dtype.type(1)
    for k in range(len(h)):
        of_z[k] = of_h[k] * (one - h[k] * h[k])


@compiled
def rnn_gradient(
    of_h: Array,
    x: Array,
    of_input: Array,
    of_state: Array,
    first: int,
    backwards: bool,
    h: Array,
    of_x: Array,
    of_weights: Array,
    of_recurrent: Array,
    of_bias: Array,
) -> None:
    """Gradients of :func:`rnn`; as :func:`lstm_gradient`."""
    time, batch, units = len(x), x.shape[1], len(of_state)
    of_z = np.empty((time, batch, units), x.dtype)
    for n in range(time - 1, -1, -1):
        t, s = _step(n, time, backwards)
        for b in range(batch):
            own = slice(first, first + units)
            _of_tanh(h[t, b, own], of_h[t, b, own], of_z[t, b])
        if n > 0:
            add_product(of_z[t], of_state, of_h[s, :, first : first + units])
    _of_layer(of_z, x, of_input, first, backwards, h, of_x, of_weights, of_recurrent, of_bias)


@compiled
def _of_layer(
    of_z: Array,
    x: Array,
    of_input: Array,
    first: int,
    backwards: bool,
    h: Array,
    of_x: Array,
    of_weights: Array,
    of_recurrent: Array,
    of_bias: Array,
) -> None:
    """What the gradient before the activations (T, B, ...) gives to all that made them."""
    rows, batch = _rows(of_z), x.shape[1]
    if of_x.size > 0:
        add_product(rows, of_input, _rows(of_x))
    if of_weights.size > 0:
        add_product(rows.T, _rows(x), of_weights)
    if of_recurrent.size > 0:
        states = _rows(h)[:, first : first + of_recurrent.shape[1]]
        if backwards:
            add_product(rows[: len(rows) - batch].T, states[batch:], of_recurrent)
        else:
            add_product(rows[batch:].T, states[: len(rows) - batch], of_recurrent)
    if of_bias.size > 0:
        for row in rows:
            for k in range(len(row)):
                of_bias[k] += row[k]


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
def attend(
    h: Array,
    score: Array,
    score_bias: Array,
    project: Array,
    project_bias: Array,
    out: Array,
    shares: Array,
    context: Array,
) -> None:
    """Join the context of an attention over time to every step, and project both.

    Parameters
    ----------
    h : (T, B, D).
    score, score_bias : (1, D) and (1,), of each step.
    project, project_bias : (H, 2 D), for the step and the context, and (H,).
    out : (T, B, H), written.
    shares : (T, B), written: softmax of the scores over time.
    context : (B, D), written: sum of the steps by their shares.
    """
    time, batch, width = h.shape
    context[:] = h.dtype.type(0)
    for b in range(batch):
        for t in range(time):
            shares[t, b] = dot(h[t, b], score[0]) + score_bias[0]
        own = shares[:, b]
        own[:] = np.exp(own - own.max())
        own /= own.sum()
        for t in range(time):
            add_scaled(h[t, b], shares[t, b], context[b])
    of_step, of_context = _turned(project[:, :width]), _turned(project[:, width:])
    out[0] = project_bias
    add_product(context, of_context, out[0])  # the same at every step
    out[1:] = out[0]
    add_product(_rows(h), of_step, _rows(out))


@compiled
def attend_gradient(
    of_out: Array,
    h: Array,
    score: Array,
    project: Array,
    shares: Array,
    context: Array,
    of_h: Array,
    of_score: Array,
    of_score_bias: Array,
    of_project: Array,
    of_project_bias: Array,
) -> None:
    """Gradients of :func:`attend`.

    Parameters
    ----------
    of_out : (T, B, H).
    of_h : (T, B, D), written.
    of_score, of_score_bias, of_project, of_project_bias : added to; not to one of size 0.
    """
    time, batch, width = h.shape
    of_total = np.zeros(of_out.shape[1:], h.dtype)
    for t in range(time):
        of_total += of_out[t]
    of_context = np.zeros((batch, width), h.dtype)
    add_product(of_total, project[:, width:], of_context)
    of_h[:] = h.dtype.type(0)
    add_product(_rows(of_out), project[:, :width], _rows(of_h))
    if of_project.size > 0:
        add_product(_rows(of_out).T, _rows(h), of_project[:, :width])
        add_product(of_total.T, context, of_project[:, width:])
    if of_project_bias.size > 0:
        for b in range(batch):
            of_project_bias += of_total[b]
    of_shares = np.empty(time, h.dtype)
    for b in range(batch):
        mean = h.dtype.type(0)
        for t in range(time):
            of_shares[t] = dot(of_context[b], h[t, b])
            mean += shares[t, b] * of_shares[t]
        for t in range(time):
            of_one = shares[t, b] * (of_shares[t] - mean)
            add_scaled(of_context[b], shares[t, b], of_h[t, b])
            add_scaled(score[0], of_one, of_h[t, b])
            if of_score.size > 0:
                add_scaled(h[t, b], of_one, of_score[0])
            if of_score_bias.size > 0:
                of_score_bias[0] += of_one
