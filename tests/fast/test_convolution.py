"""Convolutions in registers against torch, for this machine and for smaller ones."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("numba")

from emodarts.fast.convolution import SPARE, convolve, correlate
from emodarts.fast.jit import Array

#: Whole blocks of rows and vectors, parts of them, fewer columns than a vector, one element.
SIZES = [(32, 32), (37, 45), (9, 17), (5, 3), (1, 1)]
#: Kernel, dilation, stride.
GEOMETRIES = [(3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2), (5, 1, 2)]


def rows_of(x: Array, pad: int, width: int, odd: int) -> Array:
    """A map (F, T) in padded rows; with ``odd`` by turns in two halves."""
    found = np.zeros((len(x) + 2 * pad + 2) * width + 2 * pad + SPARE, x.dtype)
    for f, row in enumerate(x):
        r = f + pad
        begin = (r * width if odd == 0 else r % 2 * odd + r // 2 * width) + pad
        found[begin : begin + len(row)] = row
    return found


def check(size: tuple[int, int], kernel: int, dilation: int, stride: int, dtype: str) -> None:
    generator = np.random.default_rng(0)
    rows, columns = size
    x = generator.normal(size=size).astype(dtype)
    weights = generator.normal(size=(kernel, kernel)).astype(dtype)
    pad = dilation * (kernel - 1) // 2
    width = columns + pad
    odd = (rows // 2 + pad + 1) * width if stride == 2 else 0
    source = rows_of(x, pad, width, odd)
    shape = -(-rows // stride), columns
    out = np.full((shape[0], columns + 2), np.nan, dtype)
    convolve(source, width, odd, weights, dilation, columns, out)

    filters = torch.from_numpy(weights).double().requires_grad_()
    maps = torch.from_numpy(x).double()
    expected = functional.conv2d(
        maps[None, None], filters[None, None], padding=pad, dilation=dilation, stride=(stride, 1)
    )[0, 0]
    tolerance = {"rtol": 0, "atol": (1e-5 if dtype == "float32" else 1e-12) * kernel**2}
    np.testing.assert_allclose(out[:, :columns], expected.detach().numpy(), **tolerance)
    assert np.isnan(out[:, columns:]).all() or columns < SPARE

    incoming = generator.normal(size=shape).astype(dtype)
    (gradient,) = torch.autograd.grad(expected, [filters], torch.from_numpy(incoming).double())
    padded = np.zeros(shape[0] * width + SPARE, dtype)
    padded[: shape[0] * width].reshape(-1, width)[:, :columns] = incoming
    found = np.ones((kernel, kernel))
    correlate(source, width, odd, padded, dilation, *shape, found)
    scale = float(gradient.abs().max())
    tolerance["atol"] *= max(scale, 1.0)
    np.testing.assert_allclose(found - 1.0, gradient.numpy(), **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel", "dilation", "stride"), GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_results_and_gradients_are_those_of_torch(
    size: tuple[int, int], kernel: int, dilation: int, stride: int, dtype: str
) -> None:
    check(size, kernel, dilation, stride, dtype)


def test_nan_and_infinity_stay_where_a_kernel_reaches() -> None:
    x = np.zeros((20, 40), np.float32)
    x[10, 20] = np.nan
    x[3, 5] = np.inf
    out = np.empty_like(x)
    convolve(rows_of(x, 1, 41, 0), 41, 0, np.ones((3, 3), np.float32), 1, 40, out)
    assert np.isnan(out[9:12, 19:22]).all()
    assert np.isinf(out[2:5, 4:7]).all()
    assert np.isfinite(out).sum() == out.size - 18


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 processor")
def test_a_machine_with_narrower_vectors_finds_the_same(tmp_path: Path) -> None:
    script = f"""
import sys
import numpy as np
from emodarts.fast import jit
assert jit.VECTOR_BYTES == 32
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_convolution
for geometry in test_convolution.GEOMETRIES:
    for size in ((37, 45), (5, 3)):
        test_convolution.check(size, *geometry, "float32")
a, b = np.random.default_rng(0).normal(size=(2, 37, 37))
out = np.zeros((37, 37))
jit.add_product(a, b, out)
np.testing.assert_allclose(out, a @ b, atol=1e-12)
"""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
