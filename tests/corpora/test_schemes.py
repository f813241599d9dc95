"""Corpora that are known by the names of their files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emodarts.corpora import READERS, load_corpus
from emodarts.corpora.schemes import SCHEMES
from emodarts.corpora.utterance import COMMON_EMOTIONS, Utterance
from emodarts.errors import CorpusError

# Names of released files, as their publishers or readers of the corpora elsewhere write them.
FILES = [
    ("emovo", "f1/rab-f1-b1.wav", "anger", "f1", "female"),
    ("emovo", "m3/sor-m3-l4.wav", "surprise", "m3", "male"),
    ("nemo", "WR0_surprised_01.wav", "surprise", "WR0", None),
    ("tess", "OAF_angry/OAF_back_angry.wav", "anger", "OA", "female"),
    ("tess", "YAF_pleasant_surprised/YAF_food_ps.wav", "surprise", "YA", "female"),
    ("tess", "OAF_neutral/OA_bite_neutral.wav", "neutral", "OA", "female"),
    ("savee", "AudioData/DC/sa03.wav", "sadness", "DC", "male"),
    ("savee", "KL_f12.wav", "fear", "KL", "male"),
    ("savee", "JK/su01.wav", "surprise", "JK", "male"),
    ("esd", "0001/Happy/0001_000701.wav", "happiness", "0001", "female"),
    ("esd", "0020/Sad/test/0020_001051.wav", "sadness", "0020", "male"),
    ("cafe", "Colère/Faible/01-C-1-1.wav", "anger", "01", "male"),
    ("cafe", "12-P-2-6.aiff", "fear", "12", "female"),
    ("mesd", "Anger_C_A_abajo.wav", "anger", None, None),
    ("mesd", "Sadness_F_B_por supuesto.wav", "sadness", None, "female"),
    ("shemo", "female/F01A01.wav", "anger", "F01", "female"),
    ("shemo", "male/M56W02.wav", "surprise", "M56", "male"),
    ("subesco", "F_01_OISHI_S_10_ANGRY_1.wav", "anger", "F_01", "female"),
    ("subesco", "F_02_MONIKA_S_2_SURPRISE_3].wav", "surprise", "F_02", "female"),
    ("urdu", "Angry/SM1_F1_A01.wav", "anger", "SM1", "male"),
    ("urdu", "Neutral/SF11_F2_N02.wav", "neutral", "SF11", "female"),
    ("aesdd", "fear/f18 (5)b.wav", "fear", "5", None),
    ("aesdd", "anger/a03 (4).wav", "anger", "4", None),
]


def put(root: Path, *names: str) -> Path:
    """Make files that are no sound: listing must not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not audio")
    return root


@pytest.mark.parametrize(("corpus", "file", "label", "speaker", "gender"), FILES)
def test_names_of_released_files(
    tmp_path: Path, corpus: str, file: str, label: str, speaker: str | None, gender: str | None
) -> None:
    (utterance,) = load_corpus(corpus, put(tmp_path, file))
    assert utterance.path == tmp_path / file
    assert (utterance.label, utterance.speaker, utterance.gender) == (label, speaker, gender)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_code_stands_for_a_common_emotion_and_is_found(tmp_path: Path, name: str) -> None:
    scheme = SCHEMES[name]
    example = scheme.example.partition(" or ")[0]
    known = re.search(f"(?:^|/)(?:{scheme.pattern})$", example.rpartition(".")[0])
    assert known is not None
    first, last = known.span("emotion")
    for code, emotion in scheme.emotions.items():
        assert emotion in COMMON_EMOTIONS
        parsed = scheme.parse_name(Path(example[:first] + code + example[last:]))
        assert isinstance(parsed, Utterance)
        assert parsed.label == emotion
        assert parsed.speaker == known.groupdict().get("speaker")
    assert READERS[name] is scheme


def test_files_of_several_speakers_with_one_name(tmp_path: Path) -> None:
    corpus = load_corpus("savee", put(tmp_path, "DC/a01.wav", "JE/a01.wav"))
    assert [(u.name, u.speaker) for u in corpus] == [("DC_a01", "DC"), ("JE_a01", "JE")]


def test_voices_of_mesd_are_sessions_and_languages_of_esd_are_styles(tmp_path: Path) -> None:
    mesd = load_corpus("mesd", put(tmp_path / "mesd", "Fear_M_A_x.wav", "Fear_C_A_x.wav"))
    assert mesd.count("session") == {"C": 1, "M": 1}
    names = ("0010/Sad/0010_001051.wav", "0011/Sad/0011_001051.wav")
    esd = load_corpus("esd", put(tmp_path / "esd", *names))
    assert esd.count("style") == {"english": 1, "mandarin": 1}


@pytest.mark.parametrize(
    ("corpus", "stem"),
    [
        ("emodb", "03a01Wa"),
        ("ravdess", "03-01-05-01-02-01-18"),
        ("crema-d", "1001_IEO_NEU_XX"),
        ("emovo", "rab-f1-b1"),
    ],
)
def test_any_format_is_read_by_its_stem_and_one_of_each(
    tmp_path: Path, corpus: str, stem: str
) -> None:
    (utterance,) = load_corpus(corpus, put(tmp_path, f"a/{stem}.FLAC"))
    assert (utterance.name, utterance.path.name) == (stem, f"{stem}.FLAC")
    (tmp_path / f"a/{stem}.mp3").write_bytes(b"another size")
    (tmp_path / f"a/{stem}.wav").write_bytes(b"and another")
    listed = load_corpus(corpus, tmp_path)
    assert [u.path.name for u in listed] == [f"{stem}.wav"]
    assert sorted(listed.skipped) == [
        (f"a/{stem}.FLAC", "another format of a file that is used"),
        (f"a/{stem}.mp3", "another format of a file that is used"),
    ]


def test_sound_that_must_be_converted_is_named(tmp_path: Path) -> None:
    put(tmp_path, "rab-f1-b1.m4a", "notes.m4a")
    with pytest.raises(CorpusError, match=r"(?s)1 skipped: .*convert it: ffmpeg.* rab-f1-b1\.m4a"):
        load_corpus("emovo", tmp_path)
    corpus = load_corpus("emovo", put(tmp_path, "gio-f1-b1.wav"))
    ((name, reason),) = corpus.skipped
    assert name == "rab-f1-b1.m4a"
    assert "convert it" in reason
