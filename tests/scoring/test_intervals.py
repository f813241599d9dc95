"""The bootstrap against what is known of resampled means."""

from __future__ import annotations

import numpy as np
import pytest

from emodarts.scoring.intervals import BOOTSTRAP_SAMPLES, bootstrap, percentile_interval


def share_right(sums: np.ndarray) -> np.ndarray:
    return sums[:, :1] / sums.sum(1, keepdims=True)


def test_bootstrap_has_the_standard_error_of_a_mean() -> None:
    """For units of one utterance each, the error of WA is sqrt(p (1 - p) / n)."""
    n, right = 100, 80
    counts = np.repeat([[1.0, 0.0], [0.0, 1.0]], [right, n - right], axis=0)
    samples = bootstrap(counts, share_right)
    assert samples.shape == (BOOTSTRAP_SAMPLES, 1)
    assert samples.mean() == pytest.approx(0.8, abs=0.003)
    assert samples.std() == pytest.approx(np.sqrt(0.8 * 0.2 / n), rel=0.05)
    low, high = percentile_interval(samples)[0]
    assert (low, high) == pytest.approx(
        (0.8 - 1.96 * 0.04, 0.8 + 1.96 * 0.04), abs=0.0101
    )  # steps of 0.01


def test_bootstrap_is_the_same_at_every_call_and_for_any_size_of_units() -> None:
    """Units of many numbers are resampled in chunks; that changes no sample."""
    small = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0]])
    large = np.pad(small, [(0, 0), (0, 10_000)])
    expected = bootstrap(small, share_right)
    assert np.array_equal(bootstrap(small, share_right), expected)
    assert np.array_equal(bootstrap(large, lambda sums: share_right(sums[:, :2])), expected)
