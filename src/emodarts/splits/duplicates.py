"""Utterances of the test that sound exactly as others: refused, or allowed with a warning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emodarts.audio.duplicates import group_same
from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.fold import Parts

_OPTION = "--allow-duplicates (recipe key evaluation.allow_duplicates)"


def settle_duplicates(
    utterances: Sequence[Utterance], sounds: Sequence[str], parts: Iterable[Parts], allowed: bool
) -> tuple[str, ...]:
    """Refuse parts whose test has the sound of a development utterance, or warn.

    Parameters
    ----------
    sounds : digest of the sound of each utterance.
    parts : of every fold and seed.

    Raises
    ------
    SplitError
        Naming the pairs, unless they are allowed.
    """
    groups = group_same(sounds)
    if not groups:
        return ()
    pairs: set[tuple[int, int]] = set()
    for divided in parts:
        test, development = frozenset(divided.test), frozenset(divided.development)
        pairs.update(
            (min(one, other), max(one, other))
            for group in groups
            for one in test.intersection(group)
            for other in development.intersection(group)
        )
    if not pairs:
        return ()
    listed = list_some(
        (
            f"{_named(utterances[one])} = {_named(utterances[other])}"
            for one, other in sorted(pairs)
        ),
        3,
    )
    if not allowed:
        raise SplitError(
            f"{len(pairs)} pair(s) of utterances with the same sound are in test and training: "
            f"{listed}. `emodarts corpora --check` lists all; remove one of each pair from the "
            f"corpus, or accept them by {_OPTION}, with a warning in every table"
        )
    return (
        f"{len(pairs)} pair(s) of utterances with the same sound are in test and training, so "
        f"scores are higher than on new recordings: {listed}",
    )


def _named(utterance: Utterance) -> str:
    speaker = "" if utterance.speaker is None else f" (speaker {utterance.speaker})"
    return f"{utterance.name}{speaker}"
