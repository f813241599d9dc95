"""Speakers: which attribute identifies them, and which utterances must stay together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from emodarts.corpora.utterance import Utterance

#: Utterances that share one of these must be on the same side of the test.
TIES = ("speaker", "session", "dialogue")

SESSIONS_AS_SPEAKERS = (
    "the corpus names no speakers: its sessions are used instead, and two sessions may share a "
    "speaker"
)


def speaker_attribute(utterances: Sequence[Utterance]) -> Literal["speaker", "session"] | None:
    """Attribute that identifies speakers: sessions if the corpus names no speakers, else None."""
    if any(u.speaker is not None for u in utterances):
        return "speaker"
    return "session" if any(u.session is not None for u in utterances) else None


def units(utterances: Sequence[Utterance]) -> tuple[list[int], str]:
    """Unit of each utterance as a number, and a noun for the units; units must not be divided.

    Two utterances are in one unit if they share a speaker, session or dialogue, directly or
    through others (connected components). Every utterance needs a speaker or session.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parents.setdefault(key, key) != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    keys = [[(tie, v) for tie in TIES if (v := getattr(u, tie)) is not None] for u in utterances]
    for first, *others in keys:
        for other in others:
            parents[root(other)] = root(first)
    roots = [root(first) for first, *_ in keys]
    numbers = {found: number for number, found in enumerate(dict.fromkeys(roots))}
    return [numbers[found] for found in roots], _in_words(utterances, len(numbers))


def _in_words(utterances: Sequence[Utterance], n_units: int) -> str:
    for attribute in ("speaker", "session"):
        if len({getattr(u, attribute) for u in utterances} - {None}) == n_units:
            return f"{attribute}s"
    return "groups of speakers who share no session or dialogue with others"
