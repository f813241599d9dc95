"""Folders of the user's own sound."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.audiofolder import read_audiofolder
from emodarts.corpora.folder import AUDIO_SUFFIXES, OTHER_MEDIA
from emodarts.errors import CorpusError


def put(root: Path, *names: str) -> Path:
    """Make files that are no sound: listing must not open them."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).touch()
    return root


def test_labels_are_folders(tmp_path: Path) -> None:
    put(tmp_path, "happy/b.wav", "happy/deep/er/a.WAV", "Angry/b.flac", "meh/b.mp3")
    corpus = read_audiofolder(tmp_path)
    assert {u.name: u.label for u in corpus} == {
        "Angry/b.flac": "Angry",
        "happy/b.wav": "happy",
        "happy/deep/er/a.WAV": "happy",
        "meh/b.mp3": "meh",
    }
    assert corpus.classes == ("Angry", "happy", "meh")
    assert corpus.emotions == {"Angry": "anger", "happy": "happiness"}
    assert all(u.path == tmp_path / u.name for u in corpus)
    assert {u.speaker for u in corpus} == {None}
    assert corpus.skipped == ()


def test_every_suffix_and_names_that_differ_by_it_alone(tmp_path: Path) -> None:
    names = [f"sad/a{suffix}" for suffix in AUDIO_SUFFIXES]
    assert [u.name for u in read_audiofolder(put(tmp_path, *names))] == sorted(names)


def test_what_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "sad/a.wav", "b.wav", "sad/._a.wav", ".cache/c.wav", "sad/notes.txt", "list.csv")
    put(tmp_path, *(f"sad/b{suffix}" for suffix in OTHER_MEDIA))
    (tmp_path / "sad" / "gone.wav").symlink_to(tmp_path / "nothing")
    corpus = read_audiofolder(tmp_path, speaker="/(.)")
    assert [u.name for u in corpus] == ["sad/a.wav"]
    assert dict(corpus.skipped) == {
        "b.wav": "not in a folder named after an emotion",
        "sad/._a.wav": "resource fork of macOS, not audio",
        ".cache/c.wav": "in a hidden folder",
        "sad/gone.wav": "link to nothing",
        **{
            f"sad/b{suffix}": f"{suffix} cannot be read; convert it: ffmpeg -i a{suffix} a.wav"
            for suffix in OTHER_MEDIA
        },
    }


def test_folders_of_unreadable_formats_alone_say_how_to_convert(tmp_path: Path) -> None:
    put(tmp_path, "sad/a.m4a", "sad/b.m4a")
    with pytest.raises(CorpusError, match=r"2 skipped: \.m4a cannot be read; convert it: ffmpeg"):
        read_audiofolder(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "speakers"),
    [
        (r"/(\w+)-\d", {"sad/anna-1.wav": "anna", "sad/x/bo-2.wav": "bo"}),
        (r"(\d)\.wav$", {"sad/anna-1.wav": "1", "sad/x/bo-2.wav": "2"}),
        (r"(sad)/(?:x/)?(?P<speaker>\w)", {"sad/anna-1.wav": "a", "sad/x/bo-2.wav": "b"}),
        (r"/([^/]+)$", {"sad/anna-1.wav": "anna-1.wav", "sad/x/bo-2.wav": "bo-2.wav"}),
    ],
)
def test_speakers(tmp_path: Path, pattern: str, speakers: dict[str, str]) -> None:
    corpus = read_audiofolder(put(tmp_path, *speakers), speaker=pattern)
    assert {u.name: u.speaker for u in corpus} == speakers


@pytest.mark.parametrize(
    "pattern", [r"/\w+_([a-z]+)_", r"_(?P<emotion>[a-z]+)_(\d)", r"([a-z]+)_\d+\.wav$"]
)
def test_emotions_in_names(tmp_path: Path, pattern: str) -> None:
    put(tmp_path, "anna/01_sad_1.wav", "bo/x/02_happy_2.wav", "anna/noise.wav", "03.txt")
    corpus = read_audiofolder(tmp_path, emotion=pattern, speaker="^([^/]+)/")
    assert {u.name: (u.label, u.speaker) for u in corpus} == {
        "anna/01_sad_1.wav": ("sad", "anna"),
        "bo/x/02_happy_2.wav": ("happy", "bo"),
    }
    assert corpus.emotions == {"sad": "sadness", "happy": "happiness"}
    assert corpus.skipped == (("anna/noise.wav", f"emotion={pattern} finds nothing in the name"),)


def test_emotions_without_folders(tmp_path: Path) -> None:
    (utterance,) = read_audiofolder(put(tmp_path, "W1.wav"), emotion="^(W)")
    assert utterance.label == "W"


def test_an_emotion_that_cannot_be_found_tells_where_it_was_looked_for(tmp_path: Path) -> None:
    put(tmp_path, "anna/01-sad.wav", "bo/02-sad.wav")
    with pytest.raises(CorpusError) as caught:
        read_audiofolder(tmp_path, emotion="_([a-z]+)_")
    assert "emotion=_([a-z]+)_ finds no emotion in these names" in str(caught.value)
    assert "anna/01-sad.wav" in str(caught.value)
    with pytest.raises(CorpusError, match="emotion=sad has no group; put the emotion in paren"):
        read_audiofolder(tmp_path, emotion="sad")


def test_words_for_unknown_speakers(tmp_path: Path) -> None:
    corpus = read_audiofolder(put(tmp_path, "sad/Unknown/a.wav"), speaker="/([^/]+)/")
    assert [u.speaker for u in corpus] == [None]


@pytest.mark.filterwarnings("ignore")  # as outside of tests
@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(", "is not a regular expression: missing"),
        ("[[a](b)", "is not a regular expression: Possible nested set"),
        ("(a{99999999999999999999})", "is not a regular expression"),
        ("anna", "has no group"),
        (r"/(\w+)-\d", r"has 1 error\(s\).*\n  sad/x/bo\.wav$"),
        (r"/(\w*)", None),
        (r"anna()", r"has 2 error"),
        (r"sad/(anna)?", r"has 1 error.*\n  sad/x/bo"),
    ],
)
def test_a_speaker_that_cannot_be_found(tmp_path: Path, pattern: str, fault: str | None) -> None:
    put(tmp_path, "sad/anna-1.wav", "sad/x/bo.wav")
    if fault is None:
        assert len(read_audiofolder(tmp_path, speaker=pattern)) == 2
        return
    with pytest.raises(CorpusError, match=fault) as caught:
        read_audiofolder(tmp_path, speaker=pattern)
    assert f"speaker={pattern}" in str(caught.value)


def test_many_names_without_a_speaker(tmp_path: Path) -> None:
    put(tmp_path, *(f"sad/{n}.wav" for n in range(1000)))
    with pytest.raises(CorpusError, match="has 1000 error") as caught:
        read_audiofolder(tmp_path, speaker="(anna)")
    assert len(str(caught.value).splitlines()) < 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    put(tmp_path, "sad/a.wav")
    os.close(os.open(os.fsencode(tmp_path) + b"/sad/\xff.wav", os.O_CREAT))
    with pytest.raises(CorpusError, match=r"UTF-8; rename:\n  'sad/\\udcff\.wav'"):
        read_audiofolder(tmp_path)


def test_no_folders_of_sound(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "sad/notes.txt")
    with pytest.raises(CorpusError, match="has no folders with audio files; expected one folder"):
        read_audiofolder(tmp_path)
    with pytest.raises(CorpusError, match=r"needs its folder \(--root\)"):
        read_audiofolder(None)


@given(pattern=st.text(min_size=1) | st.text("()[]{}?*+|.^$\\Pab1<>:=", min_size=1, max_size=12))
def test_any_pattern_gives_speakers_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, pattern: str
) -> None:
    root = put(tmp_path_factory.getbasetemp() / "any-pattern", "b/a1.wav")
    try:
        (utterance,) = read_audiofolder(root, speaker=pattern)
    except CorpusError:
        return
    assert utterance.speaker
