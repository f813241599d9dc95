"""Predefined folds that may test on training speakers: refused, or allowed with a warning."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.checks import shared_values
from emodarts.splits.fold import Fold, Folds
from emodarts.splits.speakers import SESSIONS_AS_SPEAKERS, TIES, speaker_attribute

_OPTION = "--allow-speaker-overlap (recipe key evaluation.allow_speaker_overlap)"


def settle_overlap(
    utterances: Sequence[Utterance], given: Folds, split: str, allowed: bool
) -> Folds:
    """Refuse folds that test on training speakers, or warn; exclude unknown test speakers."""
    identity = speaker_attribute(utterances)
    if identity is None and not allowed:
        raise SplitError(
            f"split {split!r}: the corpus names neither speakers nor sessions, so test speakers "
            f"may also be in training; {_OPTION} accepts this, with a warning in every table"
        )
    unknown = {
        i for i, u in enumerate(utterances) if identity is None or getattr(u, identity) is None
    }
    folds = []
    overlaps: dict[str, set[str]] = {tie: set() for tie in TIES}
    for fold in given.folds:
        kept = fold if allowed else fold.without_tests(unknown.intersection(fold.test))
        if fold.test and not kept.test:
            raise SplitError(
                f"{fold.where}: no test utterance has a known {identity}; {_OPTION} tests "
                "on them anyway, with a warning in every table"
            )
        development = kept.development
        apart = unknown.isdisjoint(kept.test)
        for tie in TIES:
            if shared := shared_values(utterances, development, kept.test, tie):
                if not allowed:
                    raise SplitError(
                        f"split {split!r}, {fold.where}: {tie} {list_some(shared)} in test and "
                        f"training, so the test {tie}s are not unseen; {_OPTION} accepts the "
                        "folds unchanged, with a warning in every table"
                    )
                overlaps[tie].update(shared)
                apart = False
        folds.append(replace(kept, speakers_apart=apart))
    warnings = [
        f"split {split!r} has {tie} {list_some(sorted(shared))} in test and training: scores are "
        f"higher than for unseen {tie}s"
        for tie, shared in overlaps.items()
        if shared
    ]
    if identity is None:
        warnings.append(
            "the corpus names neither speakers nor sessions: test speakers may also be in training"
        )
    else:
        if identity == "session":
            warnings.append(SESSIONS_AS_SPEAKERS)
        warnings += _warn_of_unknown(given.folds, unknown, identity, allowed)
    return Folds(tuple(folds), (*warnings, *given.warnings))


def _warn_of_unknown(
    folds: Sequence[Fold], unknown: AbstractSet[int], identity: str, allowed: bool
) -> list[str]:
    """Warn of utterances of unknown speakers in test and training."""
    warnings = []
    if n := len({i for fold in folds for i in fold.test if i in unknown}):
        warnings.append(
            f"{n} test utterances are of unknown {identity}s that may also be in training"
            if allowed
            else f"{n} utterances of unknown {identity}s are left out of the test"
        )
    if n := len({i for fold in folds for i in fold.development if i in unknown}):
        warnings.append(
            f"{n} training utterances are of unknown {identity}s that may be test {identity}s"
        )
    return warnings
