"""Scores of groups of test utterances, such as those of one speaker or one gender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emodarts.scoring.metrics import confusions_by_unit, recall, ua, wa
from emodarts.scoring.predictions import Prediction


@dataclass(frozen=True, slots=True)
class GroupScores:
    """Scores of a group, means over seeds, as fractions.

    Attributes
    ----------
    n_utterances, n_speakers : each counted once, whatever the number of seeds.
    ua : over the classes that the group has.
    recalls : of each class; None where the group has none of it.
    """

    n_utterances: int
    n_speakers: int
    ua: float
    wa: float
    recalls: tuple[float | None, ...]


def scores_by_group(
    predictions: Sequence[Prediction], group_of: Mapping[str, str], classes: Sequence[str]
) -> dict[str, GroupScores]:
    """Scores of each group, sorted by its name.

    Parameters
    ----------
    group_of : group by name of utterance; utterances without one are left out.
    """
    kept = [p for p in predictions if p.name in group_of]
    if not kept:
        return {}
    groups = [group_of[p.name] for p in kept]
    counts = confusions_by_unit(kept, groups, classes)
    found = {}
    for group, matrices in zip(sorted(set(groups)), counts, strict=True):
        # A group may lack a seed only where the run is broken, which aggregate refuses.
        recalls = recall(matrices).mean(0)
        members = [p for p, g in zip(kept, groups, strict=True) if g == group]
        found[group] = GroupScores(
            n_utterances=len({p.name for p in members}),
            n_speakers=len({p.speaker for p in members if p.speaker is not None}),
            ua=float(ua(matrices).mean()),
            wa=float(wa(matrices).mean()),
            recalls=tuple(None if np.isnan(r) else float(r) for r in recalls),
        )
    return found


def gap(values: Sequence[float | None]) -> float | None:
    """Largest minus smallest value; None unless there are at least two and none is missing.

    >>> gap([0.5, 0.75]), gap([0.5, None]), gap([0.5])
    (0.25, None, None)
    """
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) == len(values) >= 2 else None
