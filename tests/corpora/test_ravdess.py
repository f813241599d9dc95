"""RAVDESS' file names, its copies, and everything else that may lie between them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.ravdess import EMOTIONS, parse_name, read_ravdess
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError


def put(root: Path, *names: str, content: bytes = b"") -> Path:
    """Make files that are no sound: listing must not open them."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).write_bytes(content)
    return root


def test_real_names(tmp_path: Path) -> None:
    listed = Path(__file__).parents[3] / "shared" / "data" / "emobox" / "ravdess" / "ravdess.jsonl"
    if not listed.is_file():
        pytest.skip(f"no EmoBox list of RAVDESS at {listed}")
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    put(tmp_path, *(row["wav"] for row in rows))
    corpus = read_ravdess(tmp_path / "downloads" / "ravdess")
    assert corpus.count("label", corpus.classes) == {
        "neutral": 96, "calm": 192, "happy": 192, "sad": 192, "angry": 192, "fearful": 192,
        "disgust": 192, "surprised": 192,
    }  # fmt: skip
    assert corpus.count("speaker") == {f"{actor:02}": 60 for actor in range(1, 25)}
    assert corpus.count("style") == {"speech": 1440}
    assert corpus.skipped == ()
    stems = {row["key"].removeprefix("ravdess-"): row["emo"].lower() for row in rows}
    assert {u.name: u.label for u in corpus} == stems
    assert [u.name for u in corpus] == sorted(stems)


def test_song_lacks_two_emotions_and_one_actor(tmp_path: Path) -> None:
    """Every possible name, made from the published scheme: 1440 spoken and 1012 sung."""
    names = [
        f"03-{channel}-{emotion}-{intensity}-{statement}-{repetition}-{actor:02}"
        for channel, actors, emotions in (
            ("01", range(1, 25), 8),
            ("02", {*range(1, 25)} - {18}, 6),
        )
        for actor in actors
        for emotion in (f"{e:02}" for e in range(1, emotions + 1))
        for intensity in ("01", "02")[: 1 if emotion == "01" else 2]
        for statement in ("01", "02")
        for repetition in ("01", "02")
    ]
    put(tmp_path, *(f"Actor_{name[-2:]}/{name}.wav" for name in names))
    corpus = read_ravdess(tmp_path)
    assert corpus.count("style") == {"song": 1012, "speech": 1440}
    sung = Counter(u.label for u in corpus if u.style == "song")
    assert sung == {"neutral": 92} | dict.fromkeys(
        ("calm", "happy", "sad", "angry", "fearful"), 184
    )
    assert {u.gender for u in corpus if u.speaker in ("02", "18", "24")} == {"female"}
    assert {u.gender for u in corpus if u.speaker in ("01", "17", "23")} == {"male"}
    assert corpus.skipped == ()


def test_common_names(tmp_path: Path) -> None:
    put(tmp_path, *(f"03-01-{emotion}-01-01-01-01.wav" for emotion in reversed(EMOTIONS)))
    corpus = read_ravdess(tmp_path)
    assert [corpus.emotions[own] for own in corpus.classes] == [
        "neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("01-01-05-01-02-01-18.mp4", "modality 01"),
        ("02-01-05-01-02-01-18.mp4", "modality 02"),
        ("01-01-05-01-02-01-18.wav", "modality 01"),
        ("03-01-05-01-02-01-18.mp4", "a video"),
        ("03-03-05-01-02-01-18.wav", "no such vocal channel: 03; allowed: 01 to 02"),
        ("03-01-09-01-02-01-18.wav", "no such emotion: 09; allowed: 01 to 08"),
        ("03-01-05-03-02-01-18.wav", "no such intensity: 03"),
        ("03-01-05-01-00-01-18.wav", "no such statement: 00"),
        ("03-01-05-01-02-03-18.wav", "no such repetition: 03"),
        ("03-01-05-01-02-01-25.wav", "no such actor: 25; allowed: 01 to 24"),
        ("03-01-05-01-02-01-00.wav", "no such actor: 00"),
        ("03-02-07-01-02-01-17.wav", "disgust was not sung"),
        ("03-02-08-01-02-01-17.wav", "surprised was not sung"),
        ("03-01-01-02-02-01-17.wav", "neutral has intensity 01 only"),
        ("03-01-05-01-02-01-18-1.wav", "not named like"),
        ("03-01-05-01-02-01-1\u0668.wav", "not named like"),
        ("._03-01-05-01-02-01-18.wav", "macOS"),
    ],
)
def test_what_is_left_out(tmp_path: Path, name: str, reason: str) -> None:
    put(tmp_path, "03-01-05-01-02-01-18.WAV", f"Actor_18/{name}", "README.txt")
    corpus = read_ravdess(tmp_path)
    assert [u.name for u in corpus] == ["03-01-05-01-02-01-18"]
    ((left, why),) = corpus.skipped
    assert left == f"Actor_18/{name}"
    with pytest.raises(CorpusError, match=reason):
        raise CorpusError(why)


def test_a_nested_copy_is_read_once(tmp_path: Path) -> None:
    name = "Actor_18/03-01-05-01-02-01-18.wav"
    put(tmp_path, name, f"audio_speech_actors_01-24/{name}", content=b"sound")
    corpus = read_ravdess(tmp_path)
    assert [u.path for u in corpus] == [tmp_path / name]
    assert corpus.skipped == ((f"audio_speech_actors_01-24/{name}", "copy of another file"),)


def test_a_copy_that_differs_is_refused(tmp_path: Path) -> None:
    name = "Actor_18/03-01-05-01-02-01-18.wav"
    put(tmp_path, name, content=b"sound")
    put(tmp_path, f"copy/{name}", content=b"other sound")
    with pytest.raises(CorpusError, match=r"different sizes \(5 and 11 bytes\)") as caught:
        read_ravdess(tmp_path)
    assert f"{tmp_path / name} and {tmp_path / 'copy' / name}" in str(caught.value)


def test_no_ravdess(tmp_path: Path) -> None:
    put(tmp_path, "Actor_01/hello.wav", "01-01-05-01-02-01-18.mp4")
    with pytest.raises(CorpusError, match=r"has no RAVDESS files like 03-01-05") as caught:
        read_ravdess(tmp_path)
    assert str(tmp_path) in str(caught.value)


codes = st.integers(0, 30).map("{:02}".format)


@given(st.text() | st.lists(codes, min_size=7, max_size=7).map("-".join))
def test_any_name_is_an_utterance_or_a_reason(stem: str) -> None:
    parsed = parse_name(Path(f"{stem}.wav"))
    if isinstance(parsed, Utterance):
        modality, channel, emotion, *_, actor = parsed.name.split("-")
        assert modality == "03"
        assert parsed.label == EMOTIONS[emotion]
        assert parsed.speaker == actor
        assert (parsed.style == "song") == (channel == "02")
    else:
        assert parsed
