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
from numba.core import event
from numba.extending import intrinsic

from emodarts.progress import print_line

#: Modules of compiled functions that call each other.
_SOURCES = ("jit", "convolution", "maps", "recurrence")
#: Sums may be reordered; infinities and NaN keep their meaning.
_FAST_MATH = {"contract", "reassoc", "nsz", "arcp"}

cgutils: Any = untyped_cgutils
_kernels: set[Any] = set()
Array = np.ndarray[Any, Any]
Kernel = Callable[..., Any]


def compiled(function: Kernel) -> Kernel:
    """Compile at the first call; the result is kept beside the source, or in a user's cache.

    Divisions by zero give infinities, as in torch.
    """
    kernel = _compiled(function)
    _kernels.add(kernel)
    return kernel


def _compiled(function: Kernel) -> Kernel:
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


class _Notice(event.Listener):
    """Says once in a process that its loops are compiled; those that are kept take no time."""

    said = False

    def on_start(self, event: Any) -> None:
        """Of a function that numba compiles."""
        if event.data["dispatcher"] in _kernels and not self.said:
            self.said = True
            print_line("Compiling loops, once on this machine: up to about a minute.")

    def on_end(self, event: Any) -> None:
        """Do nothing."""


event.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]


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
#: Rows of a tall and of a short tile, whose sums, factors and one number more fill the registers.
_TALL, _SHORT = (8, 4) if SUMS == 16 else (6, 4)
#: Vectors side by side in a tile.
_VECTORS = 2


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

    def copy(self, source: Any, target: Any) -> None:
        """One element."""
        value = self.builder.load(self._pointer(source, self._element))
        self.builder.store(value, self._pointer(target, self._element))

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


def _tile(rows: int) -> Kernel:
    """Adds ``a @ b`` to ``out`` in that many rows and as many columns as a tile has.

    ``a`` (that or more, K), ``b`` (K, that or more), ``out``; elements of rows of ``b`` and
    ``out`` lie side by side.
    """

    def code(typing: Any, a: Any, b: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vectors(context, builder, out.dtype)
            (
                (left, _, (down, along)),
                (right, (depth, _), (below, _)),
                (target, _, (next_row, _)),
            ) = (
                v.opened(kind, value) for kind, value in zip(signature.args, arguments, strict=True)
            )

            def side_by_side(begin: Any) -> list[Any]:
                return [v.plus(begin, VECTOR_BYTES, n) for n in range(_VECTORS)]

            lefts = [v.plus(left, down, r) for r in range(rows)]
            targets = [p for r in range(rows) for p in side_by_side(v.plus(target, next_row, r))]
            sums = [v.variable(v.zero) for _ in targets]
            with cgutils.for_range(builder, depth) as loop:
                rights = [v.load(p) for p in side_by_side(v.plus(right, below, loop.index))]
                for r in range(rows):
                    value = v.repeated(v.plus(lefts[r], along, loop.index))
                    for total, factor in zip(sums[r * _VECTORS :], rights, strict=False):
                        found = v.add_product(value, factor, builder.load(total))
                        builder.store(found, total)
            for total, place in zip(sums, targets, strict=True):
                v.store(builder.fadd(v.load(place), builder.load(total)), place)
            return context.get_dummy_value()

        return numba.types.void(a, b, out), generate

    kernel: Kernel = intrinsic(code)
    return kernel


_add_tall_tile, _add_short_tile = _tile(_TALL), _tile(_SHORT)

#: Products that are summed before they join what was: longer sums round more.
_DEPTH = 256
#: Rows that meet all panels in turn: they stay in the first cache, and the panels stream by.
_BLOCK = 24


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


def _copy(typing: Any, panel: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
    """``panel`` (K, W) to ``out`` (K, W): as many columns as a tile has, side by side in both."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, out.dtype)
        (source, (depth, _), (below, _)), (target, _, (next_row, _)) = (
            v.opened(kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        with cgutils.for_range(builder, depth) as loop:
            row, place = v.plus(source, below, loop.index), v.plus(target, next_row, loop.index)
            for n in range(_VECTORS):
                v.store(v.load(v.plus(row, VECTOR_BYTES, n)), v.plus(place, VECTOR_BYTES, n))
        return context.get_dummy_value()

    return numba.types.void(panel, out), generate


def _copy_turned(typing: Any, rows: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
    """``rows`` (W, K) to ``out`` (K, W): as many rows as a tile has columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vectors(context, builder, out.dtype)
        (source, (_, depth), (below, along)), (target, _, (next_row, _)) = (
            v.opened(kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        begins = [v.plus(source, below, n) for n in range(_VECTORS * v.lanes)]
        with cgutils.for_range(builder, depth) as loop:
            place = v.plus(target, next_row, loop.index)
            for n, begin in enumerate(begins):
                v.copy(v.plus(begin, along, loop.index), v.plus(place, v.item, n))
        return context.get_dummy_value()

    return numba.types.void(rows, out), generate


_copy_panel: Kernel = intrinsic(_copy)
_copy_turned_panel: Kernel = intrinsic(_copy_turned)


@compiled
def packed(b: Array) -> Array:
    """``(K, N)`` -> ``(N / W, K, W)``, zeros after the last column: W columns are those of a tile.

    A tile then reads from one place. Where rows of ``b`` are far apart, their beginnings would
    drive each other out of the cache. Elements of rows of ``b`` lie side by side.
    """
    depth, columns = b.shape
    width = _VECTORS * VECTOR_BYTES // b.itemsize
    whole = columns // width
    out = np.empty((whole + (columns % width > 0), depth, width), b.dtype)
    for n in range(whole):
        _copy_panel(b[:, n * width :], out[n, ::1, ::1])
    if whole < len(out):
        out[whole] = _padded(b[:, whole * width :], depth, width)
    return out[::1, ::1, ::1]


@compiled
def packed_turned(weights: Array) -> Array:
    """:func:`packed` of ``weights.T``: ``(N, K)`` -> ``(N / W, K, W)``, in any layout."""
    columns, depth = weights.shape
    width = _VECTORS * VECTOR_BYTES // weights.itemsize
    whole = columns // width
    out = np.empty((whole + (columns % width > 0), depth, width), weights.dtype)
    for n in range(whole):
        _copy_turned_panel(weights[n * width :], out[n, ::1, ::1])
    if whole < len(out):
        out[whole] = _padded(weights[whole * width :].T, depth, width)
    return out[::1, ::1, ::1]


@compiled
def _height(rows: int) -> int:
    """Of the next tile, of that many rows that are left."""
    return _SHORT if rows <= _SHORT or _TALL < rows <= 2 * _SHORT else _TALL


@compiled
def _add_tile(height: int, a: Array, b: Array, out: Array) -> None:
    if height == _TALL:
        _add_tall_tile(a, b, out)
    else:
        _add_short_tile(a, b, out)


@compiled
def _add_tiles(a: Array, b: Array, panels: Array, out: Array) -> None:
    """Add ``a`` times ``panels`` to ``out``, or ``a @ b`` if there are none."""
    # Every array here has the type of a slice: all there is is compiled once.
    (rows, columns), depth = out.shape, a.shape[1]
    width = _VECTORS * VECTOR_BYTES // out.itemsize
    if out.size == 0:
        return
    whole_rows, whole = 0, columns // width * width
    while whole_rows < rows and whole_rows + _height(rows - whole_rows) <= rows:
        whole_rows += _height(rows - whole_rows)
    last_rows = _padded(a[whole_rows:], _TALL, depth)
    last_columns = b if len(panels) else _padded(b[:, whole:], depth, width)
    part = np.empty((_TALL, width), out.dtype)[::1, ::1]
    for n in range(0, columns, width):
        panel = panels[n // width] if len(panels) else b[:, n:] if n < whole else last_columns
        m = 0
        if n < whole:
            while m < whole_rows:
                height = _height(rows - m)
                _add_tile(height, a[m:], panel, out[m:, n:])
                m += height
        while m < rows:
            height = _height(rows - m)
            for r in range(height):
                for c in range(width):
                    part[r, c] = 0
            _add_tile(height, a[m:] if m < whole_rows else last_rows, panel, part)
            for r in range(min(height, rows - m)):
                for c in range(min(width, columns - n)):
                    out[m + r, n + c] += part[r, c]
            m += height


@compiled
def _add_shallow_product(a: Array, b: Array, panels: Array, out: Array) -> None:
    rows, width = len(a), _VECTORS * VECTOR_BYTES // out.itemsize
    if a.strides[0] == a.itemsize and rows > width:
        columns = packed(a.T)  # rows of tiles come near each other
        for n in range(len(columns)):
            some = out[n * width : (n + 1) * width]
            _add_tiles(columns[n].T[: len(some)], b, panels, some)
        return
    for m in range(0, rows, _BLOCK):
        _add_tiles(a[m : m + _BLOCK], b, panels, out[m : m + _BLOCK])


@compiled
def add_packed_product(a: Array, panels: Array, out: Array) -> None:
    """:func:`add_product` with a ``b`` that is packed: worth it if it meets many ``a``."""
    for k in range(0, panels.shape[1], _DEPTH):
        some = panels[::1, k : k + _DEPTH : 1]
        _add_shallow_product(a[::1, k : k + _DEPTH : 1], some[0], some, out[::1, ::1])


@compiled
def add_product(a: Array, b: Array, out: Array) -> None:
    """Add ``a @ b`` to ``out``: (M, K), (K, N), (M, N), float32 or float64.

    Elements of rows of ``b`` and ``out`` lie side by side.
    """
    for k in range(0, len(b), _DEPTH):
        some = b[k : k + _DEPTH : 1, ::1]
        panels = packed(some if len(a) > 2 * _TALL else some[:, :0])
        _add_shallow_product(a[::1, k : k + _DEPTH : 1], some, panels, out[::1, ::1])
