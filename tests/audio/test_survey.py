"""Headers and checks of a corpus' audio."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emodarts.audio.duplicates import group_same
from emodarts.audio.survey import (
    Header,
    beyond_file,
    check_all,
    duration_of,
    in_milliseconds,
    read_header,
    read_headers,
    same_stretches,
)
from emodarts.corpora.utterance import Utterance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sound = 0.1 * np.random.default_rng(0).standard_normal(12000)
    soundfile.write(tmp_path / "good.wav", sound, 8000)
    soundfile.write(tmp_path / "stereo.flac", np.stack([sound, sound], axis=1), 24000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    whole = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def utterance(path: Path, start: float = 0.0, end: float | None = None) -> Utterance:
    return Utterance(f"{path.stem}-{start}", path, "calm", "ann", start, end)


def test_headers_give_duration_and_rate(folder: Path) -> None:
    assert read_header(folder / "good.wav") == Header(1.5, 8000)
    assert read_header(folder / "stereo.flac") == Header(0.5, 24000)


@pytest.mark.parametrize("name", ["text.wav", "empty.wav", "missing.wav", "."])
def test_what_has_no_header(folder: Path, name: str) -> None:
    assert read_header(folder / name) is None


def test_every_utterance_gets_the_header_of_its_file(folder: Path) -> None:
    done = []
    utterances = [
        utterance(folder / "good.wav", 0.5),
        utterance(folder / "text.wav"),
        utterance(folder / "good.wav", 0.25, 0.75),
        utterance(folder / "stereo.flac"),
    ]
    headers = read_headers(utterances, lambda: done.append(1))
    assert headers == [Header(1.5, 8000), None, Header(1.5, 8000), Header(0.5, 24000)]
    assert len(done) == 4
    durations = [duration_of(u, h) for u, h in zip(utterances, headers, strict=True) if h]
    assert durations == [1.0, 0.5, 0.5]


def test_unusable_audio_is_found_with_its_reason(folder: Path) -> None:
    names = ("good.wav", "cut.wav", "stereo.flac", "silent.wav", "text.wav", "empty.wav", "no.wav")
    utterances = [utterance(folder / name) for name in names]
    bad = dict(check_all([*utterances, utterance(folder / "good.wav", 1.0, 9.0)]).bad)
    assert list(bad) == [
        *("cut-0.0", "silent-0.0", "text-0.0", "empty-0.0", "no-0.0", "good-1.0"),
    ]
    for name, reason in zip(
        bad,
        ("truncated", "silent", "cannot be decoded", "empty", "no such file", "not a segment"),
        strict=True,
    ):
        assert reason in bad[name]


def test_real_speech_is_whole(emodb_root: Path) -> None:
    paths = sorted(emodb_root.rglob("*.wav"))[:40]
    assert check_all([utterance(path) for path in paths]).bad == ()


def test_the_same_stretch_under_two_names(folder: Path) -> None:
    (folder / "link.wav").symlink_to(folder / "good.wav")
    shutil.copy(folder / "good.wav", folder / "copy.wav")
    utterances = [
        utterance(folder / "good.wav"),
        utterance(folder / "link.wav", 0.0, 1.5),
        utterance(folder / "copy.wav"),
        utterance(folder / "good.wav", 0.0, 1.0),
        utterance(folder / "link.wav", 0.0, 1.0),
        utterance(folder / "good.wav", 0.5, 1.5),
        utterance(folder / "no.wav"),
        utterance(folder / "no.wav"),
    ]
    assert same_stretches(utterances, read_headers(utterances)) == [(0, 1), (3, 4)]
    sounds = check_all(utterances).sounds
    assert group_same(sounds) == [(0, 1, 2), (3, 4)]
    assert sounds[6:] == (None, None)


def test_stretches_beyond_their_file(folder: Path) -> None:
    stretches = [(0.0, None), (0.0, 1.5), (0.0, 1.505), (0.5, 1.6), (1.5, None), (1.0, 9.0)]
    utterances = [utterance(folder / "good.wav", *stretch) for stretch in stretches]
    headers = read_headers(utterances)
    assert beyond_file(utterances, headers) == [3, 4, 5]
    assert not in_milliseconds(utterances, headers)
    milliseconds = [utterance(folder / "good.wav", 100, 900), utterance(folder / "good.wav", 0, 1)]
    assert in_milliseconds(milliseconds, headers[:2])
    assert not in_milliseconds([utterance(folder / "good.wav", 0, 9000)], headers[:1])
