"""What is added to the loss of the alphas: means over the edges or weights of all cells."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emodarts.recipe.search import PenaltySpec
from emodarts.searching.relaxation import concentration


def beta_decay(alphas: Mapping[str, Tensor]) -> Tensor:
    """Mean over edges of logsumexp(alpha) (beta-DARTS, eq. 12)."""
    return torch.cat([torch.logsumexp(alpha, dim=-1) for alpha in alphas.values()]).mean()


def zero_one(weights: Mapping[str, Tensor]) -> Tensor:
    """``-mean (w - 0.5)^2`` over all weights (FairDARTS, eq. 4)."""
    return -torch.cat([(w - 0.5).square().flatten() for w in weights.values()]).mean()


def anchor(alphas: Mapping[str, Tensor]) -> Tensor:
    """Mean over edges of KL(Dir(1 + elu(alpha)) || Dir(1)) (DrNAS, section 4)."""
    found = []
    for alpha in alphas.values():
        positive = concentration(alpha)
        given = torch.distributions.Dirichlet(positive)
        flat = torch.distributions.Dirichlet(torch.ones_like(positive))
        found.append(torch.distributions.kl_divergence(given, flat))
    return torch.cat(found).mean()


def total(
    spec: PenaltySpec, alphas: Mapping[str, Tensor], weights: Mapping[str, Tensor], share: float
) -> Tensor:
    """Sum of the penalties.

    Parameters
    ----------
    alphas, weights : ``(E, O)`` by cell.
    share : of the epochs that are done.
    """
    terms = []
    if spec.beta_decay > 0:
        terms.append(spec.beta_decay * share * beta_decay(alphas))
    if spec.zero_one > 0:
        terms.append(spec.zero_one * zero_one(weights))
    if spec.anchor > 0:
        terms.append(spec.anchor * anchor(alphas))
    return torch.stack(terms).sum()
