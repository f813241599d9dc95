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

from emodarts.space import kernels

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


def call(kernel: Any, *arguments: Any) -> None:
    """Call a kernel for all utterances, of which the first argument has one entry each."""
    as_arrays = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
    kernel(0, len(arguments[0]), *as_arrays)


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (B, D) and products (B, D, D) over positions."""
    return y.sum(dim=(2, 3)), torch.einsum("bcft,bdft->bcd", y, y)


# Depthwise convolution


@dataclass
class Stage:
    """Input and weights of :func:`kernels.depthwise`; without a matrix ``matrix`` has no size."""

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
    ) -> "Stage":
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
        call(
            kernels.depthwise,
            *self.tensors(),
            *self.geometry,
            out,
            sums,
            products,
            with_moments,
        )
        return out, sums, products

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
        call(
            kernels.depthwise_gradient,
            gradient,
            d.detach(),
            of_products,
            of_sums,
            self.x,
            self.matrix,
            self.bias,
            self.kernel.flip(1, 2).contiguous(),
            *self.geometry,
            of_x,
            *others,
            with_kernel,
        )
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
    stage = Stage.drawn(generator, (channels, None), size, k, geometry)
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
    stage = Stage.drawn(generator, (before, after), size, k, geometry)
    stage.check()
    stage.check_gradient(generator)


@pytest.mark.parametrize("after", [None, 4])
def test_depthwise_leaves_out_the_sums_that_are_not_asked_for(
    after: int | None, generator: torch.Generator
) -> None:
    stage = Stage.drawn(generator, (4, after), (5, 6), 3, (1, 1, 1))
    out, sums, products = stage.compute(with_moments=False)
    assert_same(out, stage.reference())
    assert (sums == 1).all()
    assert (products == 1).all()
    stage.check_gradient(generator, with_kernel=False)


# Pools


def pools_reference(x: Tensor, stride: int) -> Tensor:
    parts = [
        functional.max_pool2d(x, 3, stride, 1),
        functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False),
    ]
    if stride == 2:
        z = functional.pad(functional.relu(x), (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        parts += [z[:, :, 0::2, 0::2], z[:, :, 1::2, 1::2]]
    return torch.cat(parts, dim=1)


def pools_shares(x: Tensor, stride: int) -> Tensor:
    """One over the number of neighbours."""
    counts = 9 * functional.avg_pool2d(torch.ones_like(x[:1, :1]), 3, stride, 1)
    return (1 / counts.round())[0, 0]


def of_pairs_that_meet(products: Tensor, channels: int) -> Tensor:
    """Those of a channel with itself, and of the skip's with one another; zeros elsewhere."""
    kept = torch.eye(products.shape[-1], dtype=torch.bool)
    kept[2 * channels :, 2 * channels :] = True
    return products * kept


def computed_pools(x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Result, sums, products by the kernel; sums are added to ones."""
    size = [-(-n // stride) for n in x.shape[2:]]
    width = 2 * stride * x.shape[1]
    out = lost(len(x), width, *size)
    sums, products = torch.ones(len(x), width).double(), torch.ones(len(x), width, width).double()
    call(kernels.pools, x, stride, pools_shares(x, stride), out, sums, products)
    return out, sums, products


def pools_gradient(
    x: Tensor, stride: int, gradient: Tensor, of_products: Tensor, of_sums: Tensor
) -> Tensor:
    of_x, shares = lost(*x.shape), pools_shares(x, stride)
    y = pools_reference(x, stride).contiguous()
    call(kernels.pools_gradient, gradient, y, of_products, of_sums, x, stride, shares, of_x)
    return of_x


def check_pools(x: Tensor, stride: int, generator: torch.Generator) -> None:
    channels = x.shape[1]
    x = x.clone().requires_grad_()
    y = pools_reference(x, stride)
    sums, products = moments(y)
    products = of_pairs_that_meet(products, channels)
    found, found_sums, found_products = computed_pools(x.detach(), stride)
    assert_same(found, y.detach())
    assert_same(found_sums - 1, sums.detach())
    assert_same(of_pairs_that_meet(found_products - 1, channels), products.detach())

    direct, of_sums = draw(generator, *y.shape), draw(generator, y.shape[1])
    of_products = of_pairs_that_meet(symmetric(generator, y.shape[1]), channels)
    loss = (direct * y).sum() + (of_sums * sums).sum() + 0.5 * (of_products * products).sum()
    (expected,) = torch.autograd.grad(loss, x)
    assert_same(pools_gradient(x.detach(), stride, direct, of_products, of_sums), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [*SHAPES, (3, (1, 6)), (2, (9, 1))], ids=str)
def test_pools_and_what_a_skip_with_stride_2_reads(
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


@pytest.mark.parametrize("stride", [1, 2])
def test_the_maximum_of_a_constant_map_is_the_first_neighbour_that_is_there(stride: int) -> None:
    x = torch.full((1, 1, 5, 4), -2.0).double()
    y = pools_reference(x, stride)
    gradient = torch.zeros_like(y)
    gradient[0, 0] = torch.arange(1.0, gradient[0, 0].numel() + 1).view(gradient.shape[2:])
    expected = torch.zeros(5, 4).double()
    for f, row in enumerate(gradient[0, 0]):
        for t, g in enumerate(row):
            expected[max(stride * f - 1, 0), max(stride * t - 1, 0)] += g
    nothing = torch.zeros(y.shape[1], dtype=torch.float64)
    found = pools_gradient(x, stride, gradient, torch.diag(nothing), nothing)
    assert torch.equal(found[0, 0], expected)


# Diverged maps


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_depthwise_convolution_hides_no_nan_and_no_infinity(
    value: float, geometry: tuple[int, int, int], k: int, generator: torch.Generator
) -> None:
    stage = Stage.drawn(generator, (3, None), (9, 8), k, geometry)
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
        stage = Stage.drawn(generator, (3, 5), (9, 8), k, (1, 1, 1))
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
    out, sums, _ = computed_pools(x, stride)
    expected = pools_reference(x, stride)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(sums.isnan(), expected.isnan().any(dim=3).any(dim=2))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_projection_hides_no_nan(stride: int, generator: torch.Generator) -> None:
    for place in (2, 3):  # of either part that stride 2 makes
        x = draw(generator, BATCH, 2, 7, 6)
        x[1, 1, place, place] = torch.nan
        matrix = draw(generator, 3, 2 * stride)
        expected = torch.einsum("dc,bcft->bdft", matrix, parts_reference(x, stride))
        out, (sums, squares) = lost(*expected.shape), torch.zeros(2, BATCH, 3).double()
        call(kernels.project, x, stride, matrix, out, sums, squares)
        assert expected.isnan().sum() == 3
        assert torch.equal(out.isnan(), expected.isnan())
        assert sums[1].isnan().all()
        assert squares[1].isnan().all()


# Sums of a node


@dataclass
class Term:
    """Of a node; ``of_maps`` starts at ones where it is added to."""

    maps: Any
    matrix: Any
    bias: Any
    added: bool = False
    factors: Any = None
    of_maps: Any = None

    def as_arrays(self) -> "Term":
        of_maps = torch.ones_like(self.maps) if self.added else lost(*self.maps.shape)
        factors = None if self.factors is None else self.factors.numpy()
        arrays = self.maps.numpy(), self.matrix.numpy(), self.bias.numpy()
        return Term(*arrays, self.added, factors, of_maps.numpy())


def drawn_terms(generator: torch.Generator, channels: int, size: tuple[int, int]) -> list[Term]:
    """Matrices and factors of channels, parts of wider maps, utterances that are left out."""
    wide = draw(generator, BATCH, 4 * channels, *size)
    some = draw(generator, BATCH)
    some[1] = 0.0
    one = draw(generator, BATCH, channels, *size)
    return [
        Term(
            draw(generator, BATCH, channels + 3, *size),
            draw(generator, channels, channels + 3),
            draw(generator, channels),
        ),
        Term(
            wide[:, 2 * channels :],
            draw(generator, channels, 2 * channels),
            draw(generator, channels),
        ),
        Term(wide[:, : 2 * channels], draw(generator, 2 * channels), draw(generator, channels)),
        Term(one, draw(generator, channels), draw(generator, channels), added=True),
        Term(
            one.clone(),
            draw(generator, channels, channels),
            draw(generator, channels),
            factors=some,
        ),
    ]


def mix_reference(terms: list[Term]) -> Tensor:
    total = torch.zeros(())
    for term in terms:
        if term.matrix.dim() == 1:
            groups = (term.maps * term.matrix[:, None, None]).unflatten(1, (-1, len(term.bias)))
            found = groups.sum(dim=1)
        else:
            found = torch.einsum("dc,bcft->bdft", term.matrix, term.maps)
        each = torch.ones(BATCH) if term.factors is None else term.factors
        total = total + each[:, None, None, None] * (found + term.bias[:, None, None])
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
    given = [term.as_arrays() for term in terms]
    out = lost(BATCH, channels, *size)
    kernels.mix(given, out.numpy())
    wanted = [x.requires_grad_() for t in terms for x in (t.maps, t.matrix, t.bias)]
    expected = mix_reference(terms)
    assert_same(out, expected.detach())

    gradient = draw(generator, *out.shape)
    references = iter(torch.autograd.grad(expected, wanted, gradient))
    for term, others in zip(given, kernels.unmix(gradient.numpy(), given), strict=True):
        for found in (term.of_maps - 1 if term.added else term.of_maps, *others):
            assert_same(torch.from_numpy(found), next(references))


# Projections


def parts_reference(x: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return functional.relu(x)
    return pools_reference(x, 2)[:, 2 * x.shape[1] :]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("before", "after", "size"), AFFINE, ids=str)
def test_a_projection_is_a_matrix_times_the_rectified_map(
    before: int, after: int, size: tuple[int, int], stride: int, generator: torch.Generator
) -> None:
    x = draw(generator, BATCH, before, *size).requires_grad_()
    matrix = draw(generator, after, stride * before).requires_grad_()
    y = torch.einsum("dc,bcft->bdft", matrix, parts_reference(x, stride))
    out = lost(*y.shape)
    sums, squares = torch.ones(2, BATCH, after).double()
    call(kernels.project, x.detach(), stride, matrix.detach(), out, sums, squares)
    assert_same(out, y.detach())
    assert_same(sums - 1, y.detach().sum(dim=(2, 3)))
    assert_same(squares - 1, y.detach().square().sum(dim=(2, 3)))

    gradient, z = draw(generator, *y.shape), draw(generator, *y.shape)
    factors = draw(generator, 3, after)
    p, q, r = factors[:, :, None, None]
    expected = torch.autograd.grad(y, [x, matrix], p * gradient + q * z + r)
    for wanted in (True, False):
        of_x, of_matrix = lost(*x.shape), torch.ones(BATCH, *matrix.shape).double()
        call(
            kernels.project_gradient,
            gradient,
            z,
            factors,
            x.detach(),
            stride,
            matrix.detach().t().contiguous(),
            of_x,
            of_matrix,
            wanted,
        )
        assert_same(of_x, expected[0])
        assert_same((of_matrix - 1).sum(dim=0), expected[1] * wanted)


@pytest.mark.parametrize(("channels", "size"), SHAPES, ids=str)
def test_scaling_in_place_and_sums_of_products(
    channels: int, size: tuple[int, int], generator: torch.Generator
) -> None:
    x, y = draw(generator, BATCH, channels, *size), draw(generator, BATCH, channels, *size)
    sums, products = torch.ones(2, BATCH, channels).double()
    call(kernels.sums_of_products, x, y, sums, products)
    assert_same(sums - 1, x.sum(dim=(2, 3)))
    assert_same(products - 1, (x * y).sum(dim=(2, 3)))

    factors, summands = draw(generator, 2, channels)
    expected = factors[:, None, None] * x + summands[:, None, None]
    call(kernels.scale, x, factors, summands)
    assert_same(x, expected)


# Threads


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("cache", [1, 100, 2**20])
def test_every_utterance_goes_once_through_all_calls_in_their_order(
    threads: int,
    cache: int,
    monkeypatch: pytest.MonkeyPatch,
    set_threads: Callable[[int], None],
) -> None:
    set_threads(threads)
    monkeypatch.setattr(kernels, "_CACHE", cache)
    seen: list[list[str]] = [[] for _ in range(5)]

    def kernel(first: int, last: int, x: np.ndarray[Any, Any], name: str) -> None:
        assert first < last
        assert len(x) == 5
        for b in range(first, last):
            seen[b].append(name)

    x = np.zeros((5, 4))
    kernels.in_parallel(kernel, [(x, "first"), (x, "second"), (x, "third")])
    kernels.in_parallel(kernel, [])
    assert seen == [["first", "second", "third"]] * 5


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_any_share_is_raised(threads: int, set_threads: Callable[[int], None]) -> None:
    set_threads(threads)

    def kernel(first: int, last: int, x: np.ndarray[Any, Any]) -> None:
        if last == len(x):
            raise ValueError("the last share")

    with pytest.raises(ValueError, match="the last share"):
        kernels.in_parallel(kernel, [(np.zeros((6, 1)),)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_results_do_not_depend_on_the_number_of_threads_bit_by_bit(
    dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    """Of every kernel, with more positions than a block and shares that are not equal."""

    def everything() -> list[bytes]:
        generator = torch.Generator().manual_seed(0)

        def array(*shape: int) -> Any:
            return draw(generator, *shape).to(dtype).numpy()

        def zeros(*shape: int) -> Any:
            return np.zeros(shape)

        batch, channels, size = 5, 6, (41, 33)
        half = (21, 17)
        x = array(batch, channels, *size)
        empty, nothing = array(0, 0), array(0)
        matrix, bias = array(channels, channels), array(channels)
        found: list[Any] = []
        calls, calls_back = [], []
        for k, m, b in ((3, matrix, bias), (5, matrix, bias), (3, empty, nothing)):
            kernel, d = array(channels, k, k), array(batch, channels, *size)
            results = d, zeros(batch, channels), zeros(batch, channels, channels)
            calls.append((x, m, b, kernel, 1, 1, 1, *results, True))
            back = array(batch, channels, *size)
            gradients = (
                array(*x.shape),
                zeros(batch, *m.shape),
                zeros(batch, *b.shape),
                zeros(batch, *kernel.shape),
            )
            given = (back, d, matrix, bias, x, m, b, kernel)
            calls_back.append((*given, 1, 1, 1, *gradients, True))
            found += [*results, back, *gradients]
        kernels.in_parallel(kernels.depthwise, calls)
        kernels.in_parallel(kernels.depthwise_gradient, calls_back)

        width = 4 * channels
        shares = pools_shares(torch.from_numpy(x), 2).numpy()
        y, of_x = array(batch, width, *half), array(*x.shape)
        pooled = zeros(batch, width), zeros(batch, width, width)
        kernels.in_parallel(kernels.pools, [(x, 2, shares, y, *pooled)])
        given = (array(*y.shape), y, array(width, width), array(width), x, 2, shares, of_x)
        kernels.in_parallel(kernels.pools_gradient, [given])
        found += [y, *pooled, of_x]

        z, sums, squares = array(batch, 3, *half), zeros(batch, 3), zeros(batch, 3)
        wide = array(3, 2 * channels)
        of_x, of_matrix = array(*x.shape), zeros(batch, *wide.shape)
        kernels.in_parallel(kernels.project, [(x, 2, wide, z, sums, squares)])
        found += [z.copy(), sums.copy(), squares.copy()]
        kernels.in_parallel(kernels.scale, [(z, array(3), array(3))])
        g = array(*z.shape)
        kernels.in_parallel(kernels.sums_of_products, [(g, z, sums, squares)])
        given = (g, z, array(3, 3), x, 2, np.ascontiguousarray(wide.T), of_x, of_matrix)
        kernels.in_parallel(kernels.project_gradient, [(*given, True)])
        found += [z, sums, squares, of_x, of_matrix]

        maps = [array(batch, channels, *size) for _ in range(2)]
        terms = [
            Term(maps[0], matrix.astype(np.float64), zeros(channels), of_maps=array(*x.shape)),
            Term(maps[1], bias.astype(np.float64), zeros(channels), of_maps=array(*x.shape)),
        ]
        node = array(batch, channels, *size)
        kernels.mix(terms, node)
        others = kernels.unmix(array(*node.shape), terms)
        found += [node, *(term.of_maps for term in terms), *(x for pair in others for x in pair)]
        assert all(np.isfinite(a).all() for a in found)
        return [a.tobytes() for a in found]

    set_threads(1)
    expected = everything()
    for threads in (2, 3):
        set_threads(threads)
        assert torch.get_num_threads() == threads
        assert everything() == expected


def test_maps_in_float32_have_the_sums_of_float64(generator: torch.Generator) -> None:
    """Over many blocks, up to what one block loses."""
    x = 1 + 0.1 * draw(generator, 2, 3, 201, 101)
    wide = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    narrow = x.float()
    call(kernels.sums_of_products, narrow, narrow, *wide)
    torch.testing.assert_close(wide[0], narrow.double().sum(dim=(2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(wide[1], narrow.double().square().sum(dim=(2, 3)), rtol=1e-6, atol=0)
