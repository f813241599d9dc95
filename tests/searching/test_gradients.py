"""The gradient of alpha against exact automatic differentiation in float64."""

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from emodarts.fast.base import differentiable_twice
from emodarts.recipe import CNNSpec, FixedSeqNN, NetworkSpec, SearchedSeqNN
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    first_order_gradient,
    frozen_running_statistics,
    look_ahead,
    random_state,
    restore_random_state,
    second_order_gradient,
)
from emodarts.searching.supernet import Supernet

SPECS = {
    "searched": NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=2, channels=2),
        seqnn=SearchedSeqNN(space="all", cells=1, nodes=1, width=3),
        dropout=0.3,
    ),
    "fixed": NetworkSpec(
        cnn=CNNSpec(cells=2, nodes=1, channels=2),
        seqnn=FixedSeqNN(mode="fixed", width=3, attention=True),
        dropout=0.3,
    ),
}
LEARNING_RATE = 0.1
CPU = torch.device("cpu")


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 1, 8, 12, generator=generator, dtype=torch.float64)
    return features, torch.randint(3, (4,), generator=generator)


@pytest.fixture(params=SPECS)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPECS[request.param], 8, 3, initial_sd=0.5).double().train()


def momentum(supernet: Supernet) -> LookAhead:
    generator = torch.Generator().manual_seed(7)
    buffers = {
        name: 0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype)
        for name, w in supernet.weight_parameters().items()
    }
    return LookAhead(LEARNING_RATE, 0.9, 3e-4, buffers)


def exact_by_autograd(supernet: Supernet, train: Batch, validation: Batch) -> Tensor:
    """Differentiate the validation loss through the whole step, as one graph."""
    step = momentum(supernet)
    weights, alphas = supernet.weight_parameters(), supernet.alpha_parameters()
    with frozen_running_statistics(supernet), differentiable_twice(supernet):
        loss = functional.cross_entropy(supernet(train[0]), train[1])
        gradient = torch.autograd.grad(
            loss, list(weights.values()), create_graph=True, allow_unused=True
        )
        ahead = {}
        for (name, w), g in zip(weights.items(), gradient, strict=True):
            direction = 0.9 * step.buffers[name] + 3e-4 * w + (0 if g is None else g)
            ahead[name] = w - LEARNING_RATE * direction
        logits = functional_call(supernet, ahead, (validation[0],))
        loss = functional.cross_entropy(logits, validation[1])
        # A network of two cells has no normal one, whose alpha then gets no gradient.
        grads = torch.autograd.grad(
            loss, list(alphas.values()), materialize_grads=True, allow_unused=True
        )
        return flatten(dict(zip(alphas, grads, strict=True)))


def flatten(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.detach().flatten() for g in gradients.values()])


@pytest.mark.parametrize(
    ("hessian", "epsilon", "tolerance"),
    [("exact", 1.0, 1e-8), ("finite_difference", 1e-6, 1e-5)],
)
def test_second_order_equals_autograd_through_the_step(
    supernet: Supernet,
    hessian: Literal["exact", "finite_difference"],
    epsilon: float,
    tolerance: float,
) -> None:
    train, validation = batch(1), batch(2)
    masks = random_state(CPU)
    expected = exact_by_autograd(supernet, train, validation)
    restore_random_state(CPU, masks)
    gradients = second_order_gradient(
        supernet,
        train,
        validation,
        functional.cross_entropy,
        momentum(supernet),
        hessian=hessian,
        epsilon=epsilon,
    )
    restore_random_state(CPU, masks)
    supernet(train[0])  # leaves the generator where the validation pass found it above
    first = first_order_gradient(supernet, validation, functional.cross_entropy)
    error = (flatten(gradients) - expected).norm() / expected.norm()
    assert error < tolerance
    # The test means something only where the second-order term matters.
    assert (flatten(first) - expected).norm() / expected.norm() > 0.01


def test_a_wrong_scale_of_the_difference_quotient_would_be_seen(supernet: Supernet) -> None:
    """The published code multiplies by eps where it must divide."""
    train, validation = batch(1), batch(2)
    masks = random_state(CPU)
    results = []
    for epsilon in (1e-6, 2e-6):
        restore_random_state(CPU, masks)
        gradients = second_order_gradient(
            supernet,
            train,
            validation,
            functional.cross_entropy,
            momentum(supernet),
            hessian="finite_difference",
            epsilon=epsilon,
        )
        results.append(flatten(gradients))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-9)


def test_the_quotient_is_taken_at_a_distance_that_the_scale_of_the_loss_leaves(
    supernet: Supernet,
) -> None:
    """``epsilon`` is over the norm of the gradient: all is linear in the validation loss."""
    train, validation = batch(1), batch(2)
    masks = random_state(CPU)
    results = []
    for scale in (1.0, 100.0):

        def loss(logits: Tensor, targets: Tensor, scale: float = scale) -> Tensor:
            value = functional.cross_entropy(logits, targets)
            return scale * value if targets is validation[1] else value

        restore_random_state(CPU, masks)
        gradients = second_order_gradient(
            supernet,
            train,
            validation,
            loss,
            momentum(supernet),
            hessian="finite_difference",
            epsilon=0.3,
        )
        results.append(flatten(gradients) / scale)
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("hessian", ["exact", "finite_difference"])
def test_extra_passes_leave_no_trace(
    supernet: Supernet, hessian: Literal["exact", "finite_difference"]
) -> None:
    before = copy.deepcopy(supernet.state_dict())
    second_order_gradient(
        supernet,
        batch(1),
        batch(2),
        functional.cross_entropy,
        momentum(supernet),
        hessian=hessian,
        epsilon=0.3,
    )
    first_order_gradient(supernet, batch(2), functional.cross_entropy)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in supernet.parameters())
    supernet(batch(1)[0])  # an ordinary pass does update running statistics
    assert any(
        not torch.equal(v, before[k]) for k, v in supernet.state_dict().items() if "running" in k
    )


def test_dropout_masks_of_the_look_ahead_step_are_those_of_the_training_pass() -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPECS["searched"], 8, 3).double().train()
    train = batch(1)
    masks = random_state(CPU)
    with torch.no_grad():
        first = supernet(train[0])
        restore_random_state(CPU, masks)
        assert torch.equal(supernet(train[0]), first)
        assert not torch.equal(supernet(train[0]), first)


def test_look_ahead_is_the_step_that_sgd_takes(supernet: Supernet) -> None:
    weights = supernet.weight_parameters()
    optimiser = torch.optim.SGD(weights.values(), lr=LEARNING_RATE, momentum=0.9, weight_decay=3e-4)
    for turn in range(3):
        loss = functional.cross_entropy(supernet(batch(turn)[0]), batch(turn)[1])
        gradient = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        buffers = {
            name: optimiser.state[w]["momentum_buffer"].clone()
            for name, w in weights.items()
            if optimiser.state[w].get("momentum_buffer") is not None
        }
        ahead = look_ahead(weights, gradient, LookAhead(LEARNING_RATE, 0.9, 3e-4, buffers))
        for w, g in zip(weights.values(), gradient, strict=True):
            w.grad = torch.zeros_like(w) if g is None else g
        optimiser.step()
        for (name, w), expected in zip(weights.items(), ahead, strict=True):
            torch.testing.assert_close(w.detach(), expected, msg=name)
