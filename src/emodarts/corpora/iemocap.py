"""IEMOCAP: acted English dialogues, improvised and scripted, 10 speakers in 5 sessions.

C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language
Resources and Evaluation 42, 2008. As distributed::

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

A woman and a man talk in each session. The letter before the number of a turn says who speaks;
the one in the dialogue's name says who wore the markers, so ``Ses01F_impro01`` and
``Ses01M_impro01`` are two dialogues. The times in label files are those of the dialogue's
recording and are not used: every turn has a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from emodarts.corpora.folder import (
    check_folder,
    is_debris,
    read_rating,
    read_text,
    refuse_faults,
    walk_files,
)
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
"""Where the sessions may be, seen from the folder that was named; the first that has any counts."""

LABELS = Path("dialog", "EmoEvaluation")
SOUND = Path("sentences", "wav")
STYLES = {"impro": "improvised", "script": "scripted"}
GENDERS = {"F": "female", "M": "male"}

EXAMPLE = "[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]"
_WANTED = f"folders Session1 to Session5 with {LABELS} and {SOUND}"
_LEGAL = f"legal: {EXAMPLE}, with one of {', '.join(EMOTIONS)}, {NO_CONSENSUS}"
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

    Labels are the codes of the raters' consensus; ``xxx`` (none) is no label. Ratings are means
    on a scale from 1 to 5.

    Raises
    ------
    CorpusError
        If ``root`` holds no session, if a label file is malformed or contradicts another, or if
        no labelled turn has sound.
    """
    root = check_folder(root, "iemocap", _WANTED)
    sessions = _find_sessions(root)
    sound: dict[str, Path] = {}
    skipped: list[tuple[str, str]] = []
    for path in _find_sound(sessions):
        if is_debris(path):
            skipped.append((str(path.relative_to(root)), "resource fork of macOS, not sound"))
        elif (first := sound.setdefault(path.stem, path)) is not path:
            skipped.append((str(path.relative_to(root)), f"copy of {first.relative_to(root)}"))
    turns = _read_turns(root, sessions, sound)
    skipped += [(name, f"no sound in {SOUND}") for name in turns if name not in sound]
    for name in sound.keys() - turns.keys():
        skipped.append((str(sound[name].relative_to(root)), f"no label in {LABELS}"))
    utterances = [turn for name, turn in turns.items() if name in sound]
    if not utterances:
        raise CorpusError(
            f"{root}: none of the {len(turns)} labelled turns has a file in {SOUND} of a session; "
            f"looked for {_WANTED}"
        )
    present = {u.label for u in utterances}
    return Corpus(
        name="iemocap",
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=tuple(code for code in EMOTIONS if code in present),
        skipped=tuple(sorted(skipped)),
        emotions=EMOTIONS,
    )


def _find_sessions(root: Path) -> list[Path]:
    for release in RELEASES:
        sessions = [root / release / f"Session{number}" for number in range(1, 6)]
        if found := [session for session in sessions if (session / LABELS).is_dir()]:
            return found
    raise CorpusError(
        f"{root} holds no IEMOCAP; looked for {_WANTED} in it and in {', '.join(RELEASES[1:])}"
    )


def _find_sound(sessions: Sequence[Path]) -> Iterator[Path]:
    for session in sessions:
        if (session / SOUND).is_dir():
            yield from (p for p in walk_files(session / SOUND) if p.suffix.lower() == ".wav")


def _read_turns(
    root: Path, sessions: Sequence[Path], sound: Mapping[str, Path]
) -> dict[str, Utterance]:
    """Labelled turns by name. Lines that do not start with a time are comments or one rater's."""
    turns: dict[str, Utterance] = {}
    places: dict[str, str] = {}
    faults: list[str] = []
    for session in sessions:
        for path in walk_files(session / LABELS):
            # The folders below hold what single raters said.
            if path.parent != session / LABELS or path.suffix.lower() != ".txt" or is_debris(path):
                continue
            for number, line in enumerate(read_text(path).split("\n"), 1):
                if not line.startswith("["):
                    continue
                place = f"{path.relative_to(root)}, line {number}"
                turn = _parse(line, sound)
                if isinstance(turn, str):
                    faults.append(f"{place}: {turn}")
                elif turns.setdefault(turn.name, turn) != turn:
                    faults.append(f"{place}: {turn.name} is rated otherwise in {places[turn.name]}")
                else:
                    places.setdefault(turn.name, place)
    refuse_faults(root, faults, _LEGAL)
    return turns


def _parse(line: str, sound: Mapping[str, Path]) -> Utterance | str:
    """Return the turn of a line, its path a mere name if it has no sound, or the fault."""
    match = _LINE.fullmatch(line)
    if match is None:
        return f"no labelled turn: {line[:100]!r}"
    turn = _TURN.fullmatch(match["turn"])
    if turn is None:
        return f"no name of a turn: {match['turn']!r}"
    if match["code"] not in (*EMOTIONS, NO_CONSENSUS):
        return f"unknown emotion {match['code']!r} of {match['turn']}"
    try:
        valence, arousal, dominance = (read_rating(match[scale]) for scale in "vad")
    except ValueError:
        return f"no number among the ratings of {match['turn']}: {line[:100]!r}"
    return Utterance(
        name=match["turn"],
        path=sound.get(match["turn"]) or Path(f"{match['turn']}.wav"),
        label=None if match["code"] == NO_CONSENSUS else match["code"],
        speaker=f"Ses0{turn['session']}_{turn['speaker']}",
        gender=GENDERS[turn["speaker"]],
        session=f"Session{turn['session']}",
        dialogue=turn["dialogue"],
        style=STYLES[turn["style"]],
        valence=valence,
        arousal=arousal,
        dominance=dominance,
    )
