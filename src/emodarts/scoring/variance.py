"""How much of a score is the genotype and how much the seed: analysis of variance."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

#: Level and power of the number of seeds, as is usual.
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Headroom:
    """What a choice among genotypes can gain. Scores and deviations are shares, not percent.

    Attributes
    ----------
    mean : of all scores.
    sd_genotypes : between genotypes, without what seeds add to it; 0 where seeds explain all.
    sd_seeds : between seeds of one genotype.
    f, p : one-way analysis of variance over genotypes; ``f`` is None without any spread of seeds.
    gain : expected gain over the mean genotype, in new seeds, of the best of all by its mean.
    seeds_needed : of each of two systems, for a difference of ``difference`` to be found.
    difference : that is to be found.
    """

    mean: float
    sd_genotypes: float
    sd_seeds: float
    f: float | None
    p: float
    gain: float
    seeds_needed: int
    difference: float


def headroom(scores: ArrayLike, difference: float = 0.03) -> Headroom:
    r"""Analyse the scores ``(K, S)`` of K genotypes with S seeds each, both at least 2.

    With mean squares :math:`M_g` between and :math:`M_s` within genotypes, :math:`F = M_g / M_s`,
    and the variance of genotypes is :math:`\sigma_g^2 = \max(0, (M_g - M_s) / S)`. The best of K
    by its mean is above the mean genotype by :math:`E_K \sigma_g^2 / \sqrt{\sigma_g^2 + M_s / S}`
    when it is trained anew (regression to the mean), where :math:`E_K` is the expected maximum of
    K standard normal values. To find a difference d between two systems, each needs
    :math:`2 (z_{1 - \alpha / 2} + z_{1 - \beta})^2 M_s / d^2` seeds.

    Raises
    ------
    ValueError
        For fewer than two genotypes or seeds.
    """
    from scipy import stats

    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"scores of shape {values.shape}; allowed: (K, S), both at least 2")
    k, s = values.shape
    between = s * float(values.mean(axis=1).var(ddof=1))
    within = float(values.var(axis=1, ddof=1).mean())
    f = between / within if within > 0 else None
    p = float(stats.f.sf(f, k - 1, k * (s - 1))) if f is not None else float(between == 0)
    variance = max(0.0, (between - within) / s)
    spread = math.sqrt(variance + within / s)
    z = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return Headroom(
        mean=float(values.mean()),
        sd_genotypes=math.sqrt(variance),
        sd_seeds=math.sqrt(within),
        f=f,
        p=p,
        gain=expected_maximum(k) * variance / spread if spread > 0 else 0.0,
        seeds_needed=max(2, math.ceil(2 * z**2 * within / difference**2)),
        difference=difference,
    )


@functools.cache
def expected_maximum(count: int) -> float:
    """Expected maximum of ``count`` independent standard normal values."""
    from scipy import integrate, special

    def density(x: float) -> float:
        bell = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return float(x * count * bell * special.ndtr(x) ** (count - 1))

    return float(integrate.quad(density, -10, 10)[0])
