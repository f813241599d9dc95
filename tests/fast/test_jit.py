"""Products of matrices in compiled loops against numpy, and what is kept of compiled loops."""

import importlib.util
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

import numba
from llvmlite import binding

from emodarts.fast import jit
from emodarts.fast.jit import Array

#: Rows, depth, columns: whole tiles of some machine or other, less than one, and several and more.
SHAPES = [
    (1, 1, 1),
    (3, 2, 64),
    (5, 7, 9),
    (8, 3, 32),
    (9, 4, 33),
    (15, 128, 64),
    (16, 5, 128),
    (16, 6, 30),
    (17, 40, 70),
    (40, 300, 50),
    (64, 1, 3),
]
EMPTY = [
    (0, 3, 5),
    (0, 3, 64),
    (3, 4, 0),
    (16, 4, 0),
    (5, 0, 7),
    (16, 0, 64),
    (17, 0, 70),
    (0, 0, 0),
]
#: What is known of the rest of an array of which an operand is a part.
AROUND = 1e30


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is compiled here."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def indices(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.nbi")


def as_is(x: Array) -> Array:
    return x.copy()


def turned(x: Array) -> Array:
    return np.ascontiguousarray(x.T).T


def columns_of_a_wider_one(x: Array) -> Array:
    wide = np.full((len(x), x.shape[1] + 7), AROUND, x.dtype)
    wide[:, 3:-4] = x
    return wide[:, 3:-4]


def every_other_column(x: Array) -> Array:
    wide = np.full((len(x), 2 * x.shape[1]), AROUND, x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


def backwards(x: Array) -> Array:
    return x[::-1, ::-1].copy()[::-1, ::-1]


Layout = Callable[[Array], Array]
#: Of both factors and the result.
LAYOUTS: list[tuple[Layout, Layout, Layout]] = [
    (as_is, as_is, as_is),
    (turned, as_is, as_is),
    (columns_of_a_wider_one, as_is, as_is),
    (every_other_column, as_is, as_is),
    (backwards, as_is, as_is),
    (turned, columns_of_a_wider_one, as_is),
    (as_is, as_is, columns_of_a_wider_one),
]


def name_of(layouts: tuple[Layout, Layout, Layout]) -> str:
    return "-".join(layout.__name__ for layout in layouts)


def drawn(
    generator: np.random.Generator, shape: tuple[int, int, int], dtype: Any = np.float64
) -> tuple[Array, Array, Array]:
    """Two factors and what their product is added to."""
    rows, depth, columns = shape
    sizes = (rows, depth), (depth, columns), (rows, columns)
    a, b, out = (generator.standard_normal(size).astype(dtype) for size in sizes)
    return a, b, out


def sum_of(a: Array, b: Array, out: Array) -> Array:
    """In float64 and without a library of products, which may warn of infinities."""
    wide = [x.astype(np.float64) for x in (a, b, out)]
    with np.errstate(invalid="ignore"):
        total: Array = wide[2] + np.einsum("mk,kn->mn", *wide[:2])
    return total


def assert_same(found: Array, expected: Array) -> None:
    """Up to rounding of numbers as large as the largest; NaN and infinities in their places."""
    sizes = np.abs(expected[np.isfinite(expected)])
    scale = sizes.max() if sizes.size else 0.0
    error = 1e-5 if found.dtype == np.float32 else 1e-10
    np.testing.assert_allclose(found, expected, rtol=error, atol=error * scale)


# Products


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: str(d.__name__))
@pytest.mark.parametrize("layouts", LAYOUTS, ids=name_of)
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
def test_a_product_is_added_to_the_result(
    shape: tuple[int, int, int],
    layouts: tuple[Layout, Layout, Layout],
    dtype: Any,
    generator: np.random.Generator,
) -> None:
    drawn_arrays = drawn(generator, shape, dtype)
    a, b, out = (layout(x) for layout, x in zip(layouts, drawn_arrays, strict=True))
    expected = sum_of(a, b, out)
    jit.add_product(a, b, out)
    assert_same(out, expected)
    jit.add_product(a, b, out)
    assert_same(out, sum_of(a, b, expected))
    for x, before in zip((a, b), drawn_arrays[:2], strict=True):
        assert np.array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: str(d.__name__))
@pytest.mark.parametrize(
    "layout", [as_is, turned, columns_of_a_wider_one], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
def test_a_packed_factor_gives_the_same_product(
    shape: tuple[int, int, int], layout: Layout, dtype: Any, generator: np.random.Generator
) -> None:
    a, b, out = drawn(generator, shape, dtype)
    expected = sum_of(a, b, out)
    jit.add_packed_product(layout(a), jit.packed(columns_of_a_wider_one(b)), out)
    assert_same(out, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: str(d.__name__))
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
def test_columns_beside_the_result_stay_as_they_are(
    shape: tuple[int, int, int], dtype: Any, generator: np.random.Generator
) -> None:
    a, b, out = drawn(generator, shape, dtype)
    first, last = 5, 5 + out.shape[1]
    wide = generator.standard_normal((len(out) + 2, last + 40)).astype(dtype)
    before = wide.copy()
    expected = sum_of(a, b, wide[1:-1, first:last])
    jit.add_product(a, b, wide[1:-1, first:last])
    assert_same(wide[1:-1, first:last], expected)
    wide[1:-1, first:last] = before[1:-1, first:last]
    assert wide.tobytes() == before.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_does_not_depend_on_what_lies_beside_the_factors(
    shape: tuple[int, int, int], generator: np.random.Generator
) -> None:
    """Rows and columns that fill up tiles come from nowhere else."""
    a, b, out = drawn(generator, shape)
    expected = sum_of(a, b, out)
    rows, depth, columns = shape
    more_rows, more_of_both = np.full((2, 350, 350), np.nan)
    left, right = more_rows.ravel()[: rows * depth], more_of_both[:depth, :columns]
    left[:], right[:] = a.ravel(), b
    jit.add_product(left.reshape(rows, depth), right, out)
    assert_same(out, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nan_and_infinities_reach_their_row_or_column_and_no_other(
    shape: tuple[int, int, int], value: float, generator: np.random.Generator
) -> None:
    rows, depth, columns = shape
    a, b, out = drawn(generator, shape)
    for row in {0, rows // 2, rows - 1}:
        left, found = a.copy(), out.copy()
        left[row, depth // 2] = value
        jit.add_product(left, b, found)
        assert_same(found, sum_of(left, b, out))
        assert (~np.isfinite(found)).sum() == columns
    for column in {0, columns // 2, columns - 1}:
        right, found = b.copy(), out.copy()
        right[depth // 2, column] = value
        jit.add_product(a, right, found)
        assert_same(found, sum_of(a, right, out))
        assert (~np.isfinite(found)).sum() == rows
    out[rows // 2, columns // 2] = value
    expected = sum_of(a, b, out)
    jit.add_product(a, b, out)
    assert_same(out, expected)
    assert (~np.isfinite(out)).sum() == 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zero_times_infinity_is_nan(
    shape: tuple[int, int, int], generator: np.random.Generator
) -> None:
    rows, depth, columns = shape
    a, b, out = drawn(generator, shape)
    a[rows - 1, depth - 1], b[depth - 1, columns - 1] = 0.0, np.inf
    expected = sum_of(a, b, out)
    jit.add_product(a, b, out)
    assert_same(out, expected)
    assert np.isnan(out).sum() == 1


@pytest.mark.parametrize("feature", ["none", "avx512f"])
def test_tiles_of_other_machines_give_the_same_products(
    feature: str,
    kept_in: Path,
    monkeypatch: pytest.MonkeyPatch,
    generator: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With their numbers of registers, in instructions of this one. That they compile is said."""
    features = type(binding.get_host_cpu_features())({feature: True})
    other = another_jit(features, monkeypatch)
    for shape in (*SHAPES, *EMPTY):
        a, b, out = drawn(generator, shape)
        expected = sum_of(a, b, out)
        other.add_product(a, b, out)
        assert_same(out, expected)
    assert list(indices(kept_in))
    assert capsys.readouterr().err.count("Compiling loops") == 1
    kept = another_jit(features, monkeypatch)
    kept.add_product(a, b, out)
    assert capsys.readouterr().err == ""


def another_jit(features: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module anew, on a machine with these instructions."""
    spec = importlib.util.spec_from_file_location("other_jit", jit.__file__)
    assert spec is not None
    assert spec.loader is not None
    other: Any = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as context:
        context.setattr(binding, "get_host_cpu_features", lambda: features)
        context.setattr(numba.config, "CPU_FEATURES", None)
        spec.loader.exec_module(other)
    return other


@pytest.mark.parametrize(
    ("features", "size"),
    [
        ({"sse2": True, "avx": False, "avx512f": False}, 16),
        ({"sse2": True, "avx": True, "avx512f": False}, 32),
        ({"sse2": True, "avx": True, "avx512f": True}, 64),
    ],
    ids=["sse2", "avx", "avx512f"],
)
@pytest.mark.parametrize("asked", [False, True])
def test_vectors_are_as_long_as_the_instructions_that_numba_may_use(
    asked: bool, features: dict[str, bool], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = type(binding.get_host_cpu_features())(features)
    others = type(found)({"sse2": True, "avx": size == 16, "avx512f": size == 16})
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: others if asked else found)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", found.flatten() if asked else None)
    assert jit._registers()[0] == size


# What is kept


def quotient(x: float, y: float) -> float:
    return x / y


def less_itself(x: float) -> float:
    return x - x


def equals_itself(x: float) -> bool:
    return x == x


def in_a_new_process(folder: Path, sources: Path) -> tuple[float, int]:
    """A quotient, and how many loops were not compiled again, with the compiler of a folder."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; import jit; from loop import quotient\n"
        "kernel = jit.compiled(quotient)\n"
        "print(kernel(1.0, 4.0), sum(kernel.stats.cache_hits.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(sources)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
    )
    value, hits = done.stdout.split()
    return float(value), int(hits)


@pytest.mark.slow
def test_a_loop_is_compiled_once_until_a_source_of_loops_changes(tmp_path: Path) -> None:
    """Another source than its own: numba itself looks at that one alone. Imports change nothing."""
    sources, kept = tmp_path / "sources", tmp_path / "kept"
    sources.mkdir()
    for name in ("jit", "convolution", "maps", "recurrence"):
        shutil.copy(Path(jit.__file__).with_name(f"{name}.py"), sources)
    (sources / "loop.py").write_text("def quotient(x, y):\n    return x / y\n")
    assert in_a_new_process(kept, sources) == (0.25, 0)
    assert in_a_new_process(kept, sources) == (0.25, 1)
    files = sorted(indices(kept))
    (sources / "maps.py").write_text("# another one\n")
    assert sorted(indices(kept)) == files
    assert in_a_new_process(kept, sources) == (0.25, 0)
    assert in_a_new_process(kept, sources) == (0.25, 1)


@pytest.mark.parametrize("can_be_kept", [True, False])
def test_division_by_zero_gives_infinity_with_and_without_a_place_to_keep_loops(
    can_be_kept: bool, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_loops = numba.njit

    def njit(**options: Any) -> Any:
        def refuse(function: Any) -> Any:
            raise RuntimeError("cannot cache function: no locator available")

        return refuse if options.get("cache") else compile_loops(**options)

    if not can_be_kept:
        monkeypatch.setattr(numba, "njit", njit)
    kernel = jit.compiled(quotient)
    assert kernel(1.0, 4.0) == 0.25
    assert kernel(1.0, 0.0) == math.inf
    assert kernel(-1.0, 0.0) == -math.inf
    assert math.isnan(kernel(0.0, 0.0))
    assert kernel(math.inf, 2.0) == math.inf
    assert len(list(indices(kept_in))) == can_be_kept


@pytest.mark.usefixtures("kept_in")
def test_loops_are_not_simplified_as_if_there_were_no_nan_and_no_infinity() -> None:
    assert math.isnan(jit.compiled(less_itself)(math.inf))
    assert not jit.compiled(equals_itself)(math.nan)
    assert jit.compiled(equals_itself)(math.inf)
