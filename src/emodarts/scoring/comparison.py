"""Comparison of systems on the same utterances, two at a time, and a correction for many pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts.errors import RunError, list_some
from emodarts.scoring.metrics import confusions_by_unit, ua, wa
from emodarts.scoring.predictions import Prediction, by_fold_and_seed

PERMUTATIONS = 9999
"""Sign flips that are drawn; with no more than that, all of them are counted."""

_SEED = 20240314


def paired_test(
    a: Sequence[Prediction], b: Sequence[Prediction], classes: Sequence[str]
) -> dict[str, Any]:
    """Test whether two systems differ on the same utterances, with speakers as units.

    For each speaker, UA (over the classes that the speaker has) and WA are averaged over
    seeds; the values of the two systems form a pair. Under the null hypothesis the systems
    are exchangeable within each speaker, so the two-sided p-value counts sign flips of the
    differences: all of them, or :data:`PERMUTATIONS` random ones where there are more.

    Returns
    -------
    dict
        ``{n_speakers, n_utterances, ua: {difference, p}, wa: {difference, p}}``;
        a difference is the mean over speakers of ``a`` minus ``b``, as a fraction.

    Raises
    ------
    RunError
        If the systems were tested on different utterances or labels, an utterance has no
        speaker, there are fewer than two speakers, or for what :func:`by_fold_and_seed`
        refuses.
    """
    from scipy.stats import permutation_test

    by_fold_and_seed(a), by_fold_and_seed(b)
    _check_same_utterances(a, b)
    speakers = {p.speaker for p in a}
    if len(speakers) < 2:
        raise RunError(f"a paired test needs at least two speakers, not {len(speakers)}")
    result: dict[str, Any] = {
        "n_speakers": len(speakers),
        "n_utterances": len({p.name for p in a}),
    }
    confusions = [_speaker_confusions(system, classes) for system in (a, b)]
    for name, metric in (("ua", ua), ("wa", wa)):
        test = permutation_test(
            [metric(confusion).mean(1) for confusion in confusions],
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=PERMUTATIONS,
            random_state=np.random.default_rng(_SEED),
        )
        result[name] = {"difference": float(test.statistic), "p": float(test.pvalue)}
    return result


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scand. J. Statist. 6, 1979, 65-70).

    The k-th smallest of n, from 0, is multiplied by n - k; none gets below a smaller one's, or
    above 1.
    """
    corrected = [0.0] * len(p)
    least = 0.0
    for k, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        least = max(least, min(1.0, (len(p) - k) * p[index]))
        corrected[index] = least
    return corrected


def _check_same_utterances(a: Sequence[Prediction], b: Sequence[Prediction]) -> None:
    facts_a, facts_b = ({p.name: (p.label, p.speaker) for p in system} for system in (a, b))
    differing = sorted(set(facts_a) ^ set(facts_b))
    if differing:
        raise RunError(
            f"the systems were tested on different utterances: {len(facts_a)} and "
            f"{len(facts_b)}, {len(differing)} of them in one only, e.g. {differing[0]!r}"
        )
    changed = [name for name in facts_a if facts_a[name] != facts_b[name]]
    if changed:
        raise RunError(f"label or speaker of {list_some(changed)} differs between the systems")
    unknown = [name for name, (_, speaker) in facts_a.items() if speaker is None]
    if unknown:
        raise RunError(
            f"a paired test takes speakers as units, and {len(unknown)} utterances have no "
            f"speaker, e.g. {unknown[0]!r}"
        )


def _speaker_confusions(
    predictions: Sequence[Prediction], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Confusion matrices of each speaker and seed [shape=(speakers, seeds, C, C)]."""
    return confusions_by_unit(predictions, [str(p.speaker) for p in predictions], classes)
