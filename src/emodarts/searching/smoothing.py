"""SmoothDARTS (arXiv 2002.05283): train weights that bear a perturbation of the mixture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emodarts import parallel
from emodarts.recipe.search import SmoothingSpec
from emodarts.searching.gradients import (
    Batch,
    frozen_running_statistics,
    random_state,
    restore_random_state,
)
from emodarts.searching.mixing import Mixing
from emodarts.searching.one_shot import Search

#: Step of the ascent as a multiple of ``size / steps``, so that it can cross the whole ball.
_STRIDE = 2.0


def perturbed(
    search: Search, train: Batch, mixing: Mixing, spec: SmoothingSpec, size: float
) -> Mixing:
    """``mixing`` with a perturbation of at most ``size`` added to every weight; none below 0.

    Both kinds begin with uniform noise; ``adversarial`` then ascends the training loss by the sign
    of its gradient (eq. 9), always within ``size``.
    """
    with torch.no_grad():
        weights = mixing(search.supernet.alpha_parameters())
    # A candidate that dropped out in an earlier stage has no weight to perturb.
    noise = {
        name: torch.empty_like(w).uniform_(-size, size) * (w > 0) for name, w in weights.items()
    }
    if spec.kind == "adversarial":
        noise = _worst(search, train, weights, noise, spec, size)

    def mix(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: (w + noise[name]).clamp_min(0.0) for name, w in mixing(alphas).items()}

    return mix


def _worst(
    search: Search,
    train: Batch,
    weights: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    spec: SmoothingSpec,
    size: float,
) -> dict[str, Tensor]:
    device = train[0].device
    masks = random_state(device)
    supernet, before = search.supernet, search.supernet.mixing
    found = {name: n.clone() for name, n in noise.items()}
    try:
        with frozen_running_statistics(supernet):
            for _ in range(spec.steps):
                moved = {name: (weights[name] + n).requires_grad_() for name, n in found.items()}
                supernet.mixing = _constant(moved)
                restore_random_state(device, masks)
                loss = search.loss(supernet(train[0]), train[1])
                gradients = parallel.total(torch.autograd.grad(loss, list(moved.values())))
                for (name, n), gradient in zip(found.items(), gradients, strict=True):
                    if gradient is None:
                        continue
                    ascended = n + _STRIDE * size / spec.steps * gradient.sign()
                    found[name] = ascended.clamp(-size, size)
    finally:
        supernet.mixing = before
        restore_random_state(device, masks)
    return found


def _constant(weights: Mapping[str, Tensor]) -> Mixing:
    """Weights that do not depend on alphas; none below 0."""
    return lambda alphas: {name: w.clamp_min(0.0) for name, w in weights.items()}
