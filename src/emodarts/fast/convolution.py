"""Convolution of a map with one kernel, and its gradient by the kernel, in registers.

Several rows of a result are made at once: each vector that is loaded meets all that read it. A
map lies in rows of a width with zeros between them, in an array that ends with at least
:data:`SPARE` more; for a stride of 2 the even rows lie so, and the odd ones from ``odd`` on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from emodarts.fast.jit import SUMS, VECTOR_BYTES, Array, Kernel, Vectors, compiled

#: Elements that are read beyond the end of a small map.
SPARE = VECTOR_BYTES // np.dtype(np.float32).itemsize


class _Taps:
    """What several rows of a result read.

    Parameters
    ----------
    size, gap : of the kernel, and the distance of its columns.
    stride : of the rows; all columns are read.
    rows : of the result, ``gap`` apart.
    """

    def __init__(self, size: int, gap: int, stride: int, rows: int) -> None:
        self.size, self.gap, self.rows = size, gap, rows
        self.readers: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """Half of the map and row in it -> rows of the result and of the kernel that meet there."""
        for row in range(rows):
            for i in range(size):
                place = (0, row + i) if stride == 1 else (i % 2, row + i // 2)
                self.readers.setdefault(place, []).append((row, i))

    def meet(
        self, v: Vectors, source: Any, odd: Any, step: Any, meeting: Callable[[Any, int, int], None]
    ) -> None:
        """Load each vector of the rows at an address once; ``meeting(vector, row, place)`` for all.

        ``place`` is that in the kernel; ``odd`` and ``step`` count bytes.
        """
        for (half, number), readers in self.readers.items():
            begin = v.plus(v.plus(source, step, number), odd, half)
            for j in range(self.size):
                vector = v.load(v.plus(begin, self.gap * v.item, j))
                for row, i in readers:
                    meeting(vector, row, i * self.size + j)


def _vectors_of_row(v: Vectors, columns: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """Number of vectors, and where one begins and how many of its lanes were in the one before.

    The last one ends where the row does.
    """
    build, lanes = v.builder, v.index(v.lanes)
    count = build.udiv(build.add(columns, v.index(v.lanes - 1)), lanes)
    last = build.sub(columns, lanes)

    def place(number: Any) -> tuple[Any, Any]:
        regular = build.mul(number, lanes)
        begin = build.select(build.icmp_signed("<", regular, last), regular, last)
        return begin, build.sub(regular, begin)

    return count, place


def _convolving(taps: _Taps) -> Kernel:
    """``(source, odd, step, kernel, columns, out, out_step)``: write rows of the result.

    Arrays have one axis but the kernel; steps from row to row and ``odd`` count elements.
    """

    def rows(
        typing: Any,
        source: Any,
        odd: Any,
        step: Any,
        kernel: Any,
        columns: Any,
        out: Any,
        out_step: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vectors(context, builder, out.dtype)
            (begin, *_), (weights, *_), (target, *_) = (
                v.opened(signature.args[n], arguments[n]) for n in (0, 3, 5)
            )
            columns = arguments[4]
            odd, step, out_step = (builder.mul(arguments[n], v.index(v.item)) for n in (1, 2, 6))
            each = [v.repeated(v.plus(weights, v.item, n)) for n in range(taps.size**2)]
            count, place = _vectors_of_row(v, columns)
            with cgutils.for_range(builder, count) as loop:
                first, _ = place(loop.index)
                sums: list[Any] = [None] * taps.rows

                def add(vector: Any, row: int, n: int) -> None:
                    total = sums[row]
                    sums[row] = (
                        builder.fmul(each[n], vector)
                        if total is None
                        else v.add_product(each[n], vector, total)
                    )

                taps.meet(v, v.plus(begin, v.item, first), odd, step, add)
                for row, total in enumerate(sums):
                    v.store(total, v.plus(v.plus(target, v.item, first), out_step, row))
            return context.get_dummy_value()

        return numba.types.void(source, odd, step, kernel, columns, out, out_step), generate

    found: Kernel = intrinsic(rows)
    return found


def _correlating(taps: _Taps) -> Kernel:
    """``(source, odd, step, gradient, gradient_step, columns, sums)``: add to sums (k k, lanes)."""

    def rows(
        typing: Any,
        source: Any,
        odd: Any,
        step: Any,
        gradient: Any,
        gradient_step: Any,
        columns: Any,
        sums: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vectors(context, builder, sums.dtype)
            (begin, *_), (of_rows, *_), (totals, *_) = (
                v.opened(signature.args[n], arguments[n]) for n in (0, 3, 6)
            )
            odd, step, gradient_step = (
                builder.mul(arguments[n], v.index(v.item)) for n in (1, 2, 4)
            )
            places = [v.plus(totals, VECTOR_BYTES, n) for n in range(taps.size**2)]
            each = [v.variable(v.load(place)) for place in places]
            number = ir.VectorType(ir.IntType(32), v.lanes)
            lanes = ir.Constant(number, list(range(v.lanes)))
            count, place_of = _vectors_of_row(v, arguments[5])
            with cgutils.for_range(builder, count) as loop:
                first, seen = place_of(loop.index)
                fresh = builder.icmp_signed(
                    ">=", lanes, v.spread(builder.trunc(seen, ir.IntType(32)), number)
                )
                here = v.plus(of_rows, v.item, first)
                factors = [
                    builder.select(fresh, v.load(v.plus(here, gradient_step, row)), v.zero)
                    for row in range(taps.rows)
                ]

                def add(vector: Any, row: int, n: int) -> None:
                    total = builder.load(each[n])
                    builder.store(v.add_product(factors[row], vector, total), each[n])

                taps.meet(v, v.plus(begin, v.item, first), odd, step, add)
            for place, total in zip(places, each, strict=True):
                v.store(builder.load(total), place)
            return context.get_dummy_value()

        return (
            numba.types.void(source, odd, step, gradient, gradient_step, columns, sums),
            generate,
        )

    found: Kernel = intrinsic(rows)
    return found


def _convolution(size: int, gap: int, stride: int) -> Kernel:
    many_rows = SUMS // 2 if size == 3 else SUMS // 4  # the kernel is in registers, too
    many = _convolving(_Taps(size, gap, stride, many_rows))
    one = _convolving(_Taps(size, gap, stride, 1))
    block = many_rows * gap

    @compiled
    def convolve(
        source: Array, width: int, odd: int, kernel: Array, columns: int, out: Array
    ) -> None:
        rows, length = out.shape
        flat = out.reshape(rows * length)
        if columns * out.itemsize < VECTOR_BYTES:  # all of it as one row
            size_of_rows = rows * width
            buffer = np.empty(size_of_rows + SPARE, out.dtype)
            one(source, odd, gap * width, kernel, max(size_of_rows, SPARE), buffer, 0)
            for f in range(rows):
                for t in range(columns):
                    out[f, t] = buffer[f * width + t]
            return
        whole = rows // block * block
        for f in range(0, whole, block):
            for g in range(f, f + gap):
                many(
                    source[g * width :],
                    odd,
                    gap * width,
                    kernel,
                    columns,
                    flat[g * length :],
                    gap * length,
                )
        for f in range(whole, rows):
            one(source[f * width :], odd, gap * width, kernel, columns, flat[f * length :], 0)

    return convolve


def _correlation(size: int, gap: int, stride: int) -> Kernel:
    many_rows = SUMS // 4
    many = _correlating(_Taps(size, gap, stride, many_rows))
    one = _correlating(_Taps(size, gap, stride, 1))
    block = many_rows * gap

    @compiled
    def correlate(
        source: Array, width: int, odd: int, gradient: Array, rows: int, columns: int, out: Array
    ) -> None:
        sums = np.zeros((size * size, VECTOR_BYTES // source.itemsize), source.dtype)
        if columns * source.itemsize < VECTOR_BYTES:  # all of it as one row
            one(source, odd, gap * width, gradient, 0, max(rows * width, SPARE), sums)
        else:
            whole = rows // block * block
            for f in range(0, whole, block):
                for g in range(f, f + gap):
                    many(
                        source[g * width :],
                        odd,
                        gap * width,
                        gradient[g * width :],
                        gap * width,
                        columns,
                        sums,
                    )
            for f in range(whole, rows):
                one(source[f * width :], odd, gap * width, gradient[f * width :], 0, columns, sums)
        for i in range(size):
            for j in range(size):
                out[i, j] += sums[i * size + j].sum()

    return correlate


_convolve_3, _convolve_3_dilated = _convolution(3, 1, 1), _convolution(3, 2, 1)
_convolve_5, _convolve_5_dilated = _convolution(5, 1, 1), _convolution(5, 2, 1)
_convolve_3_strided, _convolve_5_strided = _convolution(3, 1, 2), _convolution(5, 1, 2)
_correlate_3, _correlate_3_dilated = _correlation(3, 1, 1), _correlation(3, 2, 1)
_correlate_5, _correlate_5_dilated = _correlation(5, 1, 1), _correlation(5, 2, 1)
_correlate_3_strided, _correlate_5_strided = _correlation(3, 1, 2), _correlation(5, 1, 2)


@compiled
def convolve(
    source: Array,
    width: int,
    odd: int,
    kernel: Array,
    dilation: int,
    columns: int,
    out: Array,
) -> None:
    """``out[f, t] = sum_ij kernel[i, j] source[begin_i + f width + t + dilation j]``.

    Parameters
    ----------
    source : the map; the first row that is read begins it.
    width, odd : where rows lie; ``odd`` of 0: one under the other, and ``begin_i`` is
        ``i dilation width``. Else the result has every second row, and ``begin_i`` is
        ``i % 2 odd + i // 2 width``.
    kernel : (k, k) with k of 3 or 5.
    dilation : 1 or, of rows one under the other, 2.
    columns : of a row of the map without its zeros.
    out : (F, columns or more), written as far as columns go.
    """
    if len(kernel) == 3:
        if odd > 0:
            _convolve_3_strided(source, width, odd, kernel, columns, out)
        elif dilation == 1:
            _convolve_3(source, width, 0, kernel, columns, out)
        else:
            _convolve_3_dilated(source, width, 0, kernel, columns, out)
    elif odd > 0:
        _convolve_5_strided(source, width, odd, kernel, columns, out)
    elif dilation == 1:
        _convolve_5(source, width, 0, kernel, columns, out)
    else:
        _convolve_5_dilated(source, width, 0, kernel, columns, out)


@compiled
def correlate(
    source: Array,
    width: int,
    odd: int,
    gradient: Array,
    dilation: int,
    rows: int,
    columns: int,
    out: Array,
) -> None:
    """Add the gradient of :func:`convolve` by its kernel to ``out`` (k, k), float64.

    Parameters
    ----------
    gradient : of the result, in rows of the same width with zeros between them, and with
        :data:`SPARE` of them after the last.
    rows, columns : of the result, without zeros.
    """
    if len(out) == 3:
        if odd > 0:
            _correlate_3_strided(source, width, odd, gradient, rows, columns, out)
        elif dilation == 1:
            _correlate_3(source, width, 0, gradient, rows, columns, out)
        else:
            _correlate_3_dilated(source, width, 0, gradient, rows, columns, out)
    elif odd > 0:
        _correlate_5_strided(source, width, odd, gradient, rows, columns, out)
    elif dilation == 1:
        _correlate_5(source, width, 0, gradient, rows, columns, out)
    else:
        _correlate_5_dilated(source, width, 0, gradient, rows, columns, out)
