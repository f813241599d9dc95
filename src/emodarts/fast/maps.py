"""Loops over maps, compiled by numba: what CNN cells do on a CPU.

Maps are contiguous arrays ``(B, C, F, T)``, float32 or float64. Every kernel works on the
utterances from ``first`` to before ``last``, reads and writes nothing of others, and holds no lock
of Python: :func:`in_parallel` gives each thread its share, so that results do not depend on the
number of threads. Sums over positions are made in the type of the maps over a block and in
float64 over blocks.

For a convolution a channel lies in one array with ``P`` zeros before each of its frequencies, which
end the one before, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from emodarts.fast.convolution import SPARE, convolve, correlate
from emodarts.fast.jit import Array, Kernel, add_product, compiled
from emodarts.fast.threads import in_threads

#: Positions that a loop over channels stays at, so that they are in the first cache.
_BLOCK = 1024
#: Bytes of maps that calls in a row share, so that they are in the second cache.
_CACHE = 2**20


class Stage(NamedTuple):
    """ReLU of ``matrix x + bias``, depthwise convolution, and sums of its result."""

    x: Array  # (B, C, F, T)
    matrix: Array  # (D, C); of size 0: ReLU of x itself, with D = C
    bias: Array  # (D,), or of size 0
    kernel: Array  # (D, k, k) with k of 3 or 5; as much is padded as keeps the size
    step: int  # 1, or without a matrix 2, to read every other position of x
    stride: int  # 1 or 2
    dilation: int  # 1 or, with stride 1, 2; what has both is the ordinary one with step 2
    out: Array  # (B, D, ceil(F / step / stride), ...), written
    sums: Array  # (B, D), float64; sums over positions are added
    products: Array  # (B, D, D), float64; as sums, of products of channels
    summed: bool  # whether sums are asked for


class StageGradient(NamedTuple):
    """Gradients of a stage; ``of_products d + of_sums`` is what comes by way of its sums."""

    gradient: Array  # of the result d, without what comes by way of its sums; overwritten
    stage: Stage  # as it was called, with its result
    of_products: Array  # (D, D), symmetric
    of_sums: Array  # (D,)
    of_x: Array  # (B, C, F, T); added to, or written if there is a matrix
    of_matrix: Array  # (B, D, C), float64; added to, as the next ones
    of_bias: Array  # (B, D)
    of_kernel: Array  # (B, D, k, k)
    with_kernel: bool  # whether that of the kernel is asked for


class Moments(NamedTuple):
    """Sums of maps and of the products of their channels, over positions."""

    maps: Array  # (B, C, F, T)
    sums: Array  # (B, C), float64, added to
    products: Array  # (B, C, C), float64, added to


class MomentsGradient(NamedTuple):
    """Gradient of maps by way of their sums: ``of_products maps + of_sums``."""

    maps: Array  # (B, C, F, T)
    of_products: Array  # (C, C), symmetric
    of_sums: Array  # (C,)
    of_maps: Array  # as the maps, written


class Pools(NamedTuple):
    """Maximum and mean of 3 x 3 neighbours, or their gradients."""

    x: Array  # (B, C, F, T)
    stride: int  # 1 or 2
    shares: Array  # (F', T'): one over the number of neighbours that are there
    highest: Array  # (B, C, ceil(F / stride), ceil(T / stride)), written, or their gradient
    means: Array  # as highest
    of_x: Array  # of a gradient: as x, written


@dataclass
class Term:
    """Maps in the sum of a node, times a matrix or a factor of each channel."""

    maps: Array  # (B, C, F, T)
    matrix: Array  # (D, C), or factors (D,) with D = C
    bias: Array  # (D,), added to each position
    factors: Array | None = None  # (B,): of the whole term, for each utterance
    of_maps: Any = None  # takes the gradient of the maps
    added: bool = False  # whether it is added there, or written


def in_parallel(kernel: Kernel, calls: Sequence[tuple[Any, ...]]) -> None:
    """Call ``kernel(first, last, call)`` for all calls, whose first entry is of B utterances.

    A thread takes a few utterances through all calls before it takes the next ones.
    """
    if not calls:
        return
    x = calls[0][0]

    def take(first: int, last: int) -> None:
        for call in calls:
            kernel(first, last, call)

    _shared_out(take, len(x), _CACHE * len(x) // x.nbytes)


def _shared_out(work: Any, n: int, most: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(n)`` of not more than ``most``."""
    size = max(1, min(most, -(-n // torch.get_num_threads())))
    in_threads(lambda first: work(first, min(first + size, n)), range(0, n, size))


@compiled
def _spread(row: Array, turned: Array, width: int, odd: int, out: Array) -> None:
    """Transpose of a convolution with stride 2: even rows, and odd ones from ``odd`` on.

    ``row``: gradients at every other column of padded rows, after one row of zeros.
    """
    out[:] = row.dtype.type(0)
    size, pad = len(turned), (len(turned) - 1) // 2
    for half in range(2):
        target = out[half * odd : half * odd + odd]
        for i in range(size):
            # Of the kernel itself, row size - 1 - i; it meets even or odd rows only.
            distance = half + pad - (size - 1 - i)
            if distance % 2 == 0:
                for j in range(size):
                    source, k = row[(1 + distance // 2) * width + j :], turned[i, j]
                    for n in range(len(target)):
                        target[n] += k * source[n]


@compiled
def _add_product(matrix: Array, x: Array, out: Array) -> None:
    """Add ``matrix @ x`` to ``out``: (D, C), (C, N), (D, N)."""
    for begin in range(0, x.shape[1], _BLOCK):
        add_product(matrix, x[:, begin : begin + _BLOCK], out[:, begin : begin + _BLOCK])


@compiled
def _add_outer(x: Array, y: Array, out: Array, symmetric: bool) -> None:
    """Add ``x @ y.T`` to ``out``: (C, N), (D, N), (C, D); ``symmetric`` if ``x`` is ``y``."""
    zero = x.dtype.type(0)
    rows, columns = len(x), len(y)
    whole_rows, whole = rows // 4 * 4, columns // 4 * 4
    for begin in range(0, x.shape[1], _BLOCK):
        end = min(x.shape[1], begin + _BLOCK)
        for c in range(0, whole_rows, 4):
            x0, x1 = x[c, begin:end], x[c + 1, begin:end]
            x2, x3 = x[c + 2, begin:end], x[c + 3, begin:end]
            for d in range(c if symmetric else 0, whole, 4):
                y0, y1 = y[d, begin:end], y[d + 1, begin:end]
                y2, y3 = y[d + 2, begin:end], y[d + 3, begin:end]
                a0, a1, a2, a3 = zero, zero, zero, zero
                b0, b1, b2, b3 = zero, zero, zero, zero
                c0, c1, c2, c3 = zero, zero, zero, zero
                d0, d1, d2, d3 = zero, zero, zero, zero
                for n in range(end - begin):
                    p, q, r, s = y0[n], y1[n], y2[n], y3[n]
                    a0 += x0[n] * p
                    a1 += x0[n] * q
                    a2 += x0[n] * r
                    a3 += x0[n] * s
                    b0 += x1[n] * p
                    b1 += x1[n] * q
                    b2 += x1[n] * r
                    b3 += x1[n] * s
                    c0 += x2[n] * p
                    c1 += x2[n] * q
                    c2 += x2[n] * r
                    c3 += x2[n] * s
                    d0 += x3[n] * p
                    d1 += x3[n] * q
                    d2 += x3[n] * r
                    d3 += x3[n] * s
                _add_four(out[c], d, a0, a1, a2, a3)
                _add_four(out[c + 1], d, b0, b1, b2, b3)
                _add_four(out[c + 2], d, c0, c1, c2, c3)
                _add_four(out[c + 3], d, d0, d1, d2, d3)
        for c in range(rows):
            v = x[c, begin:end]
            for d in range(whole if c < whole_rows else c if symmetric else 0, columns):
                w, total = y[d, begin:end], zero
                for n in range(end - begin):
                    total += v[n] * w[n]
                out[c, d] += total
    if symmetric:
        for c in range(rows):
            for d in range(c):
                out[c, d] = out[d, c]


@compiled
def _add_four(row: Array, c: int, p: Any, q: Any, r: Any, s: Any) -> None:
    row[c] += p
    row[c + 1] += q
    row[c + 2] += r
    row[c + 3] += s


@compiled
def _add_sums(x: Array, out: Array) -> None:
    """Add the sum of each row of ``x`` to ``out``."""
    for begin in range(0, x.shape[1], _BLOCK):
        end = min(x.shape[1], begin + _BLOCK)
        for c in range(x.shape[0]):
            v, s = x[c, begin:end], x.dtype.type(0)
            for n in range(end - begin):
                s += v[n]
            out[c] += s


@compiled
def _fill(x: Array, values: Array) -> None:
    for c in range(x.shape[0]):
        x[c] = values[c]


@compiled
def _pad_rectified(x: Array, step: int, pad: int, width: int, odd: int, out: Array) -> None:
    """ReLU of every ``step``-th position of ``x`` (F, T) in padded rows of a width; NaN stays.

    With ``odd``, rows lie by turns from 0 and from there on.
    """
    zero = x.dtype.type(0)
    for f in range((x.shape[0] + step - 1) // step):
        r = f + pad
        begin = (r * width if odd == 0 else r % 2 * odd + r // 2 * width) + pad
        source, target = x[step * f], out[begin:]
        if step == 1:
            for t in range(len(source)):
                v = source[t]
                target[t] = zero if v < zero else v
        else:
            for t in range((len(source) + 1) // 2):
                v = source[2 * t]
                target[t] = zero if v < zero else v


@compiled
def _pad(x: Array, pad: int, stride: int, width: int, out: Array) -> None:
    """``x`` (F, T), at every ``stride``-th position of padded rows of a width."""
    for f in range(x.shape[0]):
        begin = (stride * f + pad) * width + pad
        source, target = x[f], out[begin:]
        if stride == 1:
            for t in range(len(source)):
                target[t] = source[t]
        else:
            for t in range(len(source)):
                target[2 * t] = source[t]


@compiled
def _take(row: Array, row_stride: int, stride: int, width: int, out: Array) -> None:
    """Every ``row_stride``-th row of a width, and every ``stride``-th column -> (F, T)."""
    for f in range(out.shape[0]):
        source, target = row[row_stride * f * width :], out[f]
        if stride == 1:
            for t in range(len(target)):
                target[t] = source[t]
        else:
            for t in range(len(target)):
                target[t] = source[2 * t]


@compiled
def _flat(x: Array) -> Array:
    """``(C, F, T)`` -> ``(C, F T)``."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2])


@compiled
def _add_of_moments(maps: Array, of_products: Array, of_sums: Array, out: Array) -> None:
    """Add what comes by way of sums to a gradient: (C, F T), (C, C), (C,), (C, F T)."""
    for c in range(len(out)):
        row, v = out[c], of_sums[c]
        for n in range(len(row)):
            row[n] += v
    _add_product(of_products, maps, out)


@compiled
def moments(first: int, last: int, call: Moments) -> None:
    """See :class:`Moments`."""
    for b in range(first, last):
        maps = _flat(call.maps[b])
        _add_sums(maps, call.sums[b])
        _add_outer(maps, maps, call.products[b], True)


@compiled
def moments_gradient(first: int, last: int, call: MomentsGradient) -> None:
    """See :class:`MomentsGradient`."""
    for b in range(first, last):
        of_maps = _flat(call.of_maps[b])
        of_maps[:] = call.maps.dtype.type(0)
        _add_of_moments(_flat(call.maps[b]), call.of_products, call.of_sums, of_maps)


@compiled
def depthwise(first: int, last: int, stage: Stage) -> None:
    """See :class:`Stage`."""
    x, kernel, out, step, stride = stage.x, stage.kernel, stage.out, stage.step, stage.stride
    rows, columns = (x.shape[2] + step - 1) // step, (x.shape[3] + step - 1) // step
    pad = stage.dilation * (kernel.shape[1] - 1) // 2
    width = columns + pad
    odd = (rows // 2 + pad + 1) * width if stride == 2 else 0
    padded = np.zeros((rows + 2 * pad + 2) * width + 2 * pad + SPARE, x.dtype)
    all_columns = np.empty((out.shape[2], columns), x.dtype)
    affine = stage.matrix.size > 0
    z = np.empty((len(kernel) if affine else 0, rows, columns), x.dtype)
    for b in range(first, last):
        if affine:
            zs = _flat(z)  # (D, F T)
            _fill(zs, stage.bias)
            _add_product(stage.matrix, _flat(x[b]), zs)
        for c in range(len(kernel)):
            _pad_rectified(z[c] if affine else x[b, c], step, pad, width, odd, padded)
            target = out[b, c] if stride == 1 else all_columns
            convolve(padded, width, odd, kernel[c], stage.dilation, columns, target)
            if stride == 2:
                _take(all_columns.reshape(all_columns.size), 1, 2, columns, out[b, c])
        if stage.summed:
            maps = _flat(out[b])
            _add_sums(maps, stage.sums[b])
            _add_outer(maps, maps, stage.products[b], True)


@compiled
def depthwise_gradient(first: int, last: int, of: StageGradient) -> None:
    """See :class:`StageGradient`."""
    stage = of.stage
    x, step, stride, dilation = stage.x, stage.step, stage.stride, stage.dilation
    turned = np.ascontiguousarray(stage.kernel[:, ::-1, ::-1])
    rows, columns = (x.shape[2] + step - 1) // step, (x.shape[3] + step - 1) // step
    pad = dilation * (turned.shape[1] - 1) // 2
    width = columns + pad
    zero = x.dtype.type(0)
    halved = (rows + 1) // 2
    odd = (rows // 2 + pad + 1) * width if stride == 2 else 0
    padded = np.zeros((rows + 2 * pad + 2) * width + 2 * pad + SPARE, x.dtype)
    padded_gradient = np.zeros(len(padded), x.dtype)
    flat = np.empty(2 * halved * width, x.dtype)
    affine = stage.matrix.size > 0
    back = np.ascontiguousarray(stage.matrix.T)
    z = np.empty((len(turned) if affine else 0, rows, columns), x.dtype)
    of_z = np.empty(z.shape, x.dtype)
    for b in range(first, last):
        total = of.gradient[b]  # (D, F', T')
        _add_of_moments(_flat(stage.out[b]), of.of_products, of.of_sums, _flat(total))
        if affine:
            zs = _flat(z)
            _fill(zs, stage.bias)
            _add_product(stage.matrix, _flat(x[b]), zs)
        for c in range(len(turned)):
            if stride == 1:
                _pad(total[c], pad, 1, width, padded_gradient)
                found_rows = flat[: rows * width].reshape(rows, width)
                convolve(padded_gradient, width, 0, turned[c], dilation, columns, found_rows)
                inner = padded_gradient[pad * width + pad :]
            else:
                for f in range(total.shape[1]):
                    target, strided = padded_gradient[(f + 1) * width + pad :], total[c, f]
                    for t in range(len(strided)):
                        target[2 * t] = strided[t]
                _spread(padded_gradient, turned[c], width, halved * width, flat)
                inner = padded_gradient[width + pad :]
            source = z[c] if affine else x[b, c]
            if of.with_kernel:
                _pad_rectified(source, step, pad, width, odd, padded)
                size, found = total.shape[1], of.of_kernel[b, c]
                correlate(padded, width, odd, inner, dilation, size, columns, found)
            for f in range(rows):
                begin = f * width if stride == 1 else (f % 2 * halved + f // 2) * width
                s, g = source[step * f], flat[begin : begin + columns]
                if affine:
                    t = of_z[c, f]
                    for n in range(columns):
                        t[n] = g[n] if s[n] > zero else zero
                elif step == 1:
                    t = of.of_x[b, c, f]
                    for n in range(columns):
                        t[n] += g[n] if s[n] > zero else zero
                else:
                    t = of.of_x[b, c, 2 * f]
                    for n in range(columns):
                        t[2 * n] += g[n] if s[2 * n] > zero else zero
        if affine:
            found, of_zs = _flat(of.of_x[b]), _flat(of_z)
            found[:] = zero
            _add_product(back, of_zs, found)
            _add_sums(of_zs, of.of_bias[b])
            _add_outer(of_zs, _flat(x[b]), of.of_matrix[b], False)


@compiled
def _mix(x: Array, matrix: Array, out: Array) -> None:
    """Add ``matrix x`` to ``out``, of one utterance: (C, F, T), (D, C), (D, F, T)."""
    _add_product(matrix, _flat(x), _flat(out))


@compiled
def _mix_scaled(x: Array, factors: Array, out: Array) -> None:
    """As above, of factors (C,)."""
    xs, outs = _flat(x), _flat(out)
    for c in range(len(xs)):
        source, target, factor = xs[c], outs[c], factors[c]
        for n in range(len(source)):
            target[n] += factor * source[n]


@compiled
def _unmix(
    gradient: Array, x: Array, back: Array, of_x: Array, added: bool, of_matrix: Array
) -> None:
    """Gradients of :func:`_mix` with ``back`` its matrix transposed."""
    of_xs, gradients = _flat(of_x), _flat(gradient)
    if not added:
        of_xs[:] = x.dtype.type(0)
    _add_product(back, gradients, of_xs)
    _add_outer(gradients, _flat(x), of_matrix, False)


@compiled
def _unmix_scaled(
    gradient: Array, x: Array, factors: Array, of_x: Array, added: bool, of_factors: Array
) -> None:
    """Gradients of :func:`_mix_scaled`."""
    xs, of_xs, gradients = _flat(x), _flat(of_x), _flat(gradient)
    for c in range(len(xs)):
        source, target, g, factor = xs[c], of_xs[c], gradients[c], factors[c]
        if added:
            for n in range(len(source)):
                target[n] += factor * g[n]
        else:
            for n in range(len(source)):
                target[n] = factor * g[n]
        for begin in range(0, len(source), _BLOCK):
            v, w, total = source[begin:], g[begin:], x.dtype.type(0)
            for n in range(min(len(v), _BLOCK)):
                total += v[n] * w[n]
            of_factors[c] += total


@compiled
def _total(x: Array, out: Array) -> None:
    _add_sums(_flat(x), out)


def mix(terms: Sequence[Term], out: Array) -> None:
    """Sum of terms, written to ``out`` (B, D, F, T).

    One utterance after the other, so that its sum stays in the caches.
    """
    matrices = [term.matrix.astype(out.dtype) for term in terms]

    def share(b: int, _: int) -> None:
        parts = [t.bias if t.factors is None else t.bias * t.factors[b] for t in terms]
        out[b] = np.sum(parts, axis=0)[:, None, None]
        for term, matrix in zip(terms, matrices, strict=True):
            if term.factors is not None:
                if term.factors[b] == 0.0:
                    continue
                matrix = matrix * term.factors[b]
            (_mix if matrix.ndim == 2 else _mix_scaled)(term.maps[b], matrix, out[b])

    _shared_out(share, len(out), 1)


def unmix(gradient: Array, terms: Sequence[Term]) -> list[tuple[Array, Array]]:
    """Gradients of :func:`mix`: of matrix and bias, float64; of maps, where terms say."""
    n = len(gradient)
    of_bias = np.zeros(gradient.shape[:2])
    of_matrices = [np.zeros((n, *term.matrix.shape)) for term in terms]
    backs = [np.ascontiguousarray(term.matrix.T.astype(gradient.dtype)) for term in terms]

    def share(b: int, _: int) -> None:
        g = gradient[b]
        _total(g, of_bias[b])
        for term, back, of_matrix in zip(terms, backs, of_matrices, strict=True):
            if term.factors is not None:
                if term.factors[b] == 0.0:
                    if not term.added:
                        term.of_maps[b] = 0.0
                    continue
                back = back * term.factors[b]
            kernel = _unmix if back.ndim == 2 else _unmix_scaled
            kernel(g, term.maps[b], back, term.of_maps[b], term.added, of_matrix[b])
            if term.factors is not None:
                of_matrix[b] *= term.factors[b]

    _shared_out(share, n, 1)
    factors = [np.ones(n) if term.factors is None else term.factors for term in terms]
    return [(m.sum(axis=0), f @ of_bias) for m, f in zip(of_matrices, factors, strict=True)]


@compiled
def _maxima(padded: Array, width: int, best: Array, place: Array) -> None:
    """Highest of 3 x 3 neighbours and which it is, the first of equal ones; NaN wins."""
    x, y, z = padded, padded[width:], padded[2 * width :]
    for n in range(len(best)):
        top, k = x[n], 0
        v = x[n + 1]
        top, k = (v, 1) if v > top or v != v else (top, k)
        v = x[n + 2]
        top, k = (v, 2) if v > top or v != v else (top, k)
        v = y[n]
        top, k = (v, 3) if v > top or v != v else (top, k)
        v = y[n + 1]
        top, k = (v, 4) if v > top or v != v else (top, k)
        v = y[n + 2]
        top, k = (v, 5) if v > top or v != v else (top, k)
        v = z[n]
        top, k = (v, 6) if v > top or v != v else (top, k)
        v = z[n + 1]
        top, k = (v, 7) if v > top or v != v else (top, k)
        v = z[n + 2]
        top, k = (v, 8) if v > top or v != v else (top, k)
        best[n] = top
        place[n] = k


@compiled
def _add_to_maxima(gradient: Array, place: Array, width: int, size: int, out: Array) -> None:
    """Add gradients to the positions that were highest, both in padded rows."""
    zero = gradient.dtype.type(0)
    # The neighbour that a position is to the next ones is the opposite of what they are to it.
    x, y, z = gradient[2 * width :], gradient[width:], gradient
    p, q, r = place[2 * width :], place[width:], place
    for n in range(size):
        total = x[n + 2] if p[n + 2] == 0 else zero
        total += x[n + 1] if p[n + 1] == 1 else zero
        total += x[n] if p[n] == 2 else zero
        total += y[n + 2] if q[n + 2] == 3 else zero
        total += y[n + 1] if q[n + 1] == 4 else zero
        total += y[n] if q[n] == 5 else zero
        total += z[n + 2] if r[n + 2] == 6 else zero
        total += z[n + 1] if r[n + 1] == 7 else zero
        total += z[n] if r[n] == 8 else zero
        out[n] += total


@compiled
def pools(first: int, last: int, call: Pools) -> None:
    """See :class:`Pools`."""
    x, stride = call.x, call.stride
    rows, columns = x.shape[2], x.shape[3]
    width = columns + 1
    lowest = np.full((rows + 2) * width + 2, -np.inf, x.dtype)
    padded = np.zeros(len(lowest) + SPARE, x.dtype)
    flat = np.empty(rows * width, x.dtype)
    place = np.empty(rows * width, np.int32)
    ones = np.ones((3, 3), x.dtype)
    for b in range(first, last):
        for c in range(x.shape[1]):
            _pad(x[b, c], 1, 1, width, lowest)
            _maxima(lowest, width, flat, place)
            _take(flat, stride, stride, width, call.highest[b, c])
            _pad(x[b, c], 1, 1, width, padded)
            convolve(padded, width, 0, ones, 1, columns, flat.reshape(rows, width))
            mean = call.means[b, c]
            _take(flat, stride, stride, width, mean)
            mean *= call.shares


@compiled
def pools_gradient(first: int, last: int, call: Pools) -> None:
    """Gradient of :func:`pools`."""
    x, stride = call.x, call.stride
    rows, columns = x.shape[2], x.shape[3]
    width = columns + 1
    lowest = np.full((rows + 2) * width + 2, -np.inf, x.dtype)
    padded = np.zeros(len(lowest) + SPARE, x.dtype)
    found = np.empty(rows * width, x.dtype)
    flat = np.empty(rows * width, x.dtype)
    place = np.zeros(len(lowest), np.int32)
    ones = np.ones((3, 3), x.dtype)
    for b in range(first, last):
        for c in range(x.shape[1]):
            _pad(call.means[b, c] * call.shares, 1, stride, width, padded)
            convolve(padded, width, 0, ones, 1, columns, found.reshape(rows, width))
            _pad(x[b, c], 1, 1, width, lowest)
            _maxima(lowest, width, flat, place[width + 1 :])
            _pad(call.highest[b, c], 1, stride, width, padded)
            _add_to_maxima(padded, place, width, len(flat), found)
            _take(found, 1, 1, width, call.of_x[b, c])
