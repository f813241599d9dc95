"""What readers share whose corpora have label files: consistency checks and the join with audio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.folder import refuse_faults
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError


def collect_turns(
    root: Path, rows: Iterable[tuple[str, Utterance | str]], advice: str
) -> dict[str, Utterance]:
    """Collect the utterances of label files by name; identical rows may repeat.

    Parameters
    ----------
    rows : location of a row, and its utterance or what is wrong with it. The path of the
        utterance is not used.
    advice : what a row should be, for messages.

    Raises
    ------
    CorpusError
        If a row is wrong, or two rows disagree on an utterance or on a speaker's gender.
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
            faults.append(f"{place}: {turn.name} differs from {places[turn.name]}")
    refuse_faults(root, faults, advice)
    return turns


def check_gender(utterance: Utterance, place: str, genders: dict[str, tuple[str, str]]) -> None:
    """Refuse a speaker of two genders.

    ``genders`` keeps the gender of each speaker and the place where it was first given.

    Raises
    ------
    CorpusError
        If an earlier row gave the speaker another gender.
    """
    speaker, gender = utterance.speaker, utterance.gender
    if speaker is None or gender is None:
        return
    known, first = genders.setdefault(speaker, (gender, place))
    if known != gender:
        raise CorpusError(
            f"speaker {speaker!r} is {gender} here and {known} in {first}; "
            "speakers must be unique in the corpus, or blank if unknown"
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
    """Make a corpus of the labelled utterances that have an audio file; the others are skipped.

    Parameters
    ----------
    turns, sound : utterances by name, from the label files and from the names of audio files.
    skipped : files that are already left out.
    emotions : common emotion of each label, in the order of the classes.
    wanted : what the folder should hold, for messages.

    Raises
    ------
    CorpusError
        If no labelled utterance has an audio file.
    """
    utterances = [replace(t, path=sound[n].path) for n, t in turns.items() if n in sound]
    if not utterances:
        raise CorpusError(
            f"{root}: none of the {len(turns)} labelled turns has an audio file; expected {wanted}"
        )
    silent = [(name, "no audio file") for name in turns if name not in sound]
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
