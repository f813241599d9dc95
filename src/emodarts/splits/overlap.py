"""Given folds whose test may be of heard speakers: refused, or let through with a warning."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.checks import shared_values
from emodarts.splits.fold import Fold, Folds
from emodarts.splits.talkers import SESSIONS_STAND_IN, TIES, what_tells_talkers

_OPTION = "--allow-speaker-overlap (recipe key evaluation.allow_speaker_overlap)"


def settle_overlap(
    utterances: Sequence[Utterance], given: Folds, split: str, allowed: bool
) -> Folds:
    """Refuse what tests on heard speakers, or say so; leave unknown speakers out of the test."""
    talker = what_tells_talkers(utterances)
    if talker is None and not allowed:
        raise SplitError(
            f"split {split!r}: the corpus names neither speakers nor sessions, so nobody can tell "
            f"whether test speakers are heard in training; {_OPTION} goes on without, and "
            "every table says so"
        )
    unknown = {i for i, u in enumerate(utterances) if talker is None or getattr(u, talker) is None}
    folds = []
    overlaps: dict[str, set[str]] = {tie: set() for tie in TIES}
    for fold in given.folds:
        kept = fold if allowed else fold.without_tests(unknown.intersection(fold.test))
        if fold.test and not kept.test:
            raise SplitError(
                f"{fold.where}: no test utterance has a known {talker}; {_OPTION} tests "
                "on them all the same, and every table says so"
            )
        development = kept.development
        apart = unknown.isdisjoint(kept.test)
        for tie in TIES:
            if shared := shared_values(utterances, development, kept.test, tie):
                if not allowed:
                    raise SplitError(
                        f"split {split!r}, {fold.where}: {tie} {list_some(shared)} on both sides "
                        f"of the test, so scores would be of heard {tie}s; {_OPTION} takes the "
                        "folds as they are, and every table says so"
                    )
                overlaps[tie].update(shared)
                apart = False
        folds.append(replace(kept, speakers_apart=apart))
    told = [
        f"split {split!r} has {tie} {list_some(sorted(shared))} on both sides of the test: scores "
        f"are higher than for unheard {tie}s"
        for tie, shared in overlaps.items()
        if shared
    ]
    if talker is None:
        told.append(
            "the corpus names neither speakers nor sessions: whether test speakers are heard in "
            "training could not be checked"
        )
    else:
        if talker == "session":
            told.append(SESSIONS_STAND_IN)
        told += _tell_unknown(given.folds, unknown, talker, allowed)
    return Folds(tuple(folds), (*told, *given.warnings))


def _tell_unknown(
    folds: Sequence[Fold], unknown: AbstractSet[int], talker: str, allowed: bool
) -> list[str]:
    """Tell how many utterances of unknown talkers are tested or left out, and are trained on."""
    told = []
    if n := len({i for fold in folds for i in fold.test if i in unknown}):
        told.append(
            f"{n} test utterances are of unknown {talker}s: whether those are heard in "
            "training could not be checked"
            if allowed
            else f"{n} utterances of unknown {talker}s are left out of the test"
        )
    if n := len({i for fold in folds for i in fold.development if i in unknown}):
        told.append(
            f"{n} utterances of unknown {talker}s are in training: any may be of a test {talker}"
        )
    return told
