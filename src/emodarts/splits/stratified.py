"""Random divisions that keep the proportions of the classes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.fold import Indices, as_indices


def divide(
    utterances: Sequence[Utterance], part: Indices, share: float, seed: int
) -> tuple[Indices, Indices]:
    """Two parts, ``share`` of the utterances of each class in the first."""
    from sklearn.model_selection import train_test_split

    labels = [utterances[i].label for i in part]
    counts = Counter(labels)
    rare = [label for label, k in counts.items() if k < 2]
    if rare or len(part) < 2 * len(counts):
        raise SplitError(
            f"class {list_some(rare or counts)} has too few utterances ({len(part)} in all) to "
            "divide; each class needs at least 2 in every training fold"
        )
    try:
        first, second = train_test_split(
            np.array(part), train_size=share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise SplitError(
            f"{len(part)} utterances of {len(counts)} classes are too few to take {share:.0%} "
            f"of each class: {error}"
        ) from error
    return as_indices(first), as_indices(second)


def divide_units(
    count: int, strata: Sequence[str], units: Sequence[int], seed: int | None = None
) -> list[NDArray[np.intp]]:
    """Positions in each of ``count`` parts, none of which divides a unit."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=seed is not None, random_state=seed)
    try:
        with warnings.catch_warnings():
            # A class may have fewer utterances than there are parts; callers check the result.
            warnings.simplefilter("ignore", UserWarning)
            return [inside for _, inside in splitter.split(strata, strata, units)]
    except ValueError as error:
        raise SplitError(
            f"too few utterances for {count} parts of whole speakers or sessions: {error}"
        ) from error
