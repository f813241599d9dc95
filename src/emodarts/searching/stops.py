"""When a search of alphas ends early, or a candidate is trained no more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from emodarts import parallel
from emodarts.genotype import Genotype
from emodarts.searching.gradients import Batch, first_order_gradient, frozen_running_statistics
from emodarts.searching.one_shot import Search

#: Epochs over which eigenvalues are averaged, and between the two that are compared.
WINDOW = 5
#: Steps over which the cosine of gradients is averaged (OLES, Algorithm 1).
MATCHING_STEPS = 20
#: What a search remembers of one supernet alone.
OF_ONE_SUPERNET = ("frozen", "matching", "eigenvalues")
#: Power iterations, and length of the step of their difference quotient.
_ITERATIONS, _STEP = 10, 1e-2


def exceeds_skips(records: Sequence[Mapping[str, Any]], limit: int) -> bool:
    """Whether, since the epoch before the last, a cell has ``limit`` skip connections or more.

    DARTS+, section 3.3. What random alphas begin with is no collapse, and there would be no epoch
    before it to return to.

    Parameters
    ----------
    records : of the epochs that trained the alphas of the present supernet, in order.
    """
    most = [
        max(Genotype.from_dict(record["genotype"]).skip_counts().values())
        for record in records[-2:]
    ]
    return len(most) == 2 and most[0] < limit <= most[1]


def has_grown(eigenvalues: Sequence[float], factor: float) -> bool:
    """Whether the mean of the last 5 eigenvalues exceeds ``factor`` times that of 5 epochs before.

    RobustDARTS, section 4.4, which writes it as a ratio below 0.75.
    """
    if len(eigenvalues) < 2 * WINDOW:
        return False
    recent, before = (
        sum(eigenvalues[end - WINDOW : end]) / WINDOW
        for end in (len(eigenvalues), len(eigenvalues) - WINDOW)
    )
    return recent > factor * max(before, 0.0)


def dominant_eigenvalue(search: Search, validation: Batch) -> float:
    """Of the Hessian of the validation loss in all alphas, at the present weights.

    By power iteration; the Hessian times a vector is a central difference of gradients.
    """
    alphas = search.supernet.alpha_parameters()

    def gradient() -> Tensor:
        found = first_order_gradient(search.supernet, validation, search.loss)
        return torch.cat([found[name].flatten() for name in alphas])

    def shifted(vector: Tensor) -> Tensor:
        parts = torch.split(vector, [a.numel() for a in alphas.values()])
        with torch.no_grad():
            for alpha, part in zip(alphas.values(), parts, strict=True):
                alpha.add_(part.view_as(alpha))
        found = gradient()
        with torch.no_grad():
            for alpha, old in zip(alphas.values(), before, strict=True):
                alpha.copy_(old)
        return found

    before = [a.detach().clone() for a in alphas.values()]
    training = search.supernet.training
    search.supernet.eval()  # no dropout, and batch norms that are constant
    try:
        vector = torch.randn_like(gradient())
        value = 0.0
        for _ in range(_ITERATIONS):
            vector = vector / vector.norm()
            product = (shifted(_STEP * vector) - shifted(-_STEP * vector)) / (2 * _STEP)
            value = float(vector @ product)
            vector = product
            if float(product.norm()) == 0.0:
                break
        return value
    finally:
        search.supernet.train(training)


class GradientMatching:
    """Freezes candidates whose gradients on the two halves of the data no longer agree (OLES)."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(
        self, search: Search, validation: Batch, gradients: dict[str, Tensor | None]
    ) -> None:
        """Note the cosines of this step; set the gradients of frozen candidates to None."""
        frozen = set(search.memory.setdefault("frozen", []))
        sums = search.memory.setdefault("matching", {})
        others = self._validation_gradients(search, validation)
        for candidate, names in _candidates(gradients).items():
            if candidate in frozen:
                continue
            cosine = _cosine([gradients[n] for n in names], [others[n] for n in names])
            if cosine is None:
                continue
            total, steps = sums.get(candidate, (0.0, 0))
            total += cosine
            steps += 1
            if steps == MATCHING_STEPS:
                if total / steps < self.threshold:
                    frozen.add(candidate)
                total, steps = 0.0, 0
            sums[candidate] = (total, steps)
        search.memory["frozen"] = sorted(frozen)
        for candidate, names in _candidates(gradients).items():
            if candidate in frozen:
                gradients.update(dict.fromkeys(names))

    def _validation_gradients(self, search: Search, validation: Batch) -> dict[str, Tensor | None]:
        weights = search.supernet.weight_parameters()
        with frozen_running_statistics(search.supernet):
            loss = search.loss(search.supernet(validation[0]), validation[1])
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        return dict(zip(weights, parallel.total(found), strict=True))


_CANDIDATE = re.compile(r"(.*\.edges\.\d+(?:\.operation)*\.operations\.\d+)\.")


def _candidates(gradients: dict[str, Tensor | None]) -> dict[str, list[str]]:
    """Names of the weights of each candidate on each edge."""
    found: dict[str, list[str]] = {}
    for name in gradients:
        match = _CANDIDATE.match(name)
        if match:
            found.setdefault(match[1], []).append(name)
    return found


def _cosine(one: list[Tensor | None], other: list[Tensor | None]) -> float | None:
    pairs = [
        (a.flatten(), b.flatten())
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    ]
    if not pairs:
        return None
    a, b = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else None
