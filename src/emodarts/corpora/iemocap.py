"""IEMOCAP: acted English dialogues, improvised and scripted, 10 speakers in 5 sessions.

C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language
Resources and Evaluation 42, 2008. As distributed::

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

A woman and a man talk in each session. The letter before the number of a turn is the speaker; the
letter in the dialogue's name is the one who wore the markers, so ``Ses01F_impro01`` and
``Ses01M_impro01`` are two dialogues. The times in label files refer to the recording of the
dialogue and are not used, as every turn has a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.folder import (
    AUDIO_SUFFIXES,
    check_folder,
    index_sound,
    is_debris,
    read_rating,
    read_text,
    walk_files,
)
from emodarts.corpora.labelled import collect_turns, join_sound
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError

EMOTIONS = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
}

NO_CONSENSUS = "xxx"

RELEASES = (
    ".",
    "IEMOCAP_full_release",
    "IEMOCAP",
    "IEMOCAP/IEMOCAP_full_release",
    "IEMOCAP_full_release/IEMOCAP_full_release",
)
"""Folders below the given one where the sessions may be; the first with any session is used."""

LABELS = Path("dialog", "EmoEvaluation")
SOUND = Path("sentences", "wav")
STYLES = {"impro": "improvised", "script": "scripted"}
GENDERS = {"F": "female", "M": "male"}

EXAMPLE = "Ses01F_impro01_F000"
_WANTED = f"folders Session1 to Session5 with {LABELS} and {SOUND}"
_EXPECTED = (
    f"expected: [6.2901 - 8.2357] {EXAMPLE} neu [2.5000, 2.5000, 2.5000], "
    f"with one of {', '.join(EMOTIONS)}, {NO_CONSENSUS}"
)
_SESSION = re.compile("session[1-5]", re.IGNORECASE)
_LINE = re.compile(
    r"\[[^]]*\]\s+(?P<turn>\S+)\s+(?P<code>\S+)\s+\[(?P<v>[^],]*),(?P<a>[^],]*),(?P<d>[^],]*)\]\s*"
)
_TURN = re.compile(
    r"(?P<dialogue>Ses0(?P<session>[1-5])[FM]_(?P<style>impro|script)\w*)"
    r"_(?P<speaker>[FM])[A-Z]*\d+",
    re.ASCII,
)


def read_iemocap(root: Path | None) -> Corpus:
    """List the turns of ``root``, the folder with ``Session1`` to ``Session5`` or one above it.

    Labels are the codes of the raters' consensus; turns with ``xxx`` (no consensus) have none.
    Ratings are means on a scale from 1 to 5.

    Raises
    ------
    CorpusError
        If ``root`` holds no session, if a label file is malformed or contradicts another, if two
        files of one turn differ in size, or if no labelled turn has an audio file.
    """
    root = check_folder(root, "iemocap", _WANTED)
    sessions = _find_sessions(root)
    sound, skipped = index_sound(_find_sound(sessions), root, parse_name)
    turns = collect_turns(root, _read_rows(root, sessions), _EXPECTED)
    return join_sound("iemocap", root, turns, sound, skipped, EMOTIONS, _WANTED)


def parse_name(path: Path) -> Utterance | str:
    """Return the turn, without a label, that a file's name describes, or why it is not one."""
    turn = _TURN.fullmatch(path.stem)
    if turn is None:
        return f"not named like {EXAMPLE}.wav"
    return Utterance(
        name=path.stem,
        path=path,
        label=None,
        speaker=f"Ses0{turn['session']}_{turn['speaker']}",
        gender=GENDERS[turn["speaker"]],
        session=f"Session{turn['session']}",
        dialogue=turn["dialogue"],
        style=STYLES[turn["style"]],
    )


def _find_sessions(root: Path) -> list[Path]:
    for release in RELEASES:
        folder = root / release
        try:
            inside = sorted(folder.iterdir()) if folder.is_dir() else []
            sessions = [path for path in inside if _SESSION.fullmatch(path.name)]
            if found := [session for session in sessions if (session / LABELS).is_dir()]:
                return found
        except OSError as error:
            raise CorpusError(f"cannot list {error.filename}: {error.strerror}") from error
    raise CorpusError(
        f"{root} does not hold IEMOCAP; expected {_WANTED} in it or in {', '.join(RELEASES[1:])}"
    )


def _find_sound(sessions: Sequence[Path]) -> Iterator[Path]:
    for session in sessions:
        if (session / SOUND).is_dir():
            yield from (
                p for p in walk_files(session / SOUND) if p.suffix.lower() in AUDIO_SUFFIXES
            )


def _read_rows(root: Path, sessions: Sequence[Path]) -> Iterator[tuple[str, Utterance | str]]:
    """Location and turn of every line that starts with a time; others are comments or raters."""
    for session in sessions:
        for path in walk_files(session / LABELS):
            # Subfolders hold the ratings of single raters.
            if path.parent != session / LABELS or path.suffix.lower() != ".txt" or is_debris(path):
                continue
            for number, line in enumerate(read_text(path).split("\n"), 1):
                if line.startswith("["):
                    yield f"{path.relative_to(root)}, line {number}", _parse(line)


def _parse(line: str) -> Utterance | str:
    """Return the turn of a line, or what is wrong with it."""
    match = _LINE.fullmatch(line)
    if match is None:
        return f"not a labelled turn: {line[:100]!r}"
    turn = parse_name(Path(f"{match['turn']}.wav"))
    if isinstance(turn, str) or turn.name != match["turn"]:
        return f"not the name of a turn: {match['turn']!r}"
    if match["code"] not in (*EMOTIONS, NO_CONSENSUS):
        return f"unknown emotion {match['code']!r} of {turn.name}"
    try:
        valence, arousal, dominance = (read_rating(match[scale]) for scale in "vad")
    except ValueError:
        return f"a rating of {turn.name} is not a number: {line[:100]!r}"
    return replace(
        turn,
        label=None if match["code"] == NO_CONSENSUS else match["code"],
        valence=valence,
        arousal=arousal,
        dominance=dominance,
    )
