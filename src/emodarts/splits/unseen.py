"""Splits that test on unseen speakers: leave one speaker, session or group out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits.fold import Fold, Folds, as_indices
from emodarts.splits.speakers import SESSIONS_AS_SPEAKERS, TIES, speaker_attribute, units
from emodarts.splits.stratified import divide_units


def unseen_speakers(utterances: Sequence[Utterance], kind: str, count: str) -> Folds:
    """Folds of split ``speaker``, ``session`` or ``groups:count``."""
    identity = speaker_attribute(utterances)
    if identity is None or (kind == "speaker" and identity == "session"):
        needed = "session" if kind == "session" else "speaker"
        others = ["session"] if identity == "session" else []
        raise SplitError(
            f"{len(utterances)} utterance(s) have no {needed}, e.g. {utterances[0].name!r}; "
            f"split {kind!r} needs {needed}s. Without them, use split "
            f"{', '.join([*others, 'column', 'speaker-dependent'])}"
        )
    known = tuple(i for i, u in enumerate(utterances) if getattr(u, identity) is not None)
    chosen = [utterances[i] for i in known]
    tests = _balanced_groups(chosen, int(count)) if kind == "groups" else _one_by_one(chosen, kind)
    folds = tuple(
        Fold(index, known, as_indices(known[k] for k in test)) for index, test in enumerate(tests)
    )
    warnings = []
    if identity == "session":
        warnings.append(SESSIONS_AS_SPEAKERS)
    if len(known) < len(utterances):
        warnings.append(
            f"{len(utterances) - len(known)} utterances of unknown {identity}s are left out, "
            f"as they may be of a test {identity}"
        )
    return Folds(folds, tuple(warnings))


def _one_by_one(utterances: Sequence[Utterance], unit: str) -> list[list[int]]:
    """Positions of each speaker's (or session's) utterances."""
    positions: dict[str, list[int]] = {}
    without = []
    for k, u in enumerate(utterances):
        value = getattr(u, unit)
        if value is None:
            without.append(u.name)
        else:
            positions.setdefault(value, []).append(k)
    if without:
        raise SplitError(
            f"{len(without)} utterance(s) have no {unit}, e.g. {without[0]!r}; "
            f"a split by {unit} needs one for each"
        )
    _refuse_ties(utterances, unit)
    if len(positions) < 2:
        raise SplitError(
            f"split {unit!r} needs at least 2 {unit}s; the corpus has {len(positions)}"
        )
    return [positions[value] for value in sorted(positions)]


def _refuse_ties(utterances: Sequence[Utterance], unit: str) -> None:
    """Refuse to separate two speakers (or sessions) that share a session, dialogue or speaker."""
    for tie in TIES:
        found: dict[str, str] = {}
        for u in utterances:
            value, own = getattr(u, tie), getattr(u, unit)
            if value is not None and found.setdefault(value, own) != own:
                sessions = unit == "speaker" and all(u.session is not None for u in utterances)
                raise SplitError(
                    f"split {unit!r}: {unit}s {found[value]} and {own} share {tie} {value}, which "
                    "must not be in both test and training; use split "
                    f"{'session or ' if sessions else ''}groups:K"
                )


def _balanced_groups(utterances: Sequence[Utterance], count: int) -> Sequence[Iterable[int]]:
    """Positions in each group, balanced by class and gender; no unit is divided."""
    unit_of, name = units(utterances)
    available = len(set(unit_of))
    if available < 2:
        raise SplitError(f"split groups:{count} needs at least 2 {name}; the corpus has 1")
    if count > available:
        raise SplitError(
            f"split groups:{count}: the corpus has {available} {name}; "
            f"allowed: groups:2 to groups:{available}"
        )
    strata = [f"{u.label} {u.gender or ''}" for u in utterances]
    groups = divide_units(count, strata, unit_of)
    if any(len(group) == 0 for group in groups):
        raise SplitError(
            f"split groups:{count} leaves a group empty: the corpus' {available} {name} differ "
            "too much in size; use fewer groups"
        )
    return groups
