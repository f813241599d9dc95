"""Relaxations: how alphas become the weights of the candidates, drawn or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from emodarts.recipe.search import Ramp, RelaxationSpec
from emodarts.searching.mixing import EDGES, Mixing, candidate_softmax
from emodarts.space.cell import edges

Weigh = Callable[[Tensor], Tensor]
"""An alpha ``(E, O)`` -> weights ``(E, O)``."""


def at(ramp: Ramp, share: float) -> float:
    """The value of a ramp at a share of the epochs, 0 for the first and 1 for the last."""
    first, last = ramp
    return first + (last - first) * share


def concentration(alpha: Tensor) -> Tensor:
    """Of the Dirichlet distributions of the edges: ``1 + elu(alpha)`` (DrNAS, section 4)."""
    return 1.0 + functional.elu(alpha)


def mean_of_dirichlet(alpha: Tensor) -> Tensor:
    """Mean of the Dirichlet distribution of each edge."""
    positive = concentration(alpha)
    return positive / positive.sum(dim=-1, keepdim=True)


#: Weights where nothing is drawn, by the kind of the relaxation.
EXPECTED: dict[str, Weigh] = {
    "softmax": candidate_softmax,
    "sigmoid": torch.sigmoid,
    "gumbel": candidate_softmax,
    "one_hot": candidate_softmax,
    "dirichlet": mean_of_dirichlet,
}


def draw(spec: RelaxationSpec, alphas: Mapping[str, Tensor], share: float) -> dict[str, Weigh]:
    """Draw, for each alpha, how it becomes weights in one step; gradients pass through.

    Parameters
    ----------
    share : of the epochs that are done, for the temperature.
    """
    match spec.kind:
        case "gumbel" | "one_hot":
            temperature = at(spec.temperature, share)
            hard = spec.kind == "one_hot"
            return {name: _gumbel(alpha, temperature, hard) for name, alpha in alphas.items()}
        case "dirichlet":
            return {name: _dirichlet(alpha) for name, alpha in alphas.items()}
    return dict.fromkeys(alphas, EXPECTED[spec.kind])


def _gumbel(alpha: Tensor, temperature: float, hard: bool) -> Weigh:
    """Softmax of ``(alpha + g) / temperature`` with Gumbel noise g, or its largest entry as 1.

    The gradient of the one-hot weights is that of the softmax (GDAS, eq. 6).
    """
    noise = -torch.empty_like(alpha).exponential_().log()

    def weigh(alpha: Tensor) -> Tensor:
        soft = torch.softmax((alpha + noise.to(alpha)) / temperature, dim=-1)
        if not hard:
            return soft
        chosen = functional.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft)
        return chosen + soft - soft.detach()

    return weigh


def _dirichlet(alpha: Tensor) -> Weigh:
    """A sample that is the same for all passes of a step; its gradient is the pathwise one."""
    seed = int(torch.randint(2**62, ()))

    def weigh(alpha: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Drawn on the CPU, so that all devices draw the same.
            sample = torch.distributions.Dirichlet(concentration(alpha.cpu())).rsample()
        return sample.to(alpha.device)

    return weigh


def mixing(weigh: Mapping[str, Weigh]) -> Mixing:
    """All cells: each by its own function, times the weights of the edges where there are some."""

    def mix(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, function in weigh.items():
            weights = function(alphas[name])
            if name + EDGES in alphas:
                weights = weights * edge_weights(alphas[name + EDGES])[:, None]
            found[name] = weights
        return found

    return mix


def edge_weights(parameters: Tensor) -> Tensor:
    """Softmax over the edges into each node (PC-DARTS, eq. 3): ``(E,)`` -> ``(E,)``."""
    nodes, rows = 0, 0
    while rows < len(parameters):
        rows += nodes + 2
        nodes += 1
    targets = [node for _, node in edges(nodes)]
    counts = [targets.count(node) for node in range(nodes)]
    return torch.cat([torch.softmax(part, dim=0) for part in torch.split(parameters, counts)])


def without_paths(weights: Mapping[str, Tensor], probability: float) -> Mixing:
    """Weights as they are but for paths that are dropped, whatever the alphas; without gradient."""
    dropped = {name: drop_paths(w.detach(), probability) for name, w in weights.items()}
    return lambda alphas: dropped


def drop_paths(weights: Tensor, probability: float) -> Tensor:
    """Set the weight of every candidate to 0 with a probability, but not of all of an edge.

    The others are scaled up to the old sum of the edge.
    """
    drawn = torch.rand(weights.shape, device=weights.device)
    kept = drawn >= probability
    # The one that was drawn highest stays in any case.
    kept |= drawn >= drawn.max(dim=-1, keepdim=True).values
    left = weights * kept
    total = left.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return left * (weights.sum(dim=-1, keepdim=True) / total)
