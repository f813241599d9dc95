"""Folds inside the development utterances, whose pooled predictions compare candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits.fold import Indices, as_indices
from emodarts.splits.speakers import speaker_attribute, units
from emodarts.splits.stratified import divide_units


def inner_folds(
    utterances: Sequence[Utterance], part: Indices, count: int, seed: int
) -> tuple[Literal["speakers", "utterances"], list[tuple[Indices, Indices]]]:
    """Divide a part ``count`` times into utterances to train on and to judge by.

    Groups of speakers are judged by in turn (or of sessions, if partners share them), as many as
    there are speakers at most; utterances of unknown speakers only train. Where that would leave
    no speaker or a class out of training, folds divide utterances instead, stratified by class.

    Returns
    -------
    What the folds keep apart, and the two sides of each. Every utterance that is judged by is so
    once.

    Raises
    ------
    SplitError
        If a class has fewer than two utterances.
    """
    identity = speaker_attribute([utterances[i] for i in part])
    classes = {utterances[i].known_label() for i in part}
    if identity is not None:
        known = [i for i in part if getattr(utterances[i], identity) is not None]
        unit_of, _ = units([utterances[i] for i in known])
        n_folds = min(count, len(set(unit_of)))
        if n_folds > 1:
            folds = _divide(utterances, part, known, unit_of, n_folds, seed)
            if all({utterances[i].label for i in train} == classes for train, _ in folds):
                return "speakers", folds
    folds = _divide(utterances, part, part, range(len(part)), min(count, len(part)), seed)
    if not all({utterances[i].label for i in train} == classes for train, _ in folds):
        raise SplitError(
            f"{len(part)} utterances of {len(classes)} classes are too few for inner folds; each "
            "class needs at least 2"
        )
    return "utterances", folds


def _divide(
    utterances: Sequence[Utterance],
    part: Indices,
    judged: Sequence[int],
    unit_of: Sequence[int],
    count: int,
    seed: int,
) -> list[tuple[Indices, Indices]]:
    labels = [utterances[i].known_label() for i in judged]
    tests = [
        as_indices(judged[k] for k in positions)
        for positions in divide_units(count, labels, unit_of, seed % 2**32)
    ]
    return [(as_indices(set(part) - set(test)), test) for test in tests]
