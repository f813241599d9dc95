"""Bootstrap: the spread of a statistic over resampled units such as speakers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BOOTSTRAP_SAMPLES = 5000
FEWEST_UNITS = 3
"""Units from which on an interval is given: two have but three different resamples."""

_SEED = 20240314
_CHUNK = 2**22  # values that are resampled at a time


def bootstrap(counts: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """Statistics of summed counts of units that are drawn with replacement.

    How often each unit is drawn follows a multinomial distribution, so one matrix product
    sums the counts of many samples.

    Parameters
    ----------
    counts : of each unit [shape=(units, ...)].
    statistic : maps sums of counts [shape=(samples, ...)] to values [shape=(samples, n)].

    Returns
    -------
    values [shape=(BOOTSTRAP_SAMPLES, n)]; the same at every call.
    """
    n_units = len(counts)
    flat = counts.reshape(n_units, -1)
    generator = np.random.default_rng(_SEED)
    chunk = max(1, _CHUNK // max(flat.shape))
    values = []
    for start in range(0, BOOTSTRAP_SAMPLES, chunk):
        size = min(chunk, BOOTSTRAP_SAMPLES - start)
        drawn = generator.multinomial(n_units, np.full(n_units, 1 / n_units), size)
        values.append(statistic((drawn @ flat).reshape(size, *counts.shape[1:])))
    return np.concatenate(values)


def percentile_interval(values: Floats) -> Floats:
    """95 % percentile interval [shape=(n, 2)] of bootstrapped values [shape=(samples, n)].

    >>> percentile_interval(np.linspace(0, 1, 1001)[:, None]).tolist()
    [[0.025, 0.975]]
    """
    return np.quantile(values, [0.025, 0.975], axis=0).T
