"""Loops over maps, compiled by numba: what the cells of ``space.compiled`` do on a CPU.

Maps are contiguous arrays ``(B, C, F, T)``, float32 or float64. Every kernel works on the
utterances from ``first`` to before ``last``, reads and writes nothing of others, and holds no lock
of Python: :func:`in_parallel` gives each thread its share, so that results do not depend on the
number of threads. Sums over positions are made in the type of the maps over a block and in
float64 over blocks.

For a convolution a channel lies in one array with ``P`` zeros before each of its frequencies, which
end the one before, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from emodarts.space.convolution import SPARE, convolve, correlate
from emodarts.space.jit import Array, Kernel, add_product, compiled
from emodarts.space.threads import in_threads

#: Positions that a loop over channels stays at, so that they are in the first cache.
_BLOCK = 1024
#: Bytes of maps that calls in a row share, so that they are in the second cache.
_CACHE = 2**20


class Term(Protocol):
    """Maps (B, C, F, T) in the sum of a node, with a matrix (D, C), or factors (k D,)."""

    maps: Array
    matrix: Array
    of_maps: Any
    """Takes the gradient of the maps."""
    added: bool
    """Whether it is added there, which factors can, or written."""
    bias: Array
    """(D,), added to each position."""
    factors: Array | None
    """Of the term, for each utterance (B,)."""


def in_parallel(kernel: Kernel, calls: Sequence[tuple[Any, ...]]) -> None:
    """Call ``kernel(first, last, *arguments)`` for all calls; the first argument has B entries.

    Each thread has its share of the utterances in all calls, and takes a few of them through all
    calls before the next.
    """

    def share(first: int, last: int) -> None:
        for begin in range(first, last, chunk):
            for arguments in calls:
                kernel(begin, min(begin + chunk, last), *arguments)

    if calls:
        x = calls[0][0]
        chunk = max(1, _CACHE * len(x) // x.nbytes)
        _shared_out(share, len(x))


def _shared_out(work: Callable[[int, int], None], n: int) -> None:
    """Call ``work(first, last)`` for shares of ``range(n)``, one for each thread."""
    shares = max(1, min(torch.get_num_threads(), n))
    ends = [n * k // shares for k in range(shares + 1)]
    in_threads(lambda k: work(ends[k], ends[k + 1]), shares)


@compiled
def _add_row_3(row: Array, k: Array, out: Array) -> None:
    a, b, c = k[0], k[1], k[2]
    for n in range(len(out)):
        out[n] += a * row[n] + b * row[n + 1] + c * row[n + 2]


@compiled
def _add_row_5(row: Array, k: Array, out: Array) -> None:
    a, b, c, d, e = k[0], k[1], k[2], k[3], k[4]
    for n in range(len(out)):
        out[n] += (a * row[n] + b * row[n + 1]) + (c * row[n + 2] + d * row[n + 3] + e * row[n + 4])


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
                begin = (1 + distance // 2) * width
                if size == 3:
                    _add_row_3(row[begin:], turned[i], target)
                else:
                    _add_row_5(row[begin:], turned[i], target)


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
def depthwise(
    first: int,
    last: int,
    x: Array,
    matrix: Array,
    bias: Array,
    kernel: Array,
    step: int,
    stride: int,
    dilation: int,
    out: Array,
    sums: Array,
    products: Array,
    with_moments: bool,
) -> None:
    """ReLU of ``matrix x + bias``, depthwise convolution, and sums for the moments of its result.

    Parameters
    ----------
    x : (B, C, F, T).
    matrix, bias : (D, C) and (D,); of size 0: ReLU of ``x`` itself.
    kernel : (D, k, k) with k of 3 or 5; as much is padded as keeps the size.
    step : 1, or 2 to read every other position of ``x``; 1 with a matrix.
    stride : 1 or 2, of both axes.
    dilation : 1 or, with stride 1, 2; what has both is the ordinary one with step 2.
    out : (B, D, ceil(F / step / stride), ...), written.
    sums, products : (B, D) and (B, D, D), float64; sums of ``out`` and of its products over
        positions are added, if asked for.
    """
    channels = x.shape[1]
    rows, columns = (x.shape[2] + step - 1) // step, (x.shape[3] + step - 1) // step
    pad = dilation * (kernel.shape[1] - 1) // 2
    width = columns + pad
    odd = (rows // 2 + pad + 1) * width if stride == 2 else 0
    padded = np.zeros((rows + 2 * pad + 2) * width + 2 * pad + SPARE, x.dtype)
    all_columns = np.empty((out.shape[2], columns), x.dtype)
    affine = matrix.size > 0
    z = np.empty((len(kernel) if affine else 0, rows, columns), x.dtype)
    zs = z.reshape(z.shape[0], rows * columns)
    for b in range(first, last):
        if affine:
            _fill(zs, bias)
            _add_product(matrix, x[b].reshape(channels, rows * columns), zs)
        for c in range(len(kernel)):
            _pad_rectified(z[c] if affine else x[b, c], step, pad, width, odd, padded)
            target = out[b, c] if stride == 1 else all_columns
            convolve(padded, width, odd, kernel[c], dilation, columns, target)
            if stride == 2:
                _take(all_columns.reshape(all_columns.size), 1, 2, columns, out[b, c])
        if with_moments:
            maps = out[b].reshape(out.shape[1], out.shape[2] * out.shape[3])
            _add_sums(maps, sums[b])
            _add_outer(maps, maps, products[b], True)


@compiled
def depthwise_gradient(
    first: int,
    last: int,
    gradient: Array,
    d: Array,
    of_products: Array,
    of_sums: Array,
    x: Array,
    matrix: Array,
    bias: Array,
    turned: Array,
    step: int,
    stride: int,
    dilation: int,
    of_x: Array,
    of_matrix: Array,
    of_bias: Array,
    of_kernel: Array,
    with_kernel: bool,
) -> None:
    """Gradients of :func:`depthwise`, whose result ``d`` was.

    Parameters
    ----------
    gradient : of the result, without what comes by way of its sums; overwritten by the whole.
    of_products, of_sums : symmetric (D, D) and (D,): ``of_products d + of_sums`` is that.
    turned : the kernel, both axes reversed.
    of_x : (B, C, F, T); added to, or written if there is a matrix.
    of_matrix, of_bias, of_kernel : (B, D, C), (B, D) and (B, D, k, k), float64; added to, the
        kernel's only if asked for.
    """
    channels = x.shape[1]
    rows, columns = (x.shape[2] + step - 1) // step, (x.shape[3] + step - 1) // step
    pad = dilation * (turned.shape[1] - 1) // 2
    width, size = columns + pad, rows * columns
    zero = x.dtype.type(0)
    halved = (rows + 1) // 2
    odd = (rows // 2 + pad + 1) * width if stride == 2 else 0
    padded = np.zeros((rows + 2 * pad + 2) * width + 2 * pad + SPARE, x.dtype)
    padded_gradient = np.zeros(len(padded), x.dtype)
    flat = np.empty(2 * halved * width, x.dtype)
    affine = matrix.size > 0
    back = np.ascontiguousarray(matrix.T)
    z = np.empty((len(turned) if affine else 0, rows, columns), x.dtype)
    zs = z.reshape(z.shape[0], size)
    of_z = np.empty(z.shape, x.dtype)
    of_zs = of_z.reshape(z.shape[0], size)
    for b in range(first, last):
        total = gradient[b]
        totals = total.reshape(total.shape[0], total.shape[1] * total.shape[2])
        for c in range(len(turned)):
            row, v = totals[c], of_sums[c]
            for n in range(len(row)):
                row[n] += v
        _add_product(of_products, d[b].reshape(totals.shape), totals)
        if affine:
            xs = x[b].reshape(channels, size)
            _fill(zs, bias)
            _add_product(matrix, xs, zs)
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
            if with_kernel:
                _pad_rectified(source, step, pad, width, odd, padded)
                correlate(
                    padded, width, odd, inner, dilation, total.shape[1], columns, of_kernel[b, c]
                )
            for f in range(rows):
                begin = f * width if stride == 1 else (f % 2 * halved + f // 2) * width
                s, g = source[step * f], flat[begin : begin + columns]
                if affine:
                    t = of_z[c, f]
                    for n in range(columns):
                        t[n] = g[n] if s[n] > zero else zero
                elif step == 1:
                    t = of_x[b, c, f]
                    for n in range(columns):
                        t[n] += g[n] if s[n] > zero else zero
                else:
                    t = of_x[b, c, 2 * f]
                    for n in range(columns):
                        t[2 * n] += g[n] if s[2 * n] > zero else zero
        if affine:
            found = of_x[b].reshape(channels, size)
            found[:] = zero
            _add_product(back, of_zs, found)
            _add_sums(of_zs, of_bias[b])
            _add_outer(of_zs, xs, of_matrix[b], False)


@compiled
def _mix(x: Array, matrix: Array, out: Array) -> None:
    """Add ``matrix x`` to ``out``, of one utterance: (C, F, T), (D, C), (D, F, T)."""
    size = x.shape[1] * x.shape[2]
    _add_product(matrix, x.reshape(x.shape[0], size), out.reshape(out.shape[0], size))


@compiled
def _mix_scaled(x: Array, factors: Array, out: Array) -> None:
    """As above, of factors (k D,): the channels are k groups of D."""
    for c in range(len(x)):
        source, target = x[c].reshape(x[c].size), out[c % len(out)].reshape(x[c].size)
        factor = factors[c]
        for n in range(len(source)):
            target[n] += factor * source[n]


@compiled
def _unmix(gradient: Array, x: Array, back: Array, of_x: Array, of_matrix: Array) -> None:
    """Gradients of :func:`_mix` with ``back`` its matrix transposed; ``of_x`` is written."""
    size = x.shape[1] * x.shape[2]
    of_xs = of_x.reshape(of_x.shape[0], size)
    gradients = gradient.reshape(gradient.shape[0], size)
    of_xs[:] = x.dtype.type(0)
    _add_product(back, gradients, of_xs)
    _add_outer(gradients, x.reshape(x.shape[0], size), of_matrix, False)


@compiled
def _unmix_scaled(
    gradient: Array, x: Array, factors: Array, of_x: Array, added: bool, of_factors: Array
) -> None:
    """Gradients of :func:`_mix_scaled`; ``of_x`` is added to or written."""
    for c in range(len(x)):
        source, target = x[c].reshape(x[c].size), of_x[c].reshape(x[c].size)
        g = gradient[c % len(gradient)].reshape(x[c].size)
        factor = factors[c]
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
    _add_sums(x.reshape(x.shape[0], x.shape[1] * x.shape[2]), out)


def mix(terms: Sequence[Term], out: Array) -> None:
    """Sum of products of maps (B, C_k, F, T) and matrices (D, C_k) and of biases -> (B, D, F, T).

    One utterance after the other, so that its sum stays in the caches.
    """
    matrices = [term.matrix.astype(out.dtype) for term in terms]

    def share(first: int, last: int) -> None:
        for b in range(first, last):
            parts = [t.bias if t.factors is None else t.bias * t.factors[b] for t in terms]
            out[b] = np.sum(parts, axis=0)[:, None, None]
            for term, matrix in zip(terms, matrices, strict=True):
                if term.factors is not None:
                    if term.factors[b] == 0.0:
                        continue
                    matrix = matrix * term.factors[b]
                (_mix if matrix.ndim == 2 else _mix_scaled)(term.maps[b], matrix, out[b])

    _shared_out(share, len(out))


def unmix(gradient: Array, terms: Sequence[Term]) -> list[tuple[Array, Array]]:
    """Gradients of :func:`mix`: of matrix and bias, float64; of maps, where terms say."""
    n = len(gradient)
    of_bias = np.zeros(gradient.shape[:2])
    of_matrices = [np.zeros((n, *term.matrix.shape)) for term in terms]
    backs = [np.ascontiguousarray(term.matrix.T.astype(gradient.dtype)) for term in terms]

    def share(first: int, last: int) -> None:
        for b in range(first, last):
            g = gradient[b]
            _total(g, of_bias[b])
            for term, back, of_matrix in zip(terms, backs, of_matrices, strict=True):
                if term.factors is not None:
                    if term.factors[b] == 0.0:
                        term.of_maps[b] = 0.0  # not added: only a matrix has factors
                        continue
                    back = back * term.factors[b]
                if back.ndim == 2:
                    _unmix(g, term.maps[b], back, term.of_maps[b], of_matrix[b])
                else:
                    _unmix_scaled(g, term.maps[b], back, term.of_maps[b], term.added, of_matrix[b])
                if term.factors is not None:
                    of_matrix[b] *= term.factors[b]

    _shared_out(share, n)
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
def pools(
    first: int,
    last: int,
    x: Array,
    stride: int,
    shares: Array,
    out: Array,
    sums: Array,
    products: Array,
) -> None:
    """Side by side: maximum and mean of 3 x 3 neighbours, and what a skip with stride 2 reads.

    Parameters
    ----------
    x : (B, C, F, T).
    stride : 1 or 2; a skip with 2 reads the ReLU of every other position, from 0 and from 1.
    shares : one over the number of neighbours that are there, at each position of the result.
    out : (B, 2 C, F, T) or (B, 4 C, ceil(F / 2), ceil(T / 2)), written.
    sums, products : as for :func:`depthwise`; products only of pairs of channels that meet in a
        matrix: those of one with itself, and of the skip's with one another.
    """
    channels, rows, columns = x.shape[1], x.shape[2], x.shape[3]
    width = columns + 1
    lowest = np.full((rows + 2) * width + 2, -np.inf, x.dtype)
    padded = np.zeros(len(lowest) + SPARE, x.dtype)
    flat = np.empty(rows * width, x.dtype)
    place = np.empty(rows * width, np.int32)
    ones = np.ones((3, 3), x.dtype)
    for b in range(first, last):
        for c in range(channels):
            _pad(x[b, c], 1, 1, width, lowest)
            _maxima(lowest, width, flat, place)
            _take(flat, stride, stride, width, out[b, c])
            _pad(x[b, c], 1, 1, width, padded)
            convolve(padded, width, 0, ones, 1, columns, flat.reshape(rows, width))
            mean = out[b, channels + c]
            _take(flat, stride, stride, width, mean)
            mean *= shares
        if stride == 2:
            _rectified_parts(x[b], 2, out[b, 2 * channels :])
        maps = out[b].reshape(out.shape[1], out.shape[2] * out.shape[3])
        _add_sums(maps, sums[b])
        for c in range(2 * channels):
            own = maps[c : c + 1]
            _add_outer(own, own, products[b, c : c + 1, c : c + 1], True)
        if stride == 2:
            skip = maps[2 * channels :]
            _add_outer(skip, skip, products[b, 2 * channels :, 2 * channels :], True)


@compiled
def pools_gradient(
    first: int,
    last: int,
    gradient: Array,
    y: Array,
    of_products: Array,
    of_sums: Array,
    x: Array,
    stride: int,
    shares: Array,
    of_x: Array,
) -> None:
    """Gradient of :func:`pools`, whose result ``y`` was; ``of_x`` is written."""
    channels, rows, columns = x.shape[1], x.shape[2], x.shape[3]
    width = columns + 1
    lowest = np.full((rows + 2) * width + 2, -np.inf, x.dtype)
    padded = np.zeros(len(lowest) + SPARE, x.dtype)
    found = np.empty(rows * width, x.dtype)
    flat = np.empty(rows * width, x.dtype)
    place = np.zeros(len(lowest), np.int32)
    ones = np.ones((3, 3), x.dtype)
    of_parts = np.empty(x.shape[1:], x.dtype)
    total = np.empty(y.shape[1:], x.dtype)
    totals = total.reshape(total.shape[0], total.shape[1] * total.shape[2])
    for b in range(first, last):
        maps = y[b].reshape(totals.shape)
        for c in range(len(totals)):
            v, source, target = of_sums[c], gradient[b, c], total[c]
            for f in range(source.shape[0]):
                for t in range(source.shape[1]):
                    target[f, t] = source[f, t] + v
            if c < 2 * channels:
                scale, row, plus = of_products[c, c], maps[c], totals[c]
                for n in range(len(row)):
                    plus[n] += scale * row[n]
        if stride == 2:
            of_skip = np.ascontiguousarray(of_products[2 * channels :, 2 * channels :])
            _add_product(of_skip, maps[2 * channels :], totals[2 * channels :])
        for c in range(channels):
            total[channels + c] *= shares
            _pad(total[channels + c], 1, stride, width, padded)
            convolve(padded, width, 0, ones, 1, columns, found.reshape(rows, width))
            _pad(x[b, c], 1, 1, width, lowest)
            _maxima(lowest, width, flat, place[width + 1 :])
            _pad(total[c], 1, stride, width, padded)
            _add_to_maxima(padded, place, width, len(flat), found)
            _take(found, 1, 1, width, of_x[b, c])
        if stride == 2:
            _of_rectified_parts(total[2 * channels :], x[b], 2, of_parts)
            of_x[b] += of_parts


@compiled
def _rectified_parts(x: Array, stride: int, out: Array) -> None:
    """ReLU of ``x`` (C, F, T), or of its positions from 0 and from 1 on, every other one."""
    zero = x.dtype.type(0)
    channels, rows, columns = x.shape
    for c in range(channels):
        if stride == 1:
            source, target = x[c].reshape(rows * columns), out[c].reshape(rows * columns)
            for n in range(len(source)):
                v = source[n]
                target[n] = zero if v < zero else v
            continue
        for k in range(2):
            y = out[k * channels + c]
            y[:] = zero
            for f in range((rows - k + 1) // 2):
                source, target = x[c, 2 * f + k, k:], y[f]
                for t in range((columns - k + 1) // 2):
                    v = source[2 * t]
                    target[t] = zero if v < zero else v


@compiled
def _of_rectified_parts(gradient: Array, x: Array, stride: int, out: Array) -> None:
    """Gradient of the above; ``out`` (C, F, T) is written."""
    zero = x.dtype.type(0)
    channels, rows, columns = x.shape
    for c in range(channels):
        if stride == 1:
            g, s = gradient[c].reshape(rows * columns), x[c].reshape(rows * columns)
            target = out[c].reshape(rows * columns)
            for n in range(len(target)):
                target[n] = g[n] if s[n] > zero else zero
            continue
        out[c] = zero
        for k in range(2):
            y = gradient[k * channels + c]
            for f in range((rows - k + 1) // 2):
                source, target, g = x[c, 2 * f + k, k:], out[c, 2 * f + k, k:], y[f]
                for t in range((columns - k + 1) // 2):
                    target[2 * t] = g[t] if source[2 * t] > zero else zero


@compiled
def project(
    first: int,
    last: int,
    x: Array,
    stride: int,
    matrix: Array,
    out: Array,
    sums: Array,
    squares: Array,
) -> None:
    """Product of a matrix and the ReLU of maps.

    Parameters
    ----------
    x : (B, C, F, T).
    stride : 1: of all positions; 2: of every other from 0 and from 1 on, as channels.
    matrix : (D, C) or (D, 2 C).
    out : (B, D, ceil(F / stride), ceil(T / stride)), written.
    sums, squares : (B, D), float64; sums of the result and its squares are added.
    """
    size = out.shape[2] * out.shape[3]
    parts = np.empty((matrix.shape[1], out.shape[2], out.shape[3]), x.dtype)
    for b in range(first, last):
        _rectified_parts(x[b], stride, parts)
        y = out[b].reshape(out.shape[1], size)
        y[:] = x.dtype.type(0)
        _add_product(matrix, parts.reshape(len(parts), size), y)
        _add_sums(y, sums[b])
        for c in range(len(y)):
            _add_squares(y[c], squares[b, c : c + 1])


@compiled
def _add_squares(x: Array, out: Array) -> None:
    for begin in range(0, len(x), _BLOCK):
        v, total = x[begin:], x.dtype.type(0)
        for n in range(min(len(v), _BLOCK)):
            total += v[n] * v[n]
        out[0] += total


@compiled
def scale(first: int, last: int, x: Array, factors: Array, summands: Array) -> None:
    """``factor x + summand`` of each channel in place: (B, C, F, T), (C,), (C,)."""
    for b in range(first, last):
        for c in range(x.shape[1]):
            row, factor, summand = x[b, c].reshape(x[b, c].size), factors[c], summands[c]
            for n in range(len(row)):
                row[n] = factor * row[n] + summand


@compiled
def sums_of_products(
    first: int, last: int, x: Array, y: Array, sums: Array, products: Array
) -> None:
    """Add sums of ``x`` and ``x y`` over positions: (B, C, F, T), twice; (B, C) float64, twice."""
    for b in range(first, last):
        for c in range(x.shape[1]):
            u, v = x[b, c].reshape(x[b, c].size), y[b, c].reshape(x[b, c].size)
            for begin in range(0, len(u), _BLOCK):
                p, q = u[begin:], v[begin:]
                total, product = x.dtype.type(0), x.dtype.type(0)
                for n in range(min(len(p), _BLOCK)):
                    total += p[n]
                    product += p[n] * q[n]
                sums[b, c] += total
                products[b, c] += product


@compiled
def project_gradient(
    first: int,
    last: int,
    gradient: Array,
    z: Array,
    factors: Array,
    x: Array,
    stride: int,
    back: Array,
    of_x: Array,
    of_matrix: Array,
    with_matrix: bool,
) -> None:
    """Gradients of :func:`project` whose result was brought to ``z``.

    Parameters
    ----------
    factors : (3, D); the gradient of the result is ``factors[0] gradient + factors[1] z +
        factors[2]``.
    back : the matrix transposed.
    of_x : as ``x``, written.
    of_matrix : (B, D, ...), float64; added to if asked for.
    """
    size = z.shape[2] * z.shape[3]
    parts = np.empty((len(back), z.shape[2], z.shape[3]), x.dtype)
    of_y = np.empty((z.shape[1], size), x.dtype)
    for b in range(first, last):
        for c in range(len(of_y)):
            g, v, target = gradient[b, c].reshape(size), z[b, c].reshape(size), of_y[c]
            p, q, r = factors[0, c], factors[1, c], factors[2, c]
            for n in range(size):
                target[n] = p * g[n] + q * v[n] + r
        flat = parts.reshape(len(parts), size)
        if with_matrix:
            _rectified_parts(x[b], stride, parts)
            _add_outer(of_y, flat, of_matrix[b], False)
        flat[:] = x.dtype.type(0)
        _add_product(back, of_y, flat)
        _of_rectified_parts(parts, x[b], stride, of_x[b])
