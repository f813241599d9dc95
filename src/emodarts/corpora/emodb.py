"""Berlin Database of Emotional Speech (EmoDB): acted German, 10 speakers, 7 emotions.

F. Burkhardt et al., "A database of German emotional speech", Interspeech 2005. The file
name holds everything: ``03a01Wa.wav`` is speaker 03, text a01, emotion W (anger), version a.
"""

from __future__ import annotations

import re
from pathlib import Path

from emodarts.corpora.named import list_named
from emodarts.corpora.utterance import Corpus, Utterance

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
"""German initials: Wut, Langeweile, Ekel, Angst, Freude, neutral, Trauer."""

GENDERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}

EXAMPLE = "03a01Wa.wav"
_NAME = re.compile(r"(?P<speaker>[0-9]{2})[ab][0-9]{2}(?P<emotion>[WLEAFNT])[a-z]")


def read_emodb(root: Path | None) -> Corpus:
    """List EmoDB's files in and below ``root``; no audio file is opened.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder, or holds no EmoDB file, or if two files of the
        same name differ in size.
    """
    utterances, skipped = list_named(root, "emodb", f"EmoDB files like {EXAMPLE}", parse_name)
    present = {u.label for u in utterances}
    return Corpus(
        name="emodb",
        utterances=tuple(utterances),
        classes=tuple(label for label in sorted(EMOTIONS.values()) if label in present),
        skipped=tuple(skipped),
        emotions={label: label for label in EMOTIONS.values()},
    )


def parse_name(path: Path) -> Utterance | str:
    """Return the utterance that a file's name describes, or the reason why it is not one."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return f"not named like {EXAMPLE}"
    speaker = match["speaker"]
    if speaker not in GENDERS:
        return f"no such speaker: {speaker}; allowed: {', '.join(GENDERS)}"
    return Utterance(
        name=path.stem,
        path=path,
        label=EMOTIONS[match["emotion"]],
        speaker=speaker,
        gender=GENDERS[speaker],
    )
