"""Parts of a training fold: for search, for training and for the choice of the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits.checks import check_classes, check_disjoint
from emodarts.splits.fold import PARTS, Fold, Indices, Parts, Protocol, as_indices
from emodarts.splits.speakers import TIES, speaker_attribute, units
from emodarts.splits.stratified import divide, divide_units

#: In protocol ``full``, one in five speakers (or sessions) of the training fold is for validation.
_INNER_VALIDATION_PARTS = 5
_SEARCH_SHARE = 0.7
#: Speakers (or sessions) below which halves of them would have too few voices.
_LEAST_SPEAKERS = 4
Halves = Literal["speakers", "utterances"]


def make_parts(
    utterances: Sequence[Utterance],
    fold: Fold,
    protocol: Protocol,
    seed: int,
    halves: Halves = "speakers",
    choose_epoch: bool = True,
    searches: bool = True,
) -> Parts:
    """Divide a training fold for search, training and the choice of the epoch.

    ``paper``: 70 % for search and 30 % for training, stratified by class; the epoch is chosen on
    the search part. ``full``: search and training use the training part of the fold, and the epoch
    is chosen on its validation part. If the split has no validation part, the search uses the
    whole training fold, and some speakers of it (or sessions, if partners share them) are left
    out of training for validation; utterances of unknown speakers stay in training. If the test
    speakers are not unseen, validation is a random stratified part of the utterances instead.
    Without ``choose_epoch`` none are left out: all of the training fold trains, and there is no
    validation.

    In both protocols one half of the search part trains the weights of the supernet and the other
    half the alphas. ``halves`` ``speakers``: no speaker (or session, if partners share them) is in
    both, if the test speakers are unseen, all speakers of the search part are known and at least 4,
    and each half has every class. Otherwise it is divided by utterances, stratified. Without
    ``searches`` nothing is divided, and both are the whole search part. A recorded fold has only
    its recorded parts.

    Raises
    ------
    SplitError
        If there are too few utterances of a class or too few speakers, or if a recorded fold has
        no such protocol or seed.
    """
    if fold.recorded:
        parts = _recorded(fold, protocol, seed)
    else:
        parts = _divided(utterances, fold, protocol, seed, halves, choose_epoch, searches)
    if choose_epoch and not parts.validation:
        raise SplitError(
            f"{fold.where}: validation is empty; it is needed to choose the epoch. Name validation "
            "utterances, or give training.select: last"
        )
    classes = {u.known_label() for u in utterances}
    ties = ("name", *TIES) if fold.speakers_apart else ("name",)
    for name in PARTS[:-1]:
        part = getattr(parts, name)
        check_disjoint(utterances, part, fold.test, f"{fold.where}, {name}", ties)
        if name != "validation":
            check_classes(utterances, part, classes, f"{name} of {fold.where}")
    return parts


def _recorded(fold: Fold, protocol: Protocol, seed: int) -> Parts:
    if (protocol, seed) not in fold.recorded:
        there = ", ".join(f"{name} with seed {number}" for name, number in fold.recorded)
        raise SplitError(
            f"{fold.where} has no parts for protocol {protocol} with seed {seed}; it has {there}"
        )
    # Utterances of unknown speakers may now be left out of the test.
    return replace(fold.recorded[protocol, seed], test=fold.test)


def _divided(
    utterances: Sequence[Utterance],
    fold: Fold,
    protocol: Protocol,
    seed: int,
    halves: Halves,
    choose_epoch: bool,
    searches: bool,
) -> Parts:
    if protocol == "paper":
        search, train = divide(utterances, fold.development, _SEARCH_SHARE, seed)
        validation = search
    elif fold.validation:
        search = train = fold.train
        validation = fold.validation
    elif not choose_epoch:
        search = train = fold.development
        validation = ()
    else:
        search = fold.development
        if fold.speakers_apart:
            train, validation = _inner_speakers(utterances, fold, seed)
        else:
            train, validation = divide(utterances, search, 1 - 1 / _INNER_VALIDATION_PARTS, seed)
    apart = None
    if not searches:
        return Parts(search, search, train, validation, fold.test)
    if halves == "speakers" and fold.speakers_apart:
        apart = _speaker_halves(utterances, search, seed)
    weights, alphas = apart or divide(utterances, search, 0.5, seed)
    return Parts(weights, alphas, train, validation, fold.test)


def _speaker_halves(
    utterances: Sequence[Utterance], search: Indices, seed: int
) -> tuple[Indices, Indices] | None:
    """Halves without a speaker in common; None if there are too few."""
    identity = speaker_attribute(utterances) or "speaker"
    chosen = [utterances[i] for i in search]
    if any(getattr(u, identity) is None for u in chosen):
        return None
    unit_of, _ = units(chosen)
    if len(set(unit_of)) < _LEAST_SPEAKERS:
        return None
    labels = [u.known_label() for u in chosen]
    first, second = (
        as_indices(search[k] for k in positions)
        for positions in divide_units(2, labels, unit_of, seed)
    )
    if any({utterances[i].label for i in half} != set(labels) for half in (first, second)):
        return None
    # The first part always has the largest unit, whatever the seed.
    return (first, second) if np.random.default_rng(seed).random() < 0.5 else (second, first)


def shared_speakers(utterances: Sequence[Utterance], parts: Parts) -> bool:
    """Whether a speaker is in both halves of the search data, as far as speakers are known."""
    identity = speaker_attribute(utterances) or "speaker"
    weights, alphas = (
        {getattr(utterances[i], identity) for i in half} - {None}
        for half in (parts.search_weights, parts.search_alphas)
    )
    return not weights.isdisjoint(alphas)


def _inner_speakers(
    utterances: Sequence[Utterance], fold: Fold, seed: int
) -> tuple[Indices, Indices]:
    """Utterances for training, and those of some speakers for validation."""
    identity = speaker_attribute(utterances) or "speaker"
    development = fold.development
    known = [i for i in development if getattr(utterances[i], identity) is not None]
    chosen = [utterances[i] for i in known]
    unit_of, name = units(chosen)
    n_units = len(set(unit_of))
    if n_units < 2:
        raise SplitError(
            f"{fold.where}: protocol 'full' needs at least 2 {name} in the training fold to choose "
            f"the epoch, but it has {n_units}; use more speakers or protocol 'paper'"
        )
    labels = [u.known_label() for u in chosen]
    classes = {utterances[i].known_label() for i in development}
    n_parts = min(_INNER_VALIDATION_PARTS, n_units)
    # In random order, as the first part always has the largest units, whatever the seed.
    divided = divide_units(n_parts, labels, unit_of, seed)
    for place in np.random.default_rng(seed).permutation(len(divided)):
        positions = divided[place]
        validation = {known[k] for k in positions}
        train = set(development) - validation
        if all({utterances[i].label for i in part} == classes for part in (train, validation)):
            return as_indices(train), as_indices(validation)
    raise SplitError(
        f"{fold.where}: no choice of inner validation {name} leaves every class "
        f"({', '.join(sorted(classes))}) on both sides; each class needs more {name}"
    )
