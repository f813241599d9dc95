"""LSTMs and RNNs in compiled loops against those of torch, in cells and as layers of a network."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from emodarts.errors import ShapeError
from emodarts.fast import classes_of
from emodarts.fast.base import differentiable_twice
from emodarts.fast.jit import Array
from emodarts.fast.recurrence import tanh_of
from emodarts.space.cell import MixedOperation
from emodarts.space.sequence_ops import Recurrent

Kind = Literal["lstm", "rnn"]
#: Utterances, steps, features and units: one of all, parts of tiles, more than tiles, whole tiles.
SIZES = [(1, 1, 1, 1), (3, 1, 5, 4), (1, 6, 3, 37), (11, 5, 13, 37), (16, 7, 32, 32)]
KINDS = pytest.mark.parametrize("kind", ["lstm", "rnn"])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True])


GRU = pytest.mark.parametrize("kind", ["lstm", "rnn", "gru"])  # the last has no loops


def build(
    kind: Kind | Literal["gru"],
    width_in: int,
    width: int,
    layers: int = 1,
    *,
    bidirectional: bool = False,
    attention: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Recurrent:
    """With biases that differ and are as large as the rest."""
    torch.manual_seed(0)
    module = Recurrent(
        kind, width_in, width, layers, bidirectional=bidirectional, attention=attention
    )
    return module.to(dtype)


def run_compiled(module: Recurrent, x: Tensor) -> Tensor:
    """A cell of this candidate alone."""
    identity = torch.nn.Identity(), torch.nn.Identity()
    cell = classes_of("compiled").sequence_cell(
        identity, [(0, 0)], [MixedOperation(["only"], [module])], -1
    )
    out: Tensor = cell(x, x.detach(), torch.ones(1, 1, dtype=x.dtype))
    return out


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def leaves_of(module: Recurrent, x: Tensor) -> dict[str, Tensor]:
    return {"x": x, **dict(module.named_parameters())}


def with_gradients(
    run: Callable[[Tensor], Tensor], module: Recurrent, x: Tensor
) -> dict[str, Tensor]:
    """The output and the gradients of a sum of it, weighted, for the input and all parameters."""
    leaves = leaves_of(module, x.requires_grad_())
    y = run(x)
    loss = (y * draw(*y.shape, seed=2).to(y.dtype)).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"output": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


# Against torch


@KINDS
@DIRECTIONS
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_and_gradients_are_those_of_torch(
    size: tuple[int, int, int, int],
    layers: int,
    attention: bool,
    bidirectional: bool,
    kind: Kind,
) -> None:
    batch, time, width_in, width = size
    module = build(kind, width_in, width, layers, bidirectional=bidirectional, attention=attention)
    x = draw(batch, time, width_in)
    found = with_gradients(lambda x: run_compiled(module, x), module, x.clone())
    expected = with_gradients(module, module, x.clone())
    for name in expected:
        assert_same(found[name], expected[name])
    assert found["output"].any()


@KINDS
@DIRECTIONS
def test_large_inputs_saturate_as_those_of_torch(kind: Kind, bidirectional: bool) -> None:
    module = build(kind, 5, 9, 2, bidirectional=bidirectional)
    x = 30 * draw(4, 6, 5)
    found = with_gradients(lambda x: run_compiled(module, x), module, x.clone())
    expected = with_gradients(module, module, x.clone())
    for name in expected:
        assert_same(found[name], expected[name])


@KINDS
@DIRECTIONS
def test_errors_in_float32_are_of_the_size_of_those_of_torch(
    kind: Kind, bidirectional: bool
) -> None:
    """At most three times, or nothing: a bias of scores that a softmax follows has no gradient."""
    settings: dict[str, Any] = {"bidirectional": bidirectional, "attention": bidirectional}
    single = build(kind, 64, 64, 2, **settings, dtype=torch.float32)
    double = build(kind, 64, 64, 2, **settings)
    x = draw(16, 32, 64).float()
    expected = with_gradients(double, double, x.double())
    found = with_gradients(lambda x: run_compiled(single, x), single, x.clone())
    by_torch = with_gradients(single, single, x.clone())
    for name, exact in expected.items():
        assert found[name].dtype == torch.float32
        own, other = (float((g[name].double() - exact).norm()) for g in (found, by_torch))
        assert own <= 3 * other + 1e-6, name


@pytest.mark.parametrize("width_in", [5, 2])
def test_an_input_of_other_shape_is_refused(width_in: int) -> None:
    module = build("lstm", width_in, 4)
    for shape in ((3, width_in), (1, 2, 3, width_in)):
        with pytest.raises(ShapeError, match="a recurrent operation needs"):
            run_compiled(module, draw(*shape))


# What gradients are computed, and of what


@KINDS
@DIRECTIONS
def test_gradients_are_those_of_what_is_asked_for_alone(kind: Kind, bidirectional: bool) -> None:
    x = draw(5, 4, 6)
    module = build(kind, 6, 9, 2, bidirectional=bidirectional)
    expected = with_gradients(module, module, x.clone())
    weights = draw(*expected["output"].shape, seed=2)
    for wanted in leaves_of(module, x):
        leaves = leaves_of(module, x.clone())
        for name, leaf in leaves.items():
            leaf.requires_grad_(name == wanted)
        loss = (run_compiled(module, leaves["x"]) * weights).sum()
        torch.autograd.backward(loss)
        for name, leaf in leaves.items():
            if name == wanted:
                assert leaf.grad is not None
                assert_same(leaf.grad, expected[name])
            else:
                assert leaf.grad is None
            leaf.grad = None


@KINDS
def test_an_input_without_gradient_leaves_those_of_parameters(kind: Kind) -> None:
    x = draw(5, 4, 6)
    module = build(kind, 6, 9, 2, bidirectional=True, attention=True)
    expected = with_gradients(module, module, x.clone())
    y = run_compiled(module, x)
    torch.autograd.backward((y * draw(*y.shape, seed=2)).sum())
    assert x.grad is None
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert_same(parameter.grad, expected[name])


@KINDS
@DIRECTIONS
def test_gradients_of_the_two_biases_are_equal_and_share_no_memory(
    kind: Kind, bidirectional: bool
) -> None:
    module = build(kind, 3, 7, bidirectional=bidirectional)
    for way in ("", "_reverse")[: 1 + bidirectional]:
        biases = [getattr(module.recurrent, f"bias_{name}_l0{way}") for name in ("ih", "hh")]
        first, second = torch.autograd.grad(run_compiled(module, draw(5, 4, 3)).sum(), biases)
        assert torch.equal(first, second)
        before = second.clone()
        first.mul_(2).add_(1)
        assert torch.equal(second, before)


def expanded(*shape: int) -> Tensor:
    return draw(1).expand(shape)


def with_time_outside(*shape: int) -> Tensor:
    batch, time, width = shape
    return draw(time, batch, width).transpose(0, 1)


def with_channels_outside(*shape: int) -> Tensor:
    batch, time, width = shape
    return draw(width, time, batch).permute(2, 1, 0)


@KINDS
@DIRECTIONS
@pytest.mark.parametrize("layout", [draw, expanded, with_time_outside, with_channels_outside])
def test_a_gradient_that_comes_in_may_lie_anyhow_and_stays_as_it_is(
    layout: Callable[..., Tensor], kind: Kind, bidirectional: bool
) -> None:
    module = build(kind, 3, 7, 2, bidirectional=bidirectional)
    x = draw(5, 4, 3).requires_grad_()
    leaves = list(leaves_of(module, x).values())
    gradient = layout(5, 4, module.out_features)
    before = gradient.clone()
    found = torch.autograd.grad(run_compiled(module, x), leaves, gradient)
    assert torch.equal(gradient, before)
    for own, expected in zip(found, torch.autograd.grad(module(x), leaves, before), strict=True):
        assert_same(own, expected)


@KINDS
def test_a_graph_that_is_kept_gives_the_same_gradients_twice(kind: Kind) -> None:
    module = build(kind, 3, 7, 2, bidirectional=True)
    x = draw(5, 4, 3).requires_grad_()
    leaves = list(leaves_of(module, x).values())
    loss = run_compiled(module, x).square().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    for own, other in zip(first, second, strict=True):
        assert torch.equal(own, other)


@KINDS
def test_a_second_derivative_is_refused(kind: Kind) -> None:
    module = build(kind, 3, 4)
    x = draw(2, 3, 3).requires_grad_()
    loss = run_compiled(module, x).square().sum()
    with pytest.raises(RuntimeError, match="differentiable_twice"):
        torch.autograd.grad(loss, x, create_graph=True)


# Layers of a network, of utterances that differ in length


def as_layers(module: Recurrent) -> Recurrent:
    """Compiled layers of the same weights."""
    own, attention = module.recurrent, module.attention is not None
    made = classes_of("compiled").recurrent(
        own.mode.lower().replace("rnn_tanh", "rnn"),
        own.input_size,
        own.hidden_size,
        own.num_layers,
        bidirectional=own.bidirectional,
        attention=attention,
    )
    made.load_state_dict(module.state_dict())
    return made.to(next(module.parameters()).dtype)


@GRU
@DIRECTIONS
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_steps_that_are_missing_are_those_of_torch(
    size: tuple[int, int, int, int],
    layers: int,
    attention: bool,
    bidirectional: bool,
    kind: Kind,
) -> None:
    batch, time, width_in, width = size
    plain = build(kind, width_in, width, layers, bidirectional=bidirectional, attention=attention)
    module = as_layers(plain)
    lengths = 1 + (torch.arange(batch) * 5) % time  # from one step to all, or nearly
    present = torch.arange(time) < lengths[:, None]
    for mask in (None, present):
        x = draw(batch, time, width_in)
        found, expected = (
            with_gradients(partial(each, present=mask), each, x.clone()) for each in (module, plain)
        )
        for name in expected:
            assert_same(found[name], expected[name])


@KINDS
def test_what_is_behind_an_utterance_changes_nothing(kind: Kind) -> None:
    module = as_layers(build(kind, 6, 9, 2, bidirectional=True))
    present = torch.arange(7) < torch.tensor([[7], [3], [1]])
    x = draw(3, 7, 6)
    other = torch.where(present[..., None], x, 100 * draw(3, 7, 6, seed=3))
    found = [with_gradients(lambda x: module(x, present), module, each) for each in (x, other)]
    for name in ("output", "x"):
        assert torch.equal(found[0][name], found[1][name])
        assert not found[0][name][~present].any()


def test_layers_are_compiled_until_they_are_differentiated_twice() -> None:
    plain = build("lstm", 3, 7, bidirectional=True)
    module = as_layers(plain)
    x = draw(4, 5, 3).requires_grad_()
    loss = module(x).square().sum()
    with pytest.raises(RuntimeError, match="differentiable_twice"):
        torch.autograd.grad(loss, x, create_graph=True)
    with differentiable_twice(module):
        seconds = []
        for each in (module, plain):
            (first,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
            seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert_same(*seconds)


# Memory


@KINDS
@DIRECTIONS
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layout", [draw, with_time_outside])
def test_nothing_that_is_given_is_changed(
    layout: Callable[..., Tensor], attention: bool, bidirectional: bool, kind: Kind
) -> None:
    module = build(kind, 3, 7, 2, bidirectional=bidirectional, attention=attention)
    x = layout(5, 4, 3).requires_grad_()
    before = {name: leaf.detach().clone() for name, leaf in leaves_of(module, x).items()}
    y = run_compiled(module, x)
    assert y.shape == (5, 4, module.out_features)
    torch.autograd.backward(y.square().sum())
    for name, leaf in leaves_of(module, x).items():
        assert torch.equal(leaf, before[name])
    with torch.no_grad():
        assert torch.equal(run_compiled(module, x), y)


def test_an_input_that_changes_before_its_gradient_is_computed_is_an_error() -> None:
    module = build("lstm", 3, 7)
    x = with_time_outside(5, 4, 3)
    loss = run_compiled(module, x).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


# What depends on what


@KINDS
@pytest.mark.parametrize("value", [0.0, 3.0, torch.nan, torch.inf])
@pytest.mark.parametrize("batch", [3, 11, 16])
def test_utterances_do_not_see_each_other(batch: int, value: float, kind: Kind) -> None:
    """Bit by bit: the rows of a tile have sums of their own."""
    module = build(kind, 6, 37, 2, bidirectional=True, attention=True)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        y = run_compiled(module, x.requires_grad_())
        (of_x,) = torch.autograd.grad(y.square().sum(), x)
        return y.detach(), of_x

    x = draw(batch, 5, 6)
    expected = run(x.clone())
    for replaced in (0, batch // 2, batch - 1):
        other = x.clone()
        other[replaced] = value
        rest = torch.arange(batch) != replaced
        for found, before in zip(run(other), expected, strict=True):
            assert torch.equal(found[rest], before[rest])
            assert not torch.equal(found[replaced], before[replaced])


@KINDS
def test_the_order_of_utterances_is_that_of_the_results(kind: Kind) -> None:
    """Nearly: in rows that are left over of tiles the products are rounded once more."""
    module = build(kind, 6, 37, 2, bidirectional=True, attention=True)
    x = draw(11, 5, 6)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    assert_same(run_compiled(module, x[order]), run_compiled(module, x)[order])


@KINDS
@pytest.mark.parametrize("layers", [1, 3])
def test_a_step_of_one_direction_does_not_depend_on_later_ones(kind: Kind, layers: int) -> None:
    module = build(kind, 6, 9, layers)
    x = draw(5, 7, 6)
    expected = run_compiled(module, x)
    for t in range(1, 7):
        other = x.clone()
        other[:, t:] = draw(5, 7 - t, 6, seed=3)
        found = run_compiled(module, other)
        assert torch.equal(found[:, :t], expected[:, :t])
        assert not torch.isclose(found[:, t:], expected[:, t:]).all(dim=2).any()


@KINDS
def test_a_step_of_the_other_direction_does_not_depend_on_earlier_ones(kind: Kind) -> None:
    module = build(kind, 6, 9, bidirectional=True)
    x = draw(5, 7, 6)
    expected = run_compiled(module, x)
    for t in range(1, 7):
        other = x.clone()
        other[:, :t] = draw(5, t, 6, seed=3)
        found = run_compiled(module, other)
        assert torch.equal(found[:, t:, 9:], expected[:, t:, 9:])
        assert not torch.isclose(found[:, :t, 9:], expected[:, :t, 9:]).all(dim=2).any()
        assert not torch.isclose(found[:, t:, :9], expected[:, t:, :9]).all(dim=2).any()


# The hyperbolic tangent in float32


def tanh(x: Array) -> Array:
    y = x.astype(np.float32)
    tanh_of(y)
    return y


def test_tanh_of_float32_is_nearly_as_exact_as_float32() -> None:
    x = np.linspace(-12, 12, 2_000_001, dtype=np.float32)
    x = np.concatenate([x, np.geomspace(1e-30, 1, 200_001, dtype=np.float32)])
    x = x[x != 0]
    found, expected = tanh(x), np.tanh(x.astype(np.float64))
    assert np.abs(found / expected - 1).max() < 4e-7
    assert np.abs(found).max() <= 1
    assert np.array_equal(tanh(-x), -found)


def test_tanh_of_float32_has_the_limits_of_tanh() -> None:
    far = np.array([np.inf, 3e38, 1e10, 50.0, 8.5])
    assert np.abs(tanh(far) - 1).max() < 4e-7
    assert np.abs(tanh(-far) + 1).max() < 4e-7
    assert np.abs(tanh(np.concatenate([far, -far]))).max() <= 1
    assert np.array_equal(tanh(np.array([0.0, -0.0])), [0, 0])


@pytest.mark.parametrize("length", [1, 16, 33])
def test_tanh_of_float32_hides_no_nan(length: int) -> None:
    """In vectors and in what is left over."""
    for place in range(length):
        x = np.linspace(-3, 3, length)
        x[place] = np.nan
        assert np.array_equal(np.isnan(tanh(x)), np.isnan(x))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_in_a_step_reaches_what_follows_it(kind: Kind, dtype: torch.dtype) -> None:
    module = build(kind, 6, 9, dtype=dtype)
    x = draw(5, 7, 6).to(dtype)
    x[2, 3, 1] = torch.nan
    expected = torch.zeros(5, 7, 9, dtype=torch.bool)
    expected[2, 3:] = True
    assert torch.equal(run_compiled(module, x).isnan(), expected)
