"""Compiled loops against torch and its gradients, in float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba")

from emodarts.fast import maps

BATCH = 3
#: Channels and size: blocks of four and the rest, odd and even, more positions than a block.
SHAPES = [(1, (7, 7)), (3, (8, 5)), (4, (6, 9)), (6, (5, 4)), (2, (1, 1)), (5, (71, 62))]
#: Channels before and after a matrix, and size.
AFFINE = [(1, 1, (7, 6)), (3, 4, (5, 8)), (4, 6, (6, 9)), (6, 3, (4, 4)), (5, 5, (41, 32))]
#: Stride and dilation. A cell reads every other position instead of having both.
STRIDES = [(1, 1), (1, 2), (2, 1)]
#: Step, stride, dilation.
GEOMETRIES = [(step, stride, dilation) for step in (1, 2) for stride, dilation in STRIDES]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def symmetric(generator: torch.Generator, size: int) -> Tensor:
    matrix = draw(generator, size, size)
    return matrix + matrix.t()


def lost(*shape: int) -> Tensor:
    """What a kernel must write and not add to."""
    return torch.full(shape, torch.nan, dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * scale)


def arrays(*tensors: Any) -> tuple[Any, ...]:
    return tuple(t.numpy() if isinstance(t, Tensor) else t for t in tensors)


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (B, D) and products (B, D, D) over positions."""
    return y.sum(dim=(2, 3)), torch.einsum("bcft,bdft->bcd", y, y)


# Depthwise convolution


@dataclass
class Drawn:
    """Input and weights of a stage; without a matrix ``matrix`` has no size."""

    x: Tensor
    matrix: Tensor
    bias: Tensor
    kernel: Tensor
    geometry: tuple[int, int, int]

    @classmethod
    def drawn(
        cls,
        generator: torch.Generator,
        channels: tuple[int, int | None],
        size: tuple[int, int],
        k: int,
        geometry: tuple[int, int, int],
    ) -> "Drawn":
        before, after = channels
        return cls(
            draw(generator, BATCH, before, *size),
            draw(generator, after or 0, before if after else 0),
            draw(generator, after or 0),
            draw(generator, after or before, k, k),
            geometry,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.matrix, self.bias, self.kernel

    def reference(self) -> Tensor:
        """The same by torch."""
        step, stride, dilation = self.geometry
        z = self.x
        if self.matrix.numel():
            z = torch.einsum("dc,bcft->bdft", self.matrix, z) + self.bias[:, None, None]
        z = functional.relu(z[:, :, ::step, ::step])
        pad = dilation * (self.kernel.shape[1] - 1) // 2
        weight = self.kernel[:, None]
        return functional.conv2d(z, weight, None, stride, pad, dilation, groups=len(weight))

    def compute(self, *, with_moments: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Result, sums, products by the kernel; sums are added to ones."""
        step, stride, _ = self.geometry
        size = [-(-n // (step * stride)) for n in self.x.shape[2:]]
        channels = len(self.kernel)
        out = lost(BATCH, channels, *size)
        sums = torch.ones(BATCH, channels).double()
        products = torch.ones(BATCH, channels, channels).double()
        maps.depthwise(0, BATCH, self.as_called(out, sums, products, with_moments))
        return out, sums, products

    def as_called(self, *results: Any) -> maps.Stage:
        return maps.Stage(*arrays(*self.tensors(), *self.geometry, *results))

    def check(self) -> None:
        out, sums, products = self.compute()
        expected = self.reference()
        expected_sums, expected_products = moments(expected)
        assert_same(out, expected)
        assert_same(sums - 1, expected_sums)
        assert_same(products - 1, expected_products)

    def check_gradient(self, generator: torch.Generator, *, with_kernel: bool = True) -> None:
        """Of a loss of the result, its sums and its products."""
        for tensor in self.tensors():
            tensor.requires_grad_()
        d = self.reference()
        direct, of_sums = draw(generator, *d.shape), draw(generator, d.shape[1])
        of_products = symmetric(generator, d.shape[1])
        sums, products = moments(d)
        loss = (direct * d).sum() + (of_sums * sums).sum() + 0.5 * (of_products * products).sum()
        whole, *expected = torch.autograd.grad(
            loss, [d, *self.tensors()], materialize_grads=True, allow_unused=True
        )
        for tensor in self.tensors():
            tensor.requires_grad_(False)

        affine = self.matrix.numel() > 0
        of_x = lost(*self.x.shape) if affine else torch.ones_like(self.x)
        others = [torch.ones(BATCH, *w.shape).double() for w in self.tensors()[1:]]
        gradient = direct.clone()
        stage = self.as_called(d.detach(), lost(0, 0), lost(0, 0, 0), False)
        of = maps.StageGradient(
            gradient.numpy(), stage, *arrays(of_products, of_sums, of_x, *others, with_kernel)
        )
        maps.depthwise_gradient(0, BATCH, of)
        assert_same(gradient, whole)
        assert_same(of_x if affine else of_x - 1, expected[0])
        if not with_kernel:
            expected[3] = torch.zeros_like(expected[3])
        for other, reference in zip(others, expected[1:], strict=True):
            assert_same((other - 1).sum(dim=0), reference)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("channels", "size"), SHAPES, ids=str)
def test_depthwise_convolution_of_a_rectified_map(
    channels: int,
    size: tuple[int, int],
    geometry: tuple[int, int, int],
    k: int,
    generator: torch.Generator,
) -> None:
    stage = Drawn.drawn(generator, (channels, None), size, k, geometry)
    stage.check()
    stage.check_gradient(generator)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[0] == 1], ids=str)
@pytest.mark.parametrize(("before", "after", "size"), AFFINE, ids=str)
def test_depthwise_convolution_after_an_affine_map(
    before: int,
    after: int,
    size: tuple[int, int],
    geometry: tuple[int, int, int],
    k: int,
    generator: torch.Generator,
) -> None:
    stage = Drawn.drawn(generator, (before, after), size, k, geometry)
    stage.check()
    stage.check_gradient(generator)


@pytest.mark.parametrize("after", [None, 4])
def test_depthwise_leaves_out_the_sums_that_are_not_asked_for(
    after: int | None, generator: torch.Generator
) -> None:
    stage = Drawn.drawn(generator, (4, after), (5, 6), 3, (1, 1, 1))
    out, sums, products = stage.compute(with_moments=False)
    assert_same(out, stage.reference())
    assert (sums == 1).all()
    assert (products == 1).all()
    stage.check_gradient(generator, with_kernel=False)


# Pools


def pools_reference(x: Tensor, stride: int) -> list[Tensor]:
    return [
        functional.max_pool2d(x, 3, stride, 1),
        functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False),
    ]


def pools_shares(x: Tensor, stride: int) -> Tensor:
    """One over the number of neighbours."""
    counts = 9 * functional.avg_pool2d(torch.ones_like(x[:1, :1]), 3, stride, 1)
    return (1 / counts.round())[0, 0]


def computed_pools(x: Tensor, stride: int) -> list[Tensor]:
    size = [-(-n // stride) for n in x.shape[2:]]
    out = [lost(*x.shape[:2], *size) for _ in range(2)]
    shares = pools_shares(x, stride)
    maps.pools(0, len(x), maps.Pools(*arrays(x, stride, shares, *out, lost(0, 0, 0, 0))))
    return out


def pools_gradient(x: Tensor, stride: int, gradients: list[Tensor]) -> Tensor:
    of_x, shares = lost(*x.shape), pools_shares(x, stride)
    maps.pools_gradient(0, len(x), maps.Pools(*arrays(x, stride, shares, *gradients, of_x)))
    return of_x


def check_pools(x: Tensor, stride: int, generator: torch.Generator) -> None:
    x = x.clone().requires_grad_()
    expected = pools_reference(x, stride)
    for found, pooled in zip(computed_pools(x.detach(), stride), expected, strict=True):
        assert_same(found, pooled.detach())
    gradients = [draw(generator, *pooled.shape) for pooled in expected]
    (reference,) = torch.autograd.grad(expected, x, gradients)
    assert_same(pools_gradient(x.detach(), stride, gradients), reference)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [*SHAPES, (3, (1, 6)), (2, (9, 1))], ids=str)
def test_pools_are_those_of_torch(
    channels: int, size: tuple[int, int], stride: int, generator: torch.Generator
) -> None:
    check_pools(draw(generator, BATCH, channels, *size), stride, generator)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 5), (6, 6)], ids=str)
@pytest.mark.parametrize("values", [1, 2, 3])
def test_of_equal_neighbours_the_first_is_the_highest(
    values: int, size: tuple[int, int], stride: int, generator: torch.Generator
) -> None:
    """Constant maps, and such of few whole numbers, negative ones among them."""
    x = torch.randint(values, (BATCH, 3, *size), generator=generator) - 1
    check_pools(x.double(), stride, generator)


# Moments


@pytest.mark.parametrize(("channels", "size"), SHAPES, ids=str)
def test_moments_and_their_gradient(
    channels: int, size: tuple[int, int], generator: torch.Generator
) -> None:
    x = draw(generator, BATCH, channels, *size).requires_grad_()
    sums, products = torch.ones(BATCH, channels).double(), torch.ones(BATCH, channels, channels)
    products = products.double()
    maps.moments(0, BATCH, maps.Moments(*arrays(x.detach(), sums, products)))
    expected = moments(x)
    assert_same(sums - 1, expected[0].detach())
    assert_same(products - 1, expected[1].detach())
    of_sums, of_products = draw(generator, channels), symmetric(generator, channels)
    loss = (of_sums * expected[0]).sum() + 0.5 * (of_products * expected[1]).sum()
    of_x = lost(*x.shape)
    call = maps.MomentsGradient(*arrays(x.detach(), of_products, of_sums, of_x))
    maps.moments_gradient(0, BATCH, call)
    assert_same(of_x, *torch.autograd.grad(loss, x))


# Diverged maps


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_depthwise_convolution_hides_no_nan_and_no_infinity(
    value: float, geometry: tuple[int, int, int], k: int, generator: torch.Generator
) -> None:
    stage = Drawn.drawn(generator, (3, None), (9, 8), k, geometry)
    stage.x[1, 2, 4, 4] = value
    out, sums, products = stage.compute()
    expected = stage.reference()
    assert torch.equal(out.isfinite(), expected.isfinite())
    assert torch.equal(out.isnan(), expected.isnan())
    assert not sums[1, 2].isfinite()
    assert products[1, 2, 2].isnan() or products[1, 2, 2] == torch.inf
    others = torch.ones_like(sums, dtype=torch.bool)
    others[1, 2] = False
    assert sums[others].isfinite().all()


def test_depthwise_convolution_after_an_affine_map_hides_no_nan(generator: torch.Generator) -> None:
    for k in (3, 5):
        stage = Drawn.drawn(generator, (3, 5), (9, 8), k, (1, 1, 1))
        stage.x[1, 2, 4, 4] = torch.nan
        out, sums, _ = stage.compute()
        assert torch.equal(out.isnan(), stage.reference().isnan())
        assert sums[1].isnan().all()
        assert sums[[0, 2]].isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (4, 2), (3, 5), (6, 5)], ids=str)
def test_every_pool_with_a_nan_among_its_neighbours_is_nan(
    place: tuple[int, int], stride: int, generator: torch.Generator
) -> None:
    x = draw(generator, BATCH, 2, 7, 6)
    x[1, 1, place[0], place[1]] = torch.nan
    for found, expected in zip(computed_pools(x, stride), pools_reference(x, stride), strict=True):
        assert torch.equal(found.isnan(), expected.isnan())


# Sums of a node


def drawn_terms(
    generator: torch.Generator, channels: int, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Matrices and factors of channels, written and added to, utterances that are left out."""
    some = draw(generator, BATCH)
    some[1] = 0.0
    found = []
    for before, added, factors in (
        (channels + 3, False, None),
        (2 * channels, True, None),
        (None, False, None),
        (None, True, None),
        (channels, False, some),
        (None, True, some),
    ):
        matrix = draw(generator, channels, *([before] if before else []))
        read = draw(generator, BATCH, before or channels, *size)
        bias = draw(generator, channels)
        found.append(
            {"maps": read, "matrix": matrix, "bias": bias, "added": added, "factors": factors}
        )
    return found


def mix_reference(terms: list[dict[str, Any]]) -> Tensor:
    total = torch.zeros(())
    for term in terms:
        matrix = term["matrix"] if term["matrix"].dim() == 2 else torch.diag(term["matrix"])
        found = torch.einsum("dc,bcft->bdft", matrix, term["maps"])
        each = torch.ones(BATCH) if term["factors"] is None else term["factors"]
        total = total + each[:, None, None, None] * (found + term["bias"][:, None, None])
    return total


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "size"), SHAPES, ids=str)
def test_a_node_is_the_sum_of_products_with_matrices_and_factors(
    channels: int,
    size: tuple[int, int],
    threads: int,
    generator: torch.Generator,
    set_threads: Callable[[int], None],
) -> None:
    set_threads(threads)
    terms = drawn_terms(generator, channels, size)
    given = []
    for term in terms:
        as_arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in term.items()}
        start = torch.ones_like(term["maps"]) if term["added"] else lost(*term["maps"].shape)
        given.append(maps.Term(**as_arrays, of_maps=start.numpy()))
    out = lost(BATCH, channels, *size)
    maps.mix(given, out.numpy())
    wanted = [term[name].requires_grad_() for term in terms for name in ("maps", "matrix", "bias")]
    expected = mix_reference(terms)
    assert_same(out, expected.detach())

    gradient = draw(generator, *out.shape)
    references = iter(torch.autograd.grad(expected, wanted, gradient))
    for term, others in zip(given, maps.unmix(gradient.numpy(), given), strict=True):
        for found in (term.of_maps - 1 if term.added else term.of_maps, *others):
            assert_same(torch.from_numpy(found), next(references))


# Threads


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("columns", [1, 2**16])
def test_every_utterance_goes_once_through_all_calls_in_their_order(
    threads: int, columns: int, set_threads: Callable[[int], None]
) -> None:
    """Of small maps, and of maps that no two of fit the caches."""
    set_threads(threads)
    seen: list[list[str]] = [[] for _ in range(5)]

    def kernel(first: int, last: int, call: tuple[Any, str]) -> None:
        assert first < last
        for b in range(first, last):
            seen[b].append(call[1])

    x = np.zeros((5, columns))
    maps.in_parallel(kernel, [(x, "first"), (x, "second"), (x, "third")])
    maps.in_parallel(kernel, [])
    assert seen == [["first", "second", "third"]] * 5


def test_maps_in_float32_have_the_sums_of_float64(generator: torch.Generator) -> None:
    """Over many blocks, up to what one block loses."""
    x = (1 + 0.1 * draw(generator, 2, 3, 201, 101)).float()
    sums, products = torch.zeros(2, 3).double(), torch.zeros(2, 3, 3).double()
    maps.moments(0, 2, maps.Moments(*arrays(x, sums, products)))
    expected = moments(x.double())
    torch.testing.assert_close(sums, expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(products, expected[1], rtol=1e-6, atol=0)
