"""Dropout: its probability, what it leaves, and masks that depend on values' places alone."""

import math

import pytest
import torch
from torch import Tensor

from emodarts.space.dropout import Dropout

N = 2**20


def dropped(x: Tensor, p: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    out: Tensor = Dropout(p).train()(x)
    return out


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_values_are_dropped_with_the_probability_and_their_mean_stays(p: float) -> None:
    out = dropped(torch.ones(N, dtype=torch.float64), p)
    assert abs((out == 0).double().mean() - p) < 4 * math.sqrt(p * (1 - p) / N)
    assert abs(out.mean() - 1) < 4 * math.sqrt(p / (1 - p) / N)
    kept = out[out != 0]
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert float(kept[0]) == pytest.approx(1 / (1 - p), rel=2**-15)


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_values_of_one_draw_are_dropped_each_for_itself(p: float) -> None:
    zeros = (dropped(torch.ones(N), p) == 0).double().view(-1, 4)
    n = len(zeros)
    assert (zeros.mean(dim=0) - p).abs().max() < 4 * math.sqrt(p * (1 - p) / n)
    together = zeros.t() @ zeros / n
    both = together[~torch.eye(4, dtype=torch.bool)]
    assert (both - p * p).abs().max() < 4 * math.sqrt(p**2 * (1 - p**2) / n)


def test_nothing_is_dropped_in_evaluation_or_without_a_probability() -> None:
    x = torch.randn(3, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


@pytest.mark.parametrize("p", [1.0, 1 - 1e-6])
def test_everything_is_dropped_with_probability_1(p: float) -> None:
    assert torch.equal(dropped(torch.randn(3, 5), p), torch.zeros(3, 5))


@pytest.mark.parametrize("shape", [(7,), (), (0, 3), (2, 3, 5)], ids=str)
def test_any_shape_stays(shape: tuple[int, ...]) -> None:
    assert dropped(torch.ones(shape), 0.5).shape == shape


def test_masks_do_not_depend_on_the_layout_of_a_map() -> None:
    x = torch.randn(3, 4, 5, 7)
    expected = dropped(x, 0.3)
    assert (expected == 0).any()
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert other.stride() != x.stride()
        assert torch.equal(dropped(other, 0.3), expected)


def test_the_seed_of_torch_decides_the_mask() -> None:
    x = torch.ones(1000)
    assert torch.equal(dropped(x, 0.5, 1), dropped(x, 0.5, 1))
    assert not torch.equal(dropped(x, 0.5, 1), dropped(x, 0.5, 2))
    torch.manual_seed(1)
    module = Dropout(0.5).train()
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_gradient_is_the_scaled_mask(dtype: torch.dtype) -> None:
    x = torch.randn(50, 20, dtype=dtype).requires_grad_()
    gradient = torch.randn(50, 20, dtype=dtype)
    out = dropped(x, 0.3)
    (found,) = torch.autograd.grad(out, x, gradient)
    scaled_mask = dropped(torch.ones_like(x), 0.3)
    assert out.dtype == found.dtype == dtype
    torch.testing.assert_close(out, x * scaled_mask)
    torch.testing.assert_close(found, gradient * scaled_mask)
