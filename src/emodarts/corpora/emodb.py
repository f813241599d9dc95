"""Berlin Database of Emotional Speech (EmoDB): acted German, 10 speakers, 7 emotions.

F. Burkhardt et al., "A database of German emotional speech", Interspeech 2005. All is in the
file name: ``03a01Wa.wav`` is speaker 03, text a01, emotion W (anger), version a.
"""

from __future__ import annotations

import re
from pathlib import Path

from emodarts.corpora.folder import check_folder, is_debris, walk_files
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError

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
_NAME = re.compile(r"(?P<speaker>\d\d)[ab]\d\d(?P<emotion>[WLEAFNT])[a-z]")


def read_emodb(root: Path | None) -> Corpus:
    """List EmoDB's files in ``root`` or at any depth below it; no sound is opened.

    Raises
    ------
    CorpusError
        If ``root`` is missing, is not a folder, or holds no EmoDB file.
    """
    wanted = f"EmoDB files like {EXAMPLE}"
    root = check_folder(root, "emodb", wanted)
    utterances, skipped = [], []
    for path in walk_files(root):
        if path.suffix.lower() != ".wav":
            continue
        utterance = _parse(path)
        if isinstance(utterance, str):
            skipped.append((str(path.relative_to(root)), utterance))
        else:
            utterances.append(utterance)
    if not utterances:
        raise CorpusError(f"{root} holds no EmoDB file; looked for {wanted} in it and below it")
    present = {u.label for u in utterances}
    return Corpus(
        name="emodb",
        utterances=tuple(sorted(utterances, key=lambda u: u.name)),
        classes=tuple(label for label in sorted(EMOTIONS.values()) if label in present),
        skipped=tuple(skipped),
        emotions={label: label for label in EMOTIONS.values()},
    )


def _parse(path: Path) -> Utterance | str:
    """Return the utterance, or the reason why the file is none."""
    if is_debris(path):
        return "resource fork of macOS, not sound"
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return f"not named like {EXAMPLE}"
    speaker = match["speaker"]
    if speaker not in GENDERS:
        return f"no such speaker: {speaker}; legal: {', '.join(GENDERS)}"
    return Utterance(
        name=path.stem,
        path=path,
        label=EMOTIONS[match["emotion"]],
        speaker=speaker,
        gender=GENDERS[speaker],
    )
