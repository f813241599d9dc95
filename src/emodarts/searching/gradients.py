r"""Gradients of the architecture parameters, first and second order (DARTS, section 2.3).

With weights :math:`w`, architecture :math:`\alpha` and one look-ahead step of SGD

.. math:: w' = w - \xi (\mu m + \nabla_w L_{train}(w, \alpha) + \lambda w)

the second-order gradient is the total derivative of :math:`L_{val}(w', \alpha)`:

.. math::
    \nabla_\alpha L_{val}(w', \alpha)
    - \xi \, \nabla^2_{\alpha, w} L_{train}(w, \alpha) \, \nabla_{w'} L_{val}(w', \alpha)

The product with the Hessian is either exact, by differentiating twice, or the quotient
:math:`(\nabla_\alpha L_{train}(w^+) - \nabla_\alpha L_{train}(w^-)) / 2 \epsilon` with
:math:`w^\pm = w \pm \epsilon \nabla_{w'} L_{val}`, with a recipe's ``epsilon`` divided by the norm
of that gradient. First order is :math:`\xi = 0`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from emodarts import parallel
from emodarts.fast.base import differentiable_twice
from emodarts.searching.supernet import Supernet

#: Features (B, 1, F, T) and class indices (B,).
Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LookAhead:
    """The step of SGD that the second-order gradient looks past, before any clipping.

    Attributes
    ----------
    learning_rate : xi.
    momentum, weight_decay : of the weight optimiser.
    buffers : momentum buffer of each weight by name; missing before the first step.
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    buffers: Mapping[str, Tensor]


def first_order_gradient(supernet: Supernet, validation: Batch, loss: Loss) -> dict[str, Tensor]:
    """Gradient of the validation loss at the present weights, by cell name."""
    alphas = supernet.alpha_parameters()
    with frozen_running_statistics(supernet), _constant(supernet.weight_parameters()):
        logits = supernet(validation[0])
        grads = torch.autograd.grad(
            loss(logits, validation[1]), list(alphas.values()), allow_unused=True
        )
    found = parallel.total(grads)
    return {k: _zeros_if_none(g, alphas[k]) for k, g in zip(alphas, found, strict=True)}


def second_order_gradient(
    supernet: Supernet,
    train: Batch,
    validation: Batch,
    loss: Loss,
    step: LookAhead,
    *,
    hessian: Literal["exact", "finite_difference"],
    epsilon: float,
) -> dict[str, Tensor]:
    """Total derivative of the validation loss after one step on the training batch.

    All passes over the training batch use the dropout masks that the next pass over it would
    draw now, so that the caller's own training pass can reuse them by restoring
    :func:`random_state`. Batch norms use batch statistics; running ones stay as they are.

    Parameters
    ----------
    train, validation : features (B, 1, F, T) and class indices (B,).
    hessian : ``exact`` by differentiating twice, or the difference quotient.
    epsilon : of the quotient, divided by the norm of the validation gradient; ignored by
        ``exact``.

    Returns
    -------
    gradients : by cell name, shaped as the alphas.
    """
    weights = supernet.weight_parameters()
    alphas = list(supernet.alpha_parameters().values())
    device = train[0].device
    masks = random_state(device)
    exact = hessian == "exact"

    def train_loss() -> Tensor:
        restore_random_state(device, masks)
        return loss(supernet(train[0]), train[1])

    with frozen_running_statistics(supernet), _second_derivatives(supernet, exact):
        train_value = train_loss()
        gradient = torch.autograd.grad(
            train_value, list(weights.values()), create_graph=exact, allow_unused=True
        )
        ahead = look_ahead(
            weights, parallel.total([g if g is None else g.detach() for g in gradient]), step
        )
        if not exact:
            del gradient  # each of these copies is as large as the supernet
        with _weights_set_to(weights, ahead):
            del ahead
            logits = supernet(validation[0])
            grads = torch.autograd.grad(
                loss(logits, validation[1]), [*alphas, *weights.values()], allow_unused=True
            )
        summed = parallel.total(grads)
        direct, vector = summed[: len(alphas)], summed[len(alphas) :]
        if exact:
            product = _exact_product(alphas, gradient, vector)
        else:
            product = _difference_product(alphas, weights, vector, train_loss, epsilon)
    xi = step.learning_rate
    return {
        name: _zeros_if_none(d, a) - xi * _zeros_if_none(p, a)
        for (name, a), d, p in zip(
            supernet.alpha_parameters().items(), direct, parallel.total(product), strict=True
        )
    }


def look_ahead(
    weights: Mapping[str, Tensor], gradient: Sequence[Tensor | None], step: LookAhead
) -> list[Tensor]:
    """One step of SGD with momentum and weight decay, as new tensors."""
    ahead = []
    for (name, w), g in zip(weights.items(), gradient, strict=True):
        direction = step.weight_decay * w.detach()
        if g is not None:
            direction = direction + g
        buffer = step.buffers.get(name)
        if buffer is not None:
            direction = direction + step.momentum * buffer
        ahead.append(w.detach() - step.learning_rate * direction)
    return ahead


def _exact_product(
    alphas: Sequence[Tensor],
    gradient: Sequence[Tensor | None],
    vector: Sequence[Tensor | None],
) -> list[Tensor]:
    """Differentiate ``<gradient, vector>`` with respect to alpha."""
    pairs = [
        (g, v.detach())
        for g, v in zip(gradient, vector, strict=True)
        if g is not None and v is not None and g.requires_grad
    ]
    products = torch.autograd.grad(
        [g for g, _ in pairs], alphas, grad_outputs=[v for _, v in pairs], allow_unused=True
    )
    return [_zeros_if_none(p, a) for p, a in zip(products, alphas, strict=True)]


def _difference_product(
    alphas: Sequence[Tensor],
    weights: Mapping[str, nn.Parameter],
    vector: Sequence[Tensor | None],
    train_loss: Callable[[], Tensor],
    epsilon: float,
) -> list[Tensor]:
    """Central difference of the alpha gradient along ``vector``."""
    norm = _norm([v for v in vector if v is not None])
    if norm == 0:
        return [torch.zeros_like(a) for a in alphas]
    eps = epsilon / norm
    sides = []
    for sign in (1.0, -1.0):
        with (
            _weights_set_to(
                weights,
                (
                    w.detach() if v is None else w.detach() + sign * eps * v
                    for w, v in zip(list(weights.values()), vector, strict=True)
                ),
            ),
            _constant(weights),
        ):
            sides.append(torch.autograd.grad(train_loss(), alphas, allow_unused=True))
    return [
        (_zeros_if_none(p, a) - _zeros_if_none(n, a)) / (2.0 * eps)
        for p, n, a in zip(*sides, alphas, strict=True)
    ]


def _norm(tensors: Sequence[Tensor]) -> float:
    # Apple's GPUs have no float64.
    wide = torch.float32 if tensors and tensors[0].device.type == "mps" else torch.float64
    return float(torch.stack([v.to(wide).square().sum() for v in tensors]).sum().sqrt())


def _zeros_if_none(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


@contextmanager
def _weights_set_to(
    weights: Mapping[str, nn.Parameter], values: Iterable[Tensor]
) -> Iterator[None]:
    """Let each weight have another value for a while; the old tensor itself comes back."""
    before = [w.data for w in weights.values()]
    try:
        for w, value in zip(weights.values(), values, strict=True):
            w.data = value
        yield
    finally:
        for w, value in zip(weights.values(), before, strict=True):
            w.data = value


@contextmanager
def _constant(weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Let no gradient of the weights be prepared: functions that are written by hand ask."""
    try:
        for w in weights.values():
            w.requires_grad_(False)
        yield
    finally:
        for w in weights.values():
            w.requires_grad_(True)


@contextmanager
def frozen_running_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by batch statistics as in training, without updating running ones."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def _second_derivatives(supernet: Supernet, needed: bool) -> Iterator[None]:
    """Neither cuDNN's recurrent networks nor fast cells have them; torch's and plain ones do."""
    if not needed:
        yield
        return
    with torch.backends.cudnn.flags(enabled=False), differentiable_twice(supernet):
        yield


def random_state(device: torch.device) -> list[Tensor]:
    """State of the generators that draw dropout masks: the CPU's and the device's."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def restore_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    """Set what :func:`random_state` returned."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
