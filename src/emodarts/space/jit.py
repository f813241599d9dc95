"""How loops are compiled by numba, and the product of matrices in registers.

A loop over one axis keeps few sums in registers and loads every element of a product anew. The
tile here is written in LLVM's vectors: each element that is loaded meets several others (Goto and
van de Geijn, Anatomy of high-performance matrix multiplication, 2008, doi 10.1145/1356052.1356053).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic

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
        found: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no place that can be written to
        plain: Kernel = numba.njit(**options)(function)
        return plain
    _forget_stale(Path(found.stats.cache_path), Path(function.__code__.co_filename).stem)
    kernel: Kernel = found
    return kernel


def _forget_stale(folder: Path, module: str) -> None:
    """Delete what was kept of a module before any of the sources here was changed.

    numba itself looks at the source of a function alone, not of those that it calls.
    """
    changed = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    for index in folder.glob(f"{module}.*.nbi"):
        try:
            if index.stat().st_mtime < changed:
                index.unlink()
        except OSError:  # another process was first, or it may only be read
            continue


def _registers() -> tuple[int, int]:
    """Bytes of a vector of this machine, and rows of a tile whose sums fit its registers.

    Others would be as correct, and slower.
    """
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    return (32 if features.get("avx") else 16), 4


_VECTOR_BYTES, _ROWS = _registers()
_VECTORS = 2


def _tile(typing: Any, a: Any, b: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
    """Add ``a @ b`` to ``out`` in as many rows as a tile has and as many columns.

    ``a`` (that or more, K), ``b`` (K, that or more), ``out``; elements of rows of ``b`` and
    ``out`` lie side by side.
    """
    scalar = out.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element, index = context.get_value_type(scalar), ir.IntType(64)
        lanes, align = _VECTOR_BYTES * 8 // scalar.bitwidth, scalar.bitwidth // 8
        vector = ir.VectorType(element, lanes)
        unknown = ir.Constant(vector, ir.Undefined)
        to_all = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        add_product = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fmuladd.v{lanes}f{scalar.bitwidth}",
        )

        def opened(kind: Any, value: Any) -> tuple[Any, list[Any], list[Any]]:
            """Address, shape and strides in bytes."""
            array = context.make_array(kind)(context, builder, value)
            shape, strides = array.shape, array.strides
            address = builder.ptrtoint(array.data, index)
            return (
                address,
                cgutils.unpack_tuple(builder, shape),
                cgutils.unpack_tuple(builder, strides),
            )

        def plus(address: Any, stride: Any, count: Any) -> Any:
            return builder.add(address, builder.mul(stride, count))

        def vectors_at(address: Any) -> list[Any]:
            first = builder.inttoptr(address, element.as_pointer())
            places = [builder.gep(first, [index(v * lanes)]) for v in range(_VECTORS)]
            return [builder.bitcast(place, vector.as_pointer()) for place in places]

        (left, _, (down, along)), (right, (depth, _), (below, _)), (target, _, (next_row, _)) = (
            opened(kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        lefts = [plus(left, down, index(r)) for r in range(_ROWS)]
        targets = [
            place for r in range(_ROWS) for place in vectors_at(plus(target, next_row, index(r)))
        ]
        sums = [cgutils.alloca_once_value(builder, builder.load(t, align=align)) for t in targets]
        with cgutils.for_range(builder, depth) as loop:
            rights = [
                builder.load(place, align=align)
                for place in vectors_at(plus(right, below, loop.index))
            ]
            for r in range(_ROWS):
                place = builder.inttoptr(plus(lefts[r], along, loop.index), element.as_pointer())
                one = builder.insert_element(unknown, builder.load(place), ir.IntType(32)(0))
                all_same = builder.shuffle_vector(one, unknown, to_all)
                for v in range(_VECTORS):
                    total = sums[r * _VECTORS + v]
                    found = builder.call(add_product, [all_same, rights[v], builder.load(total)])
                    builder.store(found, total)
        for total, place in zip(sums, targets, strict=True):
            builder.store(builder.load(total), place, align=align)
        return context.get_dummy_value()

    return numba.types.void(a, b, out), generate


_add_tile: Kernel = intrinsic(_tile)


@compiled
def add_product(a: Array, b: Array, out: Array) -> None:
    """Add ``a @ b`` to ``out``: (M, K), (K, N), (M, N), float32 or float64.

    Elements of rows of ``b`` and ``out`` lie side by side.
    """
    rows, columns = out.shape
    lanes = _VECTORS * _VECTOR_BYTES // out.itemsize
    whole_rows, whole = rows // _ROWS * _ROWS, columns // lanes * lanes
    for m in range(0, whole_rows, _ROWS):
        for n in range(0, whole, lanes):
            _add_tile(a[m:], b[:, n:], out[m:, n:])
    if whole_rows == rows and whole == columns:
        return
    # What is left, padded to tiles.
    part = np.empty((_ROWS, lanes), out.dtype)
    last_columns = np.zeros((len(b), lanes), out.dtype)
    last_columns[:, : columns - whole] = b[:, whole:]
    last_rows = np.zeros((_ROWS, a.shape[1]), out.dtype)
    last_rows[: rows - whole_rows] = a[whole_rows:]
    if whole < columns:
        for m in range(0, whole_rows, _ROWS):
            part[:] = 0
            _add_tile(a[m:], last_columns, part)
            out[m : m + _ROWS, whole:] += part[:, : columns - whole]
    if whole_rows < rows:
        for n in range(0, whole, lanes):
            part[:] = 0
            _add_tile(last_rows, b[:, n:], part)
            out[whole_rows:, n : n + lanes] += part[: rows - whole_rows]
        part[:] = 0
        _add_tile(last_rows, last_columns, part)
        out[whole_rows:, whole:] += part[: rows - whole_rows, : columns - whole]
