"""Folds, and the parts of a training fold: who is searched, trained, validated and tested on.

Everything here works on indices into a corpus. No part that decides anything ever holds a
speaker, session or dialogue of the test fold, or raises :class:`SplitError`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some

Indices = tuple[int, ...]

#: Share of the training fold's speakers (or sessions) that chooses the epoch in ``full``.
_INNER_VALIDATION_PARTS = 5
_SEARCH_SHARE = 0.7


@dataclass(frozen=True)
class Fold:
    """Utterances to develop on and to test on, as indices into a corpus."""

    index: int
    development: Indices
    test: Indices


@dataclass(frozen=True)
class Parts:
    """What each utterance of one fold is used for, as indices into a corpus.

    Attributes
    ----------
    search_weights, search_alphas : halves of the search data.
    train : of the discrete network; also gives normalisation and class weights.
    validation : chooses the epoch.
    test : decides nothing.
    """

    search_weights: Indices
    search_alphas: Indices
    train: Indices
    validation: Indices
    test: Indices

    def names(self, utterances: Sequence[Utterance]) -> dict[str, list[str]]:
        """Utterance names by part, for ``folds.json``."""
        return {
            part: [utterances[i].name for i in getattr(self, part)]
            for part in ("search_weights", "search_alphas", "train", "validation", "test")
        }


def make_folds(utterances: Sequence[Utterance], split: str) -> list[Fold]:
    """Divide a corpus into folds whose test utterances share no talker with the others.

    Parameters
    ----------
    split : ``speaker`` leaves one speaker out, ``session`` one session, and ``groups:K`` makes
        K groups of speakers, balanced by class and gender.

    Raises
    ------
    SplitError
        If the corpus lacks speakers or sessions, if there are more folds than speakers, or if
        a fold's development utterances lack a class.
    """
    kind, _, count = split.partition(":")
    if kind == "groups":
        groups = _speaker_groups(utterances, int(count))
    elif kind in ("speaker", "session"):
        groups = _values(utterances, "session" if kind == "session" else "speaker")
    else:
        raise SplitError(f"unknown split {split!r}; legal: speaker, session, groups:K")
    names = sorted(set(groups))
    if len(names) < 2:
        raise SplitError(
            f"split {split!r} needs at least 2 {kind.rstrip('s')}s; the corpus has {len(names)}"
        )
    folds = []
    for index, name in enumerate(names):
        test = tuple(i for i, group in enumerate(groups) if group == name)
        development = tuple(i for i, group in enumerate(groups) if group != name)
        folds.append(Fold(index, development, test))
    for fold in folds:
        check_disjoint(utterances, fold.development, fold.test, f"fold {fold.index}")
        _check_classes(utterances, fold.development, f"the training part of fold {fold.index}")
    return folds


def make_parts(
    utterances: Sequence[Utterance],
    fold: Fold,
    protocol: Literal["paper", "full"],
    seed: int,
) -> Parts:
    """Divide a training fold for search, training and the choice of the epoch.

    ``paper``: 70 % to search and 30 % to train, stratified by class; the epoch is chosen on the
    search part. ``full``: search on the whole training fold; train on all of it but some
    speakers (sessions, where the corpus has them), who choose the epoch. In both, half of the
    search part, stratified, trains the supernet's weights and the other half the alphas.

    Raises
    ------
    SplitError
        If there are too few utterances of a class or too few speakers.
    """
    if protocol == "paper":
        search, train = _stratified(utterances, fold.development, _SEARCH_SHARE, seed)
        validation = search
    else:
        search = fold.development
        train, validation = _inner_speakers(utterances, fold, seed)
    weights, alphas = _stratified(utterances, search, 0.5, seed)
    parts = Parts(weights, alphas, train, validation, fold.test)
    for name in ("search_weights", "search_alphas", "train", "validation"):
        part = getattr(parts, name)
        check_disjoint(utterances, part, fold.test, f"fold {fold.index}, {name}")
        if name != "validation":
            _check_classes(utterances, part, f"{name} of fold {fold.index}")
    return parts


def deployment_fold(utterances: Sequence[Utterance]) -> Fold:
    """A fold that tests on nobody, for the model to deploy."""
    return Fold(0, tuple(range(len(utterances))), ())


def check_disjoint(
    utterances: Sequence[Utterance], first: Indices, second: Indices, where: str
) -> None:
    """Raise :class:`SplitError` if two parts share an utterance, speaker, session or dialogue."""
    for attribute in ("name", "speaker", "session", "dialogue"):
        values = [
            {getattr(utterances[i], attribute) for i in part} - {None} for part in (first, second)
        ]
        shared = sorted(values[0] & values[1])
        if shared:
            raise SplitError(
                f"{where}: {attribute} {list_some(shared)} on both sides of the test split; "
                f"test utterances must share no {attribute} with the others"
            )


def _values(utterances: Sequence[Utterance], attribute: str) -> list[str]:
    values = [getattr(u, attribute) for u in utterances]
    without = [u.name for u, value in zip(utterances, values, strict=True) if value is None]
    if without:
        raise SplitError(
            f"{len(without)} utterance(s) have no {attribute}, e.g. {without[0]!r}; "
            f"a split by {attribute} needs one for each"
        )
    return values


def _speaker_groups(utterances: Sequence[Utterance], count: int) -> list[str]:
    """Group number of each utterance; groups are balanced by class and gender."""
    speakers = _values(utterances, "speaker")
    available = len(set(speakers))
    if not 2 <= count <= available:
        raise SplitError(
            f"split groups:{count} needs between 2 and as many groups as there are speakers; "
            f"the corpus has {available} speakers, so legal: groups:2 to groups:{available}"
        )
    genders = {u.speaker: u.gender or "" for u in utterances}
    strata = [f"{u.label} {genders[u.speaker]}" for u in utterances]
    groups = np.full(len(utterances), -1)
    for number, (_, test) in enumerate(_stratified_groups(count, strata, speakers)):
        groups[test] = number
    width = len(str(count - 1))
    if len(set(groups.tolist())) != count:
        raise SplitError(
            f"split groups:{count} leaves a group empty: the corpus' {available} speakers differ "
            "too much in size; ask for fewer groups"
        )
    return [f"{g:0{width}d}" for g in groups]


def _inner_speakers(
    utterances: Sequence[Utterance], fold: Fold, seed: int
) -> tuple[Indices, Indices]:
    """Training utterances and those of some speakers, who choose the epoch."""
    development = np.array(fold.development)
    has_sessions = all(utterances[i].session is not None for i in development)
    unit = "session" if has_sessions else "speaker"
    groups = np.array(_values([utterances[i] for i in development], unit))
    labels = np.array([utterances[i].label for i in development])
    n_groups = len(set(groups.tolist()))
    if n_groups < 2:
        raise SplitError(
            f"fold {fold.index}: protocol 'full' sets a {unit} of the training fold aside to "
            f"choose the epoch, but the fold has {n_groups}; use more speakers or protocol 'paper'"
        )
    classes = set(labels.tolist())
    n_parts = min(_INNER_VALIDATION_PARTS, n_groups)
    for train, validation in _stratified_groups(n_parts, labels.tolist(), groups.tolist(), seed):
        both = (set(labels[train].tolist()), set(labels[validation].tolist()))
        if len(validation) and both == (classes, classes):
            return _indices(development[train]), _indices(development[validation])
    raise SplitError(
        f"fold {fold.index}: no choice of inner validation {unit}s leaves every class "
        f"({', '.join(sorted(classes))}) on both sides; each class needs more {unit}s"
    )


def _stratified(
    utterances: Sequence[Utterance], part: Indices, share: float, seed: int
) -> tuple[Indices, Indices]:
    """Two parts, ``share`` of the utterances of each class in the first."""
    from sklearn.model_selection import train_test_split

    labels = [utterances[i].label for i in part]
    counts = Counter(labels)
    rare = [label for label, k in counts.items() if k < 2]
    if rare or len(part) < 2 * len(counts):
        raise SplitError(
            f"class {list_some(rare or counts)} has too few utterances ({len(part)} in all) to be "
            "divided; each class needs at least 2 in every training fold"
        )
    try:
        first, second = train_test_split(
            np.array(part), train_size=share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise SplitError(
            f"{len(part)} utterances of {len(counts)} classes are too few to set {share:.0%} "
            f"of each class apart: {error}"
        ) from error
    return _indices(first), _indices(second)


def _indices(values: Any) -> Indices:
    return tuple(sorted(int(i) for i in values))


def _check_classes(utterances: Sequence[Utterance], part: Indices, where: str) -> None:
    present = {utterances[i].label for i in part}
    missing = sorted({u.known_label() for u in utterances} - present)
    if missing:
        raise SplitError(
            f"{where} has no utterance of class {list_some(missing)}; every class needs speakers "
            "outside the test fold: use fewer folds, or keep only some classes (recipe key labels)"
        )


def _stratified_groups(
    count: int, strata: Sequence[str], groups: Sequence[str], seed: int | None = None
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Positions outside and inside of each of ``count`` parts that keep groups whole."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=seed is not None, random_state=seed)
    try:
        with warnings.catch_warnings():
            # Parts can outnumber a class' utterances; callers check what comes out.
            warnings.simplefilter("ignore", UserWarning)
            return list(splitter.split(strata, strata, groups))
    except ValueError as error:
        raise SplitError(
            f"too few utterances for {count} parts of whole speakers or sessions: {error}"
        ) from error
