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
        Naming a pair for each such sound, unless they are allowed.
    """
    groups = group_same(sounds)
    crossing: dict[int, tuple[int, int]] = {}
    for divided in parts if groups else ():
        test, development = frozenset(divided.test), frozenset(divided.development)
        for number, group in enumerate(groups):
            tested = next((i for i in group if i in test), None)
            trained = next((i for i in group if i in development), None)
            if tested is not None and trained is not None:
                crossing.setdefault(number, (min(tested, trained), max(tested, trained)))
    if not crossing:
        return ()
    pairs = [f"{_named(utterances[a])} = {_named(utterances[b])}" for a, b in crossing.values()]
    found = f"{len(pairs)} sound(s) are in test and training under different names"
    if not allowed:
        raise SplitError(
            f"{found}: {list_some(pairs)}. `emodarts corpora --check` lists all; leave one of each "
            f"pair out of the corpus, or accept them by {_OPTION}, with a warning in every table"
        )
    return (f"{found}, so scores are higher than on new recordings: {list_some(pairs, 3)}",)


def _named(utterance: Utterance) -> str:
    speaker = "" if utterance.speaker is None else f" (speaker {utterance.speaker})"
    return f"{utterance.name}{speaker}"
