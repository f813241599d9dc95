"""What corpora share whose labels are in files of their own: agreeing, and finding their sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.folder import refuse_faults
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError


def collect_turns(
    root: Path, rows: Iterable[tuple[str, Utterance | str]], legal: str
) -> dict[str, Utterance]:
    """Utterances of label files by name; rows may repeat each other.

    Parameters
    ----------
    rows : where a row stands, and its utterance or what is wrong with it. The path of the
        utterance is not used.
    legal : what messages say a row may be.

    Raises
    ------
    CorpusError
        If a row is wrong, or two contradict each other on an utterance or on a speaker's gender.
    """
    turns: dict[str, Utterance] = {}
    places: dict[str, str] = {}
    genders: dict[str, tuple[str, str]] = {}
    faults: list[str] = []
    for place, turn in rows:
        if isinstance(turn, str):
            faults.append(f"{place}: {turn}")
            continue
        first = turns.setdefault(turn.name, turn)
        if first is turn:
            places[turn.name] = place
            try:
                check_gender(turn, place, genders)
            except CorpusError as error:
                faults.append(f"{place}: {error}")
        elif first != turn:
            faults.append(f"{place}: {turn.name} is told otherwise in {places[turn.name]}")
    refuse_faults(root, faults, legal)
    return turns


def check_gender(utterance: Utterance, place: str, genders: dict[str, tuple[str, str]]) -> None:
    """Refuse a speaker of two genders; ``genders`` holds each one's, and where it was told first.

    Raises
    ------
    CorpusError
        If the speaker had another gender before.
    """
    speaker, gender = utterance.speaker, utterance.gender
    if speaker is None or gender is None:
        return
    known, first = genders.setdefault(speaker, (gender, place))
    if known != gender:
        raise CorpusError(
            f"speaker {speaker!r} is {gender} here and {known} in {first}; "
            "speakers must be unique in the corpus, blank if not known"
        )


def join_sound(
    corpus: str,
    root: Path,
    turns: Mapping[str, Utterance],
    sound: Mapping[str, Utterance],
    skipped: Iterable[tuple[str, str]],
    emotions: Mapping[str, str],
    wanted: str,
) -> Corpus:
    """Make a corpus of the labelled utterances that have sound, and tell which have none.

    Parameters
    ----------
    turns, sound : by name, as the label files and the names of the sound files tell them.
    emotions : from label to common emotion, in the order of the classes.

    Raises
    ------
    CorpusError
        If no labelled utterance has sound.
    """
    utterances = [replace(t, path=sound[n].path) for n, t in turns.items() if n in sound]
    if not utterances:
        raise CorpusError(
            f"{root}: none of the {len(turns)} labelled turns has sound; looked for {wanted}"
        )
    silent = [(name, "no sound") for name in turns if name not in sound]
    unlabelled = [
        (u.path.relative_to(root).as_posix(), "not in the label files")
        for name, u in sound.items()
        if name not in turns
    ]
    present = {u.label for u in utterances}
    return Corpus(
        name=corpus,
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=tuple(label for label in emotions if label in present),
        skipped=tuple(sorted([*skipped, *silent, *unlabelled])),
        emotions=emotions,
    )
