"""Public corpora that are known by the names of their files: one naming scheme for each.

A label is the common English name of the emotion that a code in the name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emodarts.corpora.named import list_named
from emodarts.corpora.utterance import Corpus, Utterance

_GENDERS = {"F": "female", "f": "female", "M": "male", "m": "male"}
_MEN_OF_ESD = (4, 5, 6, 8, 10, 11, 12, 13, 14, 20)


@dataclass(frozen=True)
class Scheme:
    """A reader for files whose names hold speaker and emotion.

    Attributes
    ----------
    title : of the corpus, in a line.
    example : name of a file.
    pattern : regular expression for the end of a path without its suffix. Its group ``emotion`` is
        a key of ``emotions``; ``speaker``, ``session`` and ``gender`` may be absent.
    emotions : common name of each code.
    genders : by the group ``gender``, or by speaker where there is none.
    styles : by speaker.
    """

    title: str
    example: str
    pattern: str
    emotions: Mapping[str, str]
    genders: Mapping[str, str] = field(default_factory=lambda: _GENDERS)
    styles: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, root: Path | None) -> Corpus:
        """List the corpus in and below ``root``; no audio file is opened.

        Raises
        ------
        CorpusError
            If ``root`` is missing, is not a folder or holds no such file, or if two files of the
            same name differ in size.
        """
        name = self.title.partition(":")[0]
        wanted = f"{name} files like {self.example}"
        utterances, skipped = list_named(root, name.lower(), wanted, self.parse_name)
        present = {u.known_label() for u in utterances}
        return Corpus(
            name=name.lower(),
            utterances=tuple(utterances),
            classes=tuple(sorted(present)),
            skipped=tuple(skipped),
            emotions={label: label for label in present},
        )

    def parse_name(self, path: Path) -> Utterance | str:
        """Return the utterance that a file's name describes, or the reason why it is not one."""
        match = re.search(f"(?:^|/)(?:{self.pattern})$", path.with_suffix("").as_posix())
        if match is None:
            return f"not named like {self.example}"
        found = match.groupdict()
        speaker = found.get("speaker")
        return Utterance(
            # Where a folder names the speaker, files of several speakers share their names.
            name=path.stem if (speaker or "") in path.stem else f"{speaker}_{path.stem}",
            path=path,
            label=self.emotions[found["emotion"]],
            speaker=speaker,
            gender=self.genders.get(found.get("gender") or speaker or ""),
            session=found.get("session"),
            style=self.styles.get(speaker or ""),
        )


SCHEMES: dict[str, Scheme] = {
    "emovo": Scheme(
        "EMOVO: acted Italian, 6 speakers, 7 emotions.",
        "gio-f1-b1.wav",
        r"(?P<emotion>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>(?P<gender>[fm])[1-3])-[a-z]\d+",
        {
            "dis": "disgust",
            "gio": "happiness",
            "neu": "neutral",
            "pau": "fear",
            "rab": "anger",
            "sor": "surprise",
            "tri": "sadness",
        },
    ),
    "nemo": Scheme(
        "nEMO: acted Polish, 9 speakers, 6 emotions.",
        "WR0_surprised_01.wav",
        r"(?P<speaker>[A-Z]{2,3}\d)_"
        r"(?P<emotion>anger|fear|happiness|neutral|sadness|surprised?)_\w+",
        {
            "anger": "anger",
            "fear": "fear",
            "happiness": "happiness",
            "neutral": "neutral",
            "sadness": "sadness",
            "surprise": "surprise",
            "surprised": "surprise",
        },
    ),
    # One file of OAF is released as OA_bite_neutral.
    "tess": Scheme(
        "TESS: acted Canadian English, 2 women, 7 emotions; ps is pleasant surprise.",
        "OAF_back_angry.wav",
        r"(?P<speaker>[OY]A)F?_[^/_]+_(?P<emotion>angry|disgust|fear|happy|neutral|ps|sad)",
        {
            "angry": "anger",
            "disgust": "disgust",
            "fear": "fear",
            "happy": "happiness",
            "neutral": "neutral",
            "ps": "surprise",
            "sad": "sadness",
        },
        genders={"OA": "female", "YA": "female"},
    ),
    "savee": Scheme(
        "SAVEE: acted British English, 4 men, 7 emotions.",
        "DC/a01.wav or DC_a01.wav",
        r"(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>sa|su|[adfhn])\d\d",
        {
            "a": "anger",
            "d": "disgust",
            "f": "fear",
            "h": "happiness",
            "n": "neutral",
            "sa": "sadness",
            "su": "surprise",
        },
        genders=dict.fromkeys(("DC", "JE", "JK", "KL"), "male"),
    ),
    "esd": Scheme(
        "ESD: acted Mandarin and English (styles mandarin, english), 20 speakers, 5 emotions.",
        "0011/Angry/0011_000351.wav",
        r"(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?:[^/]+/)?"
        r"(?P<speaker>00(?:0[1-9]|1\d|20))_\d{6}",
        {
            "Angry": "anger",
            "Happy": "happiness",
            "Neutral": "neutral",
            "Sad": "sadness",
            "Surprise": "surprise",
        },
        genders={f"{k:04}": "male" if k in _MEN_OF_ESD else "female" for k in range(1, 21)},
        styles={f"{k:04}": "mandarin" if k <= 10 else "english" for k in range(1, 21)},
    ),
    "cafe": Scheme(
        "CaFE: acted Canadian French, 12 speakers, 7 emotions.",
        "01-C-1-1.wav",
        r"(?P<speaker>0[1-9]|1[0-2])-(?P<emotion>[CDJNPST])-[12]-[1-6]",
        {
            "C": "anger",
            "D": "disgust",
            "J": "happiness",
            "N": "neutral",
            "P": "fear",
            "S": "surprise",
            "T": "sadness",
        },
        genders={f"{k:02}": "male" if k % 2 else "female" for k in range(1, 13)},
    ),
    # Names tell whether a man, a woman or a child speaks, but not which.
    "mesd": Scheme(
        "MESD: acted Mexican Spanish words, 6 emotions; sessions are voices C, F and M.",
        "Anger_C_A_abajo.wav",
        r"(?P<emotion>Anger|Disgust|Fear|Happiness|Neutral|Sadness)_"
        r"(?P<session>(?P<gender>[CFM]))_[AB]_[^/]+",
        {
            "Anger": "anger",
            "Disgust": "disgust",
            "Fear": "fear",
            "Happiness": "happiness",
            "Neutral": "neutral",
            "Sadness": "sadness",
        },
    ),
    "shemo": Scheme(
        "ShEMO: Persian from radio plays, 87 speakers, 6 emotions.",
        "F01A01.wav",
        r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<emotion>[AFHNSW])\d+",
        {
            "A": "anger",
            "F": "fear",
            "H": "happiness",
            "N": "neutral",
            "S": "sadness",
            "W": "surprise",
        },
    ),
    # One file is released as F_02_MONIKA_S_2_SURPRISE_3].wav.
    "subesco": Scheme(
        "SUBESCO: acted Bangla, 20 speakers, 7 emotions.",
        "F_01_OISHI_S_10_ANGRY_1.wav",
        r"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Za-z]+_S_\d+_"
        r"(?P<emotion>ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_\d+\]?",
        {
            "ANGRY": "anger",
            "DISGUST": "disgust",
            "FEAR": "fear",
            "HAPPY": "happiness",
            "NEUTRAL": "neutral",
            "SAD": "sadness",
            "SURPRISE": "surprise",
        },
    ),
    "urdu": Scheme(
        "URDU: Urdu from talk shows, 38 speakers, 4 emotions.",
        "SM1_F1_A01.wav",
        r"(?P<speaker>S(?P<gender>[FM])\d+)_F\d+_(?P<emotion>[AHNS])\d+",
        {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"},
    ),
    "aesdd": Scheme(
        "AESDD: acted Greek, 5 speakers or more, 5 emotions.",
        "a03 (4).wav",
        r"(?P<emotion>[adfhs])\d\d ?\((?P<speaker>\d+)\)[a-z]?",
        {
            "a": "anger",
            "d": "disgust",
            "f": "fear",
            "h": "happiness",
            "s": "sadness",
        },
    ),
}
