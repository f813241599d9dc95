"""Recurrent layers over time on a CPU, compiled by numba.

A sequence is an array ``(T, B, ...)``, float32 or float64. What a layer makes of its input, one
large product, is given; these loops go through time with a product of a few utterances and the
recurrent weights at each step. They hold no lock of Python.

The two directions of a layer write to one output ``(T, B, D H)``: units from ``first`` on are those
of a direction. It goes ``backwards`` from the last step, or forwards.
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
def _sigmoid_of(x: Array, bias: Array) -> None:
    half = x.dtype.type(0.5)
    for k in range(len(x)):
        x[k] = half + half * _tanh(half * (x[k] + bias[k]))


@compiled
def _tanh_of(x: Array, bias: Array) -> None:
    for k in range(len(x)):
        x[k] = _tanh(x[k] + bias[k])


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
    z: Array, bias: Array, weights: Array, first: int, backwards: bool, h: Array, c: Array
) -> None:
    """Long short-term memory: i, f, g and o as in ``torch.nn.LSTM``, from zeros.

    Parameters
    ----------
    z : (T, B, 4 H), products of inputs and weights; becomes the gates.
    bias : (4 H,).
    weights : recurrent weights, turned (H, 4 H).
    h : (T, B, D H); units of this direction are written.
    c : (T, B, H), written: cell states.
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    for n in range(time):
        t = time - 1 - n if backwards else n
        s = t + 1 if backwards else t - 1
        if n > 0:
            add_product(h[s, :, first : first + units], weights, z[t])
        for b in range(batch):
            row = z[t, b]
            _sigmoid_of(row[: 2 * units], bias)
            _tanh_of(row[2 * units : 3 * units], bias[2 * units :])
            _sigmoid_of(row[3 * units :], bias[3 * units :])
            before = c[s, b] if n > 0 else nothing
            _cell(row, before, c[t, b], h[t, b, first : first + units])


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
    of_h: Array, gates: Array, c: Array, weights: Array, first: int, backwards: bool, of_z: Array
) -> None:
    """Gradient of :func:`lstm`.

    Parameters
    ----------
    of_h : (T, B, D H), gradient of its output; units of this direction are overwritten.
    gates, c : what it left.
    weights : recurrent weights (4 H, H).
    of_z : (T, B, 4 H), written.
    """
    time, batch, units = c.shape
    nothing = np.zeros(units, c.dtype)
    of_c = np.zeros((batch, units), c.dtype)
    for n in range(time):
        t = n if backwards else time - 1 - n
        s = t + 1 if backwards else t - 1
        for b in range(batch):
            before = c[s, b] if n < time - 1 else nothing
            own = of_h[t, b, first : first + units]
            _of_cell(gates[t, b], before, c[t, b], own, of_c[b], of_z[t, b])
        if n < time - 1:
            add_product(of_z[t], weights, of_h[s, :, first : first + units])


@compiled
def rnn(z: Array, bias: Array, weights: Array, first: int, backwards: bool, h: Array) -> None:
    """``h_t = tanh(z_t + bias + h_s W^T)``, s the step before.

    Parameters
    ----------
    z : (T, B, H), products of inputs and weights; is overwritten.
    bias : (H,).
    weights : recurrent weights, turned (H, H).
    h : (T, B, D H); units of this direction are written.
    """
    time, batch, units = z.shape
    for n in range(time):
        t = time - 1 - n if backwards else n
        s = t + 1 if backwards else t - 1
        if n > 0:
            add_product(h[s, :, first : first + units], weights, z[t])
        for b in range(batch):
            _tanh_of(z[t, b], bias)
            h[t, b, first : first + units] = z[t, b]


@compiled
def _of_tanh(h: Array, of_h: Array, of_z: Array) -> None:
    one = h.dtype.type(1)
    for k in range(len(h)):
        of_z[k] = of_h[k] * (one - h[k] * h[k])


@compiled
def rnn_gradient(
    of_h: Array, h: Array, weights: Array, first: int, backwards: bool, of_z: Array
) -> None:
    """Gradient of :func:`rnn`.

    Parameters
    ----------
    of_h : (T, B, D H), gradient of its output; units of this direction are overwritten.
    h : its output.
    weights : recurrent weights (H, H).
    of_z : (T, B, H), written.
    """
    time, batch, units = of_z.shape
    for n in range(time):
        t = n if backwards else time - 1 - n
        s = t + 1 if backwards else t - 1
        for b in range(batch):
            own = slice(first, first + units)
            _of_tanh(h[t, b, own], of_h[t, b, own], of_z[t, b])
        if n < time - 1:
            add_product(of_z[t], weights, of_h[s, :, first : first + units])
