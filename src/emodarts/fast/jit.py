"""How loops are compiled by numba, and the product of matrices in registers.

A loop over one axis keeps few sums in registers and loads every element of a product anew. The
tile here is written in LLVM's vectors: each element that is loaded meets several others (Goto and
van de Geijn, Anatomy of high-performance matrix multiplication, 2008, doi 10.1145/1356052.1356053).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic

#: Modules of compiled functions that call each other.
_SOURCES = ("jit", "convolution", "maps", "recurrence")
#: Sums may be reordered; infinities and NaN keep their meaning.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}

cgutils: Any = untyped_cgutils
Array = np.ndarray[Any, Any]
Kernel = Callable[..., Any]


def compiled(function: Kernel) -> Kernel:
    """Compile at the first call; the result is kept beside the source, or in a user's cache.

    Divisions by zero give infinities, as in torch.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": _FAST_MATH, "error_model": "numpy"}
    try:
        kernel: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no place that can be written to
        plain: Kernel = numba.njit(**options)(function)
        return plain
    # numba stamps what it keeps with the source of the function alone, and takes nothing of another
    # stamp; but a function changes with those that it calls, too.
    kernel._cache._cache_file._source_stamp = _stamp_of_sources()
    found: Kernel = kernel
    return found


@functools.cache
def _stamp_of_sources() -> tuple[tuple[str, float, int], ...]:
    facts = [(name, Path(__file__).with_name(f"{name}.py").stat()) for name in _SOURCES]
    return tuple((name, each.st_mtime, each.st_size) for name, each in facts)


def _registers() -> tuple[int, int]:
    """Bytes of a vector that numba compiles for, and how many vectors of sums fit its registers.

    Others would be as correct, and slower.
    """
    asked = getattr(numba.config, "CPU_FEATURES", None)  # set by NUMBA_CPU_FEATURES: +one,-other
    features = (asked or binding.get_host_cpu_features().flatten()).split(",")
    if "+avx512f" in features:
        return 64, 16
    return (32 if "+avx" in features else 16), 8


VECTOR_BYTES, SUMS = _registers()
#: Rows and vectors of a tile.
_ROWS, _VECTORS = SUMS // 2, 2


class Vectors:
    """Writes a function's code on vectors; addresses are integers, and count bytes."""

    index = ir.IntType(64)

    def __init__(self, context: Any, builder: Any, scalar: Any) -> None:
        self.context, self.builder = context, builder
        self.item = scalar.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.item
        self._element = context.get_value_type(scalar)
        self.type = ir.VectorType(self._element, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self._add_product = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self.type, [self.type] * 3),
            f"llvm.fmuladd.v{self.lanes}f{scalar.bitwidth}",
        )

    def opened(self, kind: Any, value: Any) -> tuple[Any, list[Any], list[Any]]:
        """Address, shape and strides of an array."""
        array = self.context.make_array(kind)(self.context, self.builder, value)
        parts = [cgutils.unpack_tuple(self.builder, t) for t in (array.shape, array.strides)]
        return self.builder.ptrtoint(array.data, self.index), parts[0], parts[1]

    def plus(self, address: Any, stride: Any, count: Any) -> Any:
        """``address + stride count``; both may be plain integers."""
        stride, count = (self.index(n) if isinstance(n, int) else n for n in (stride, count))
        return self.builder.add(address, self.builder.mul(stride, count))

    def load(self, address: Any) -> Any:
        """Vector from there on."""
        return self.builder.load(self._pointer(address, self.type), align=self.item)

    def store(self, vector: Any, address: Any) -> None:
        """Vector from there on."""
        self.builder.store(vector, self._pointer(address, self.type), align=self.item)

    def repeated(self, address: Any) -> Any:
        """What is there, in all lanes."""
        value = self.builder.load(self._pointer(address, self._element))
        return self.spread(value, self.type)

    def spread(self, value: Any, kind: Any) -> Any:
        """Vector of a kind with the value in all lanes."""
        unknown, place = ir.Constant(kind, ir.Undefined), ir.IntType(32)
        one = self.builder.insert_element(unknown, value, place(0))
        lanes = ir.Constant(ir.VectorType(place, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, unknown, lanes)

    def add_product(self, a: Any, b: Any, c: Any) -> Any:
        """``a b + c``."""
        return self.builder.call(self._add_product, [a, b, c])

    def variable(self, value: Any) -> Any:
        """What loops may store to; LLVM keeps it in a register."""
        return cgutils.alloca_once_value(self.builder, value)

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())


def _tile(typing: Any, a: Any, b: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
    """Add ``a @ b`` to ``out`` in as many rows as a tile has and as many columns.

    ``a`` (that or more, K), ``b`` (K, that or more), ``out``; elements of rows of ``b`` and
    ``out`` lie side by side.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, out.dtype)
        (left, _, (down, along)), (right, (depth, _), (below, _)), (target, _, (next_row, _)) = (
            v.opened(kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )

        def side_by_side(begin: Any) -> list[Any]:
            return [v.plus(begin, VECTOR_BYTES, n) for n in range(_VECTORS)]

        lefts = [v.plus(left, down, r) for r in range(_ROWS)]
        targets = [p for r in range(_ROWS) for p in side_by_side(v.plus(target, next_row, r))]
        sums = [v.variable(v.zero) for _ in targets]
        with cgutils.for_range(builder, depth) as loop:
            rights = [v.load(p) for p in side_by_side(v.plus(right, below, loop.index))]
            for r in range(_ROWS):
                value = v.repeated(v.plus(lefts[r], along, loop.index))
                for total, factor in zip(sums[r * _VECTORS :], rights, strict=False):
                    found = v.add_product(value, factor, builder.load(total))
                    builder.store(found, total)
        for total, place in zip(sums, targets, strict=True):
            v.store(builder.fadd(v.load(place), builder.load(total)), place)
        return context.get_dummy_value()

    return numba.types.void(a, b, out), generate


_add_tile: Kernel = intrinsic(_tile)


@compiled
def _padded(x: Array, rows: int, columns: int) -> Array:
    """With zeros below and beside it; of no size if ``x`` has none."""
    if x.size == 0:
        rows = 0
    out = np.zeros((rows, columns), x.dtype)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] = x[r, c]
    return out[::1, ::1]


@compiled
def _add_shallow_product(a: Array, b: Array, out: Array) -> None:
    # Every array here has the type of a slice: all there is is compiled once.
    rows, columns = out.shape
    depth, lanes = len(b), _VECTORS * VECTOR_BYTES // out.itemsize
    whole_rows, whole = rows // _ROWS * _ROWS, columns // lanes * lanes
    last_rows = _padded(a[whole_rows:], _ROWS, depth)
    last_columns = _padded(b[:, whole:], depth, lanes)
    part = np.empty((_ROWS, lanes), out.dtype)[::1, ::1]
    for m in range(0, rows, _ROWS):
        left = a[m:] if m < whole_rows else last_rows
        for n in range(0, columns, lanes):
            right = b[:, n:] if n < whole else last_columns
            if m < whole_rows and n < whole:
                _add_tile(left, right, out[m:, n:])
                continue
            for r in range(_ROWS):
                for c in range(lanes):
                    part[r, c] = 0
            _add_tile(left, right, part)
            for r in range(min(_ROWS, rows - m)):
                for c in range(min(lanes, columns - n)):
                    out[m + r, n + c] += part[r, c]


#: Products that are summed before they join what was: longer sums round more.
_DEPTH = 256


@compiled
def add_product(a: Array, b: Array, out: Array) -> None:
    """Add ``a @ b`` to ``out``: (M, K), (K, N), (M, N), float32 or float64.

    Elements of rows of ``b`` and ``out`` lie side by side.
    """
    for k in range(0, len(b), _DEPTH):
        _add_shallow_product(a[::1, k : k + _DEPTH : 1], b[k : k + _DEPTH : 1, ::1], out[::1, ::1])
