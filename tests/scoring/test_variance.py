"""Analysis of variance: against scipy, closed forms and simulated scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from emodarts.scoring.variance import expected_maximum, headroom


@pytest.mark.parametrize("shape", [(2, 2), (5, 2), (8, 3), (3, 10)])
def test_f_and_p_are_scipys(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    scores = 0.7 + 0.02 * generator.standard_normal(shape) + 0.03 * np.arange(shape[0])[:, None]
    expected = stats.f_oneway(*scores)
    found = headroom(scores)
    assert found.f == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx(scores.mean())


def test_deviations_and_gain_are_those_of_the_model_that_gave_the_scores() -> None:
    k, s, sd_genotypes, sd_seeds = 4, 2, 0.04, 0.03
    generator = np.random.default_rng(1)
    variances, within, gains, real = [], [], [], []
    for _ in range(3000):
        levels = sd_genotypes * generator.standard_normal(k)
        scores = levels[:, None] + sd_seeds * generator.standard_normal((k, s))
        found = headroom(scores)
        variances.append(found.sd_genotypes**2)
        within.append(found.sd_seeds**2)
        gains.append(found.gain)
        real.append(levels[scores.mean(axis=1).argmax()] - levels.mean())
    assert np.mean(within) == pytest.approx(sd_seeds**2, rel=0.05)
    assert np.mean(variances) == pytest.approx(sd_genotypes**2, rel=0.1)  # a variance below 0 is 0
    assert np.mean(gains) == pytest.approx(np.mean(real), rel=0.15)


def test_seeds_alone_leave_nothing_to_gain() -> None:
    scores = np.array([[0.6, 0.8], [0.8, 0.6], [0.7, 0.7]])
    found = headroom(scores)
    assert (found.sd_genotypes, found.gain) == (0.0, 0.0)
    assert found.p > 0.9


def test_without_spread_of_seeds_any_difference_counts() -> None:
    found = headroom([[0.6, 0.6], [0.7, 0.7]])
    assert found.f is None
    assert found.p == 0.0
    assert found.gain == pytest.approx(expected_maximum(2) * found.sd_genotypes)
    assert headroom([[0.6, 0.6], [0.6, 0.6]]).p == 1.0


def test_seeds_that_a_claim_needs_have_the_power_that_is_promised() -> None:
    generator = np.random.default_rng(2)
    sd = 0.03
    found = headroom(0.7 + sd * generator.standard_normal((60, 60)))
    n = found.seeds_needed
    assert n == math.ceil(2 * (1.959964 + 0.841621) ** 2 * found.sd_seeds**2 / 0.03**2)
    a = sd * generator.standard_normal((4000, n))
    b = 0.03 + sd * generator.standard_normal((4000, n))
    z = (b.mean(axis=1) - a.mean(axis=1)) / (sd * math.sqrt(2 / n))
    assert float((np.abs(z) > 1.96).mean()) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))]
)
def test_expected_maximum_of_normal_values(count: int, expected: float) -> None:
    assert expected_maximum(count) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scores", [[[0.5, 0.6]], [[0.5], [0.6]], [0.5, 0.6]])
def test_too_few_scores_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="both at least 2"):
        headroom(scores)
